"""What a fine-tuning writes down while it runs: metrics.jsonl, one printed line per interval, checkpoints.

A loss, a gradient norm or weights that are not finite end it before they reach the weights or the checkpoint.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from limit_lab import interruption, operations
from limit_lab.config import Finetune, Hardware
from limit_lab.errors import LimitLabError
from limit_lab.finetune import checkpoint, pieces, rows, strategies
from limit_lab.finetune.batches import Batches, MicroBatch
from limit_lab.finetune.meter import Amount, Clock, left, peak_gib
from limit_lab.shapes import Shape

#: Called with the optimizer steps taken and to take.
Progress = Callable[[int, int], None]

#: Documents of a batch that an error names.
NAMED = 5


class Journal(Callback):
    """Records each step, prints one line per interval, saves checkpoints, and stops a run that diverges or is asked to end.

    ``shape`` is what the share of the peak is counted from, if it is known. Raises: LimitLabError when a step's loss or
    gradient norm is not finite, before the optimizer takes the step; or when weights are not, before they are saved.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Finetune,
        hardware: Hardware,
        batches: Batches,
        clock: Clock,
        *,
        steps: int,
        shape: Shape | None,
        say: bool,
        progress: Progress | None,
    ) -> None:
        self.folder = folder
        self.recipe = recipe
        self.hardware = hardware
        self.batches = batches
        self.clock = clock
        self.steps = steps
        self.shape = shape
        self.say = say
        self.progress = progress
        self.norm = self.rate = 0.0
        self.begun = self.mark = 0.0  # of this process, and of the step under way, on the clock
        self.first = 0
        self.left: int | None = None  # the step after which the training ends before its time
        self.own = Amount()
        self.interval = Amount()
        self.losses: list[Tensor] = []  # of the step's micro-batches, as they go backward
        self.shares: list[Tensor] = []  # of the step's loss, one a micro-batch

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drop the records of steps that a resumed run will take again; hear signals, which Lightning has just taken over.

        A rank hears none: torchrun sends them when another rank has failed, and then there is nothing to finish.
        """
        if strategies.alone(trainer.strategy):
            interruption.listen()
        else:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if trainer.is_global_zero:
            rows.cut(self.metrics, trainer.global_step)
        self.first = trainer.global_step
        self.begun = self.mark = self.clock.seconds()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: MicroBatch, batch_idx: int
    ) -> None:
        raw = batch.ids.numel()
        self.own.raw_tokens += raw
        if self.shape is not None:
            width = min(batch.ids.shape[-1], self.recipe.max_seq_tokens)
            self.own.raw_flops += operations.mosaic(self.shape, raw, width)

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        self.losses.append(loss.detach())

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        self.rate = float(optimizer.param_groups[0]["lr"])
        step = trainer.global_step + 1
        self._require_finite("loss", strategies.total(trainer, torch.stack(self.losses).sum()), step)
        if not strategies.stage_of(trainer.strategy):
            self._take_norm(trainer, pl_module, step)

    def _take_norm(self, trainer: pl.Trainer, module: pl.LightningModule, step: int) -> None:
        self.norm = strategies.gradient_norm(trainer, module)
        self._require_finite("gradient norm", self.norm, step)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: MicroBatch,
        batch_idx: int,
    ) -> None:
        assert isinstance(outputs, Mapping)
        self.shares.append(outputs["share"])
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self._end_step(trainer, pl_module, batch.targets)

    def _end_step(self, trainer: pl.Trainer, module: pl.LightningModule, targets: int) -> None:
        step, steps = trainer.global_step, self.steps
        if strategies.stage_of(trainer.strategy):  # DeepSpeed tells the norm only now; nothing of this step has been saved
            self._take_norm(trainer, module, step)
        loss = strategies.total(trainer, torch.tensor(sum(float(share) for share in self.shares), dtype=torch.float64))
        row = {"step": step, "loss": loss, "grad_norm": self.norm, "learning_rate": self.rate, "targets": targets}
        counted = self._counted(trainer, step, targets)
        if trainer.is_global_zero:
            rows.append(self.metrics, [{**row, **counted}])
        if self.progress is not None:
            self.progress(step, steps)
        if self.say and (step % self.recipe.log_every_steps == 0 or step == steps):
            print(f"{self._line(step, row['loss'])}  {peak_gib(module.device):.2f} GiB  {self._left(step)} left", flush=True)
            self.interval = Amount()
        leaving = stop_now(trainer, self.folder)
        if step % self.recipe.checkpoint_every_steps == 0 or step == steps or leaving:
            self._require_finite("norm of the weights", pieces.weights_norm(trainer, module), step)
            if step < steps or leaving:
                checkpoint.save(trainer, self.folder)
        if leaving:
            self.left, trainer.should_stop = step, True
        self.losses, self.shares = [], []

    def _counted(self, trainer: pl.Trainer, step: int, targets: int) -> dict[str, float]:
        """Close the step's counts and add them to the interval's."""
        lengths = [len(one.ids) for one in self.batches.of_step(step - 1)]
        now, tokens, flops = self.clock.seconds(), sum(lengths), 0.0
        if self.shape is not None:
            squares, adapters = sum(length**2 for length in lengths), bool(self.recipe.lora.rank)
            flops = operations.counted(self.shape, tokens, targets, squares, adapters=adapters)
        raw = strategies.total(trainer, torch.tensor(self.own.raw_tokens, dtype=torch.float64))
        raw_flops = strategies.total(trainer, torch.tensor(self.own.raw_flops, dtype=torch.float64))
        seconds = now - self.mark
        own = Amount(tokens=tokens, seconds=seconds, flops=flops, raw_tokens=round(raw), raw_flops=raw_flops)
        self.interval.add(own)
        self.mark, self.own = now, Amount()
        counts = {"tokens": own.tokens, "raw_tokens": own.raw_tokens, "documents": len(lengths)}
        return {**counts, "seconds": round(own.seconds, 4)}

    def _line(self, step: int, loss: float) -> str:
        numbers = f"loss {loss:.4f}  grad {self.norm:.2f}  lr {self.rate:.1e}"
        return f"  step {step:>6,}/{self.steps:,}  {numbers}  {self.interval.said(self.hardware.tflops)}"

    def _left(self, step: int) -> str:
        return left(self.clock.seconds() - self.begun, step - self.first, self.steps - step)

    def _require_finite(self, what: str, value: float, step: int) -> None:
        if math.isfinite(value):
            return
        documents = self.batches.of_step(step - 1)
        named = ", ".join(f"{one.source} row {one.row}" for one in documents[:NAMED])
        more = f" and {len(documents) - NAMED} more" if len(documents) > NAMED else ""
        kept = checkpoint.completed_steps(self.folder / "checkpoint.ckpt")
        raise LimitLabError(
            f"the {what} is {value} at step {step}, on {named}{more}: lower finetune.learning_rate, or leave out what is wrong "
            f"with these rows; {f'the checkpoint of step {kept} is kept' if kept else 'no checkpoint was due before'}."
        )


def stop_now(trainer: pl.Trainer, folder: Path) -> bool:
    """Whether the training ends after this step: a signal asked this process, or the one that waits for its ranks."""
    if strategies.alone(trainer.strategy):
        return interruption.asked() is not None
    asked = trainer.is_global_zero and (folder / interruption.LEAVE).exists()
    return strategies.total(trainer, torch.tensor(float(asked))) > 0


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl as far as a run has come."""
    return rows.read(path)
