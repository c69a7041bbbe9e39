"""The LightningModule around a causal LM: weighted loss over the targets of the global batch."""

from __future__ import annotations

import math
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from limit_lab.config import Finetune
from limit_lab.finetune.batches import IGNORE, MicroBatch
from limit_lab.finetune.loss import target_loss
from limit_lab.finetune.optimizers import optimizer_of
from limit_lab.model.causal import CausalLM


def batch_loss(model: CausalLM, batch: MicroBatch, *, at_once: int) -> Tensor:
    """The micro-batch's share of its step's loss, float32 scalar."""
    chosen = batch.labels != IGNORE
    hidden = model.hidden(batch.ids, document=batch.document)[chosen]
    return target_loss(model, hidden, batch.labels[chosen], batch.weights[chosen], at_once=at_once)


def learning_rate_factor(step: int, *, steps: int, warmup: int, schedule: str) -> float:
    """Share of the peak at a 0-based step: linear warm-up, then decay to zero at the schedule's end.

    linear and cosine fall from the first step on, so a long warm-up never reaches the peak. linear_after_warmup begins at
    zero, reaches the peak at the end of the warm-up and falls from there (Composer's LinearWithWarmupScheduler, as in LIMIT).
    """
    if schedule == "linear_after_warmup":
        return step / warmup if step < warmup else max(0.0, (steps - step) / max(1, steps - warmup))
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    progress = min(1.0, step / steps)
    fall = 1.0 - progress if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    return min(rise, fall) if schedule == "linear" else rise * fall


class Finetuning(pl.LightningModule):
    """Trains one model by a recipe; ``schedule_steps`` is the length of the schedule, which may outlast the run.

    ``parts`` is by what the trainer and its strategy divide the loss of a micro-batch.
    """

    def __init__(
        self,
        model: CausalLM,
        recipe: Finetune,
        *,
        schedule_steps: int,
        parts: int,
        logits_at_once: int,
        autocast: bool | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe
        self.schedule_steps = schedule_steps
        self.parts = parts
        self.autocast = recipe.precision == "bf16" if autocast is None else autocast
        self.logits_at_once = logits_at_once
        if recipe.freeze_embeddings:
            for matrix in model.vocabulary():
                matrix.requires_grad_(False)
        self.strict_loading = not recipe.lora.rank

    def training_step(self, batch: MicroBatch, _: int) -> dict[str, Tensor]:
        # the trainer takes means; the weights have divided by what we want already
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            share = batch_loss(self.model, batch, at_once=self.logits_at_once)
        return {"loss": share * self.parts, "share": share.detach()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """With adapters, keep those alone: the other weights are the base's."""
        if self.recipe.lora.rank:
            learnt = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
            checkpoint["state_dict"] = {name: value for name, value in checkpoint["state_dict"].items() if name in learnt}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Count the micro-batches of the steps taken as this run cuts them: it may run on other devices than the one before."""
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        taken = checkpoint["global_step"] * self.trainer.accumulate_grad_batches
        for counts in (progress["total"], progress["current"]):
            further = taken - counts["ready"]
            for name in counts:
                counts[name] += further

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        recipe = self.recipe
        optimizer = optimizer_of(recipe, [parameter for parameter in self.model.parameters() if parameter.requires_grad])
        warmup = recipe.warmup_steps(self.schedule_steps)

        def factor(step: int) -> float:
            return learning_rate_factor(step, steps=self.schedule_steps, warmup=warmup, schedule=recipe.schedule)

        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}}
