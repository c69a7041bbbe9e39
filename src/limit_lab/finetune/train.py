"""One fine-tuning from documents to trained weights: checkpoints, exact resume, metrics.jsonl and one line per interval."""

from __future__ import annotations

import logging
import time
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from limit_lab.config import Finetune, Hardware
from limit_lab.durations import Duration, documents
from limit_lab.errors import DataError
from limit_lab.finetune.batches import Batches, MixtureData
from limit_lab.finetune.checkpoint import InPlace, completed_steps
from limit_lab.finetune.journal import Journal, Progress, read_metrics
from limit_lab.finetune.meter import Clock
from limit_lab.finetune.module import Finetuning
from limit_lab.finetune.observe import HeldOut, Observer, Samples, Watch, evaluations
from limit_lab.model.causal import CausalLM
from limit_lab.prompt import Document


def lengths(recipe: Finetune, mixed: list[Document]) -> tuple[int, int]:
    """Steps of the schedule and steps to run."""
    batch = documents(recipe.batch, name="finetune.batch")
    mean = sum(len(one.ids) for one in mixed) / len(mixed)
    schedule = Duration.parse(recipe.duration, name="finetune.duration").steps(len(mixed), batch, mean)
    if recipe.stop is None:
        return schedule, schedule
    stop = Duration.parse(recipe.stop, name="finetune.stop").steps(len(mixed), batch, mean)
    return schedule, min(schedule, stop)


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
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Train ``model`` in place; continue from ``folder/checkpoint.ckpt``, which the caller removes after the export.

    ``progress`` gets the steps taken and to take; ``watch`` is looked at on the way and changes no number. Returns steps,
    epochs, seconds of this process, first and last loss and tokens seen.
    Raises: DataError for an empty mixture; LimitLabError when a loss, gradient norm or weight is not finite.
    """
    if not mixed:
        raise DataError("the mixture holds no document to train on: give mixture.samples at least one source.")
    schedule, steps = lengths(recipe, mixed)
    micro_batch = documents(hardware.micro_batch, name="hardware.micro_batch")
    batches = Batches.of(mixed, recipe, steps=steps, micro_batch=micro_batch, seed=seed)
    model.run(attention=hardware.attention, recompute=hardware.recompute)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.ckpt"
    done = completed_steps(checkpoint)
    module = Finetuning(
        model.train(),
        recipe,
        schedule_steps=schedule,
        accumulation=batches.accumulation,
        logits_at_once=hardware.logits_at_once,
    )
    start = time.monotonic()
    watch, clock = watch or Watch(), Clock()
    journal = Journal(folder, recipe, hardware, batches, clock, steps=steps, shape=watch.shape, say=say, progress=progress)
    looks = [
        HeldOut(watch.held_out, evaluations(steps, batches.steps_per_epoch), recipe, hardware),
        Samples(watch.prompts, recipe.samples_every_steps),
    ]
    callbacks = [journal, Observer(folder, recipe, looks, clock, say=say)]
    trainer = _trainer(recipe, hardware, folder, batches.accumulation, steps, callbacks)
    with warnings.catch_warnings():
        # Lightning advises worker processes and a validation loop; the batches are built in microseconds and scored later
        warnings.filterwarnings("ignore", module="lightning")
        try:
            trainer.fit(module, MixtureData(batches), ckpt_path=checkpoint if done else None, weights_only=True)
        except SystemExit as stop:  # what Lightning makes of Ctrl-C (exit code 1) and of SIGTERM (exit code 0)
            raise KeyboardInterrupt from stop
    model.eval()
    losses = [row["loss"] for row in read_metrics(folder / "metrics.jsonl")]
    return {
        "steps": steps,
        "schedule_steps": schedule,
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
