"""What a fine-tuning writes down while it runs: metrics.jsonl, one printed line per interval, checkpoints."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from limit_lab import store
from limit_lab.config import Finetune
from limit_lab.errors import LimitLabError
from limit_lab.finetune import checkpoint
from limit_lab.finetune.batches import MicroBatch

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
            checkpoint.save(trainer, self.folder)
        self.loss = 0.0


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The complete lines of metrics.jsonl; a line cut by a kill is left out."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
