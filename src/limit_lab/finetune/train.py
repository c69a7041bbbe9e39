"""One fine-tuning from documents to trained weights: checkpoints, exact resume, metrics.jsonl and one line per interval."""

from __future__ import annotations

import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from limit_lab import store
from limit_lab.config import Finetune, Hardware
from limit_lab.durations import documents
from limit_lab.errors import ConfigError, DataError, LimitLabError
from limit_lab.finetune import adapters
from limit_lab.finetune.batches import Batches, MicroBatch, MixtureData
from limit_lab.finetune.module import Finetuning
from limit_lab.model.causal import CausalLM
from limit_lab.prompt import Document
from limit_lab.recipe import Schedule, in_steps, misfits

#: Called with the optimizer steps taken and to take.
Progress = Callable[[int, int], None]


class Journal(Callback):
    """Collects the loss of each step, writes metrics.jsonl, prints one line per interval and saves checkpoints."""

    def __init__(self, folder: Path, recipe: Finetune, *, steps: int, say: bool, progress: Progress | None) -> None:
        self.progress = progress
        self.folder = folder
        self.recipe = recipe
        self.steps = steps
        self.say = say
        self.loss = 0.0
        self.targets = 0
        self.norm = self.rate = 0.0
        self.last = time.monotonic()
        self.seen = 0

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drop the records of steps that a resumed run will take again."""
        store.write_rows(self.metrics, [row for row in read_metrics(self.metrics) if row["step"] <= trainer.global_step])

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: MicroBatch, batch_idx: int
    ) -> None:
        self.seen += int((batch.document >= 0).sum())

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        gradients = [parameter.grad for parameter in pl_module.parameters() if parameter.grad is not None]
        self.norm = float(torch.nn.utils.get_total_norm(gradients))
        self.rate = float(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: MicroBatch,
        batch_idx: int,
    ) -> None:
        assert isinstance(outputs, Mapping)
        self.loss += float(outputs["share"])
        self.targets = batch.targets
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self._record(trainer)

    def _record(self, trainer: pl.Trainer) -> None:
        step = trainer.global_step
        if not torch.isfinite(torch.tensor(self.loss)):
            raise LimitLabError(f"the loss is {self.loss} at step {step}: lower finetune.learning_rate or finetune.clip_norm.")
        row = {"step": step, "loss": self.loss, "grad_norm": self.norm, "learning_rate": self.rate, "targets": self.targets}
        with store.writing(self.metrics), self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self.progress is not None:
            self.progress(step, self.steps)
        if self.say and (step % self.recipe.log_every_steps == 0 or step == self.steps):
            now = time.monotonic()
            speed = self.seen / max(now - self.last, 1e-9)
            print(
                f"  step {step:>6,}/{self.steps:,}  loss {self.loss:.4f}  grad {self.norm:.2f}  {speed:,.0f} tok/s",
                flush=True,
            )
            self.last, self.seen = now, 0
        if step % self.recipe.checkpoint_every_steps == 0 and step < self.steps:
            save(trainer, self.folder)
        self.loss = 0.0


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The complete lines of metrics.jsonl; a line cut by a kill is left out."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]


def save(trainer: pl.Trainer, folder: Path) -> None:
    """Write the checkpoint beside the last one, then replace it: at every moment one valid checkpoint exists."""
    partial, checkpoint = folder / "checkpoint.partial", folder / "checkpoint.ckpt"
    with store.writing(checkpoint):
        try:
            trainer.save_checkpoint(partial)
            partial.replace(checkpoint)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


class InPlace(TorchCheckpointIO):
    """Writes where it is told to: Lightning's own way buffers the checkpoint in memory and goes through the system's /tmp."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        with Path(path).open("wb") as file:  # torch's own writer would hide the reason when the disk refuses
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())


def completed_steps(checkpoint: Path) -> int:
    """Steps that a checkpoint holds, 0 without one. Raises: DataError when it cannot be read."""
    if not checkpoint.is_file():
        return 0
    try:
        return int(torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["global_step"])
    except (RuntimeError, ValueError, KeyError, EOFError, UnpicklingError) as error:
        raise DataError(
            f"{checkpoint} is damaged: delete it, and the same command starts this fine-tuning from its beginning."
        ) from error


class Mark(Callback):
    """Saves a checkpoint at the export itself, where a later export of the same training goes on."""

    def __init__(self, folder: Path, steps: int) -> None:
        self.folder = folder
        self.steps = steps

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: MicroBatch,
        batch_idx: int,
    ) -> None:
        if trainer.global_step == self.steps:
            save(trainer, self.folder)


def lengths(recipe: Finetune, mixed: list[Document]) -> Schedule:
    """The recipe in steps for these documents. Raises: ConfigError when it does not suit them."""
    found = in_steps(recipe, len(mixed), sum(len(one.ids) for one in mixed))
    for sentence in misfits(recipe, found):
        raise ConfigError(sentence)
    return found


def train(
    model: CausalLM,
    mixed: list[Document],
    recipe: Finetune,
    hardware: Hardware,
    folder: Path,
    *,
    seed: int,
    say: bool = True,
    progress: Progress | None = None,
    keep: bool = False,
) -> dict[str, Any]:
    """Train ``model`` in place; continue from ``folder/checkpoint.ckpt``, which the caller removes after the export.

    ``keep`` leaves a checkpoint of the end, from which a later export of the same training continues. Adapters are merged
    into the weights. ``progress`` gets the steps taken and to take. Returns steps, epochs, seconds of this process, first and
    last loss and tokens seen.
    Raises: DataError for an empty mixture; ConfigError when the recipe does not suit it; LimitLabError when the loss is not
    finite.
    """
    if not mixed:
        raise DataError("the mixture holds no document to train on: give mixture.samples at least one source.")
    planned = lengths(recipe, mixed)
    steps = planned.stop
    micro_batch = documents(hardware.micro_batch, name="hardware.micro_batch")
    # Lightning takes the end of the batches for the end of the training, also after a resume
    batches = Batches.of(mixed, recipe, steps=planned.whole, micro_batch=micro_batch, seed=seed)
    model.run(attention=hardware.attention, recompute=hardware.recompute)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.ckpt"
    done = completed_steps(checkpoint)
    if done > steps:  # of a later export: this one begins anew
        checkpoint.unlink()
        done = 0
    if recipe.lora.rank:
        frozen = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
        adapters.add(model, recipe.lora, seed=seed, frozen=frozen)
    module = Finetuning(
        model.train(),
        recipe,
        schedule_steps=planned.steps,
        accumulation=batches.accumulation,
        logits_at_once=hardware.logits_at_once,
    )
    start = time.monotonic()
    journal = Journal(folder, recipe, steps=steps, say=say, progress=progress)
    callbacks: list[Callback] = [journal, Mark(folder, steps)] if keep else [journal]
    trainer = _trainer(recipe, hardware, folder, batches.accumulation, steps, callbacks)
    with warnings.catch_warnings():
        # Lightning advises worker processes and a validation loop; the batches are built in microseconds and scored later
        warnings.filterwarnings("ignore", module="lightning")
        try:
            trainer.fit(module, MixtureData(batches), ckpt_path=checkpoint if done else None, weights_only=True)
        except SystemExit as stop:  # what Lightning makes of Ctrl-C (exit code 1) and of SIGTERM (exit code 0)
            raise KeyboardInterrupt from stop
    if recipe.lora.rank:
        adapters.merge(model)
    model.eval()
    losses = [row["loss"] for row in read_metrics(folder / "metrics.jsonl")]
    return {
        "steps": steps,
        "schedule_steps": planned.steps,
        "epochs": steps / batches.steps_per_epoch,
        "seconds": round(time.monotonic() - start, 2),
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "tokens_seen": sum(len(one.ids) for step in range(steps) for one in batches.of_step(step)),
    }


def _trainer(
    recipe: Finetune, hardware: Hardware, folder: Path, accumulation: int, steps: int, callbacks: list[Callback]
) -> pl.Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    return pl.Trainer(
        accelerator=hardware.accelerator,
        devices=1,
        max_steps=steps,
        max_epochs=1,
        accumulate_grad_batches=accumulation,
        gradient_clip_val=recipe.clip_norm,
        callbacks=callbacks,
        plugins=[InPlace()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=str(folder),
    )
