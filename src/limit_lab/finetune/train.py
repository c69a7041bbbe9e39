"""One fine-tuning from documents to trained weights: checkpoints, exact resume, metrics.jsonl and one line per interval."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.callbacks import Callback

from limit_lab.config import Finetune, Hardware
from limit_lab.durations import documents
from limit_lab.errors import ConfigError, DataError
from limit_lab.finetune import adapters, strategies
from limit_lab.finetune.batches import Batches, MixtureData
from limit_lab.finetune.callbacks import Agree, GatherHead, HandOver, Mark
from limit_lab.finetune.checkpoint import CHECKPOINT, InPlace, completed_steps, for_any_ranks, remove, settle
from limit_lab.finetune.journal import Journal, Progress, read_metrics
from limit_lab.finetune.meter import Clock
from limit_lab.finetune.module import Finetuning
from limit_lab.finetune.observe import HeldOut, Observer, Samples, Watch, evaluations
from limit_lab.interruption import ToBeContinued, asked, finishing
from limit_lab.model.causal import CausalLM
from limit_lab.prompt import Document
from limit_lab.recipe import Schedule, in_steps, misfits


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
    watch: Watch | None = None,
    hand_over: Callable[[CausalLM], None] | None = None,
) -> dict[str, Any]:
    """Train ``model`` in place; continue from ``folder/checkpoint.ckpt``, which the caller removes after the export.

    ``keep`` leaves a checkpoint of the end, from which a later export of the same training continues. Adapters stay
    beside the weights. ``progress`` gets the steps taken and to take; ``watch`` is looked at on the way and changes no number.
    ``hand_over`` gets the trained model, while its pieces are still where ZeRO put them. Under any other strategy than single
    this is one rank, which torchrun started, and every rank calls it.
    Returns steps, epochs, seconds of this process, first and last loss and tokens seen.
    Raises: DataError for an empty mixture; ConfigError when the recipe does not suit it; LimitLabError when a loss, gradient
    norm or weight is not finite; ToBeContinued with a new checkpoint when a signal asked the process to end.
    """
    if not mixed:
        raise DataError("the mixture holds no document to train on: give mixture.samples at least one source.")
    planned = lengths(recipe, mixed)
    steps = planned.stop
    micro_batch = documents(hardware.micro_batch, name="hardware.micro_batch")
    # Lightning takes the end of the batches for the end of the training, also after a resume
    rank, ranks = strategies.rank(), hardware.ranks
    batches = Batches.of(mixed, recipe, steps=planned.whole, micro_batch=micro_batch, seed=seed, rank=rank, ranks=ranks)
    model.run(attention=hardware.attention, recompute=hardware.recompute)
    done = begin(folder, hardware, steps) if hardware.strategy == "single" else completed_steps(folder / CHECKPOINT)
    if recipe.lora.rank:
        frozen = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
        adapters.add(model, recipe.lora, seed=seed, frozen=frozen)
    module = Finetuning(
        model.train(),
        recipe,
        schedule_steps=planned.steps,
        parts=strategies.parts(hardware, batches.accumulation),
        logits_at_once=hardware.logits_at_once,
        autocast=recipe.precision == "bf16" and not hardware.zero_stage,
    )
    start = time.monotonic()
    watch, clock = watch or Watch(), Clock()
    journal = Journal(folder, recipe, hardware, batches, clock, steps=steps, shape=watch.shape, say=say, progress=progress)
    looks = [
        HeldOut(watch.held_out, evaluations(steps, batches.steps_per_epoch), recipe, hardware),
        Samples(watch.prompts, recipe.samples_every_steps),
    ]
    callbacks: list[Callback] = [Agree(mixed)] if ranks > 1 else []
    callbacks += [GatherHead()] if hardware.zero_stage == 3 else []
    callbacks += [journal, Observer(folder, recipe, looks, clock, say=say)]
    callbacks += [Mark(folder, steps)] if keep else []
    callbacks += [HandOver(hand_over, steps)] if hand_over is not None and hardware.zero_stage else []
    trainer = _trainer(recipe, hardware, folder, batches.accumulation, steps, callbacks)
    with warnings.catch_warnings(), finishing():
        # Lightning advises worker processes and a validation loop; the batches are built in microseconds and scored later
        warnings.filterwarnings("ignore", module="lightning")
        try:
            trainer.fit(module, MixtureData(batches), ckpt_path=folder / CHECKPOINT if done else None, weights_only=True)
        except SystemExit as stop:  # what Lightning makes of Ctrl-C (exit code 1), and of SIGTERM before its first batch
            if asked() is None:
                raise KeyboardInterrupt from stop
    _leave(journal, steps)
    model.eval()
    if hand_over is not None and not hardware.zero_stage:
        hand_over(model)
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


def begin(folder: Path, hardware: Hardware, steps: int) -> int:
    """Steps that the checkpoint in ``folder`` holds; one beyond ``steps``, of a later export, is removed.

    For one process, before its ranks start. Raises: DataError when ``hardware`` cannot read it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = completed_steps(settle(folder, hardware))
    if done > steps:
        remove(folder)
        return 0
    return done


def _leave(journal: Journal, steps: int) -> None:
    """Raises: ToBeContinued when a signal asked the process, or one of its fellow ranks, to end."""
    if asked() is None and journal.left is None:
        return
    where = "before its next step" if journal.left is None else f"after step {journal.left:,} of {steps:,}, which is kept"
    raise ToBeContinued(f"fine-tuning stopped on {asked() or 'a signal'} {where}: the same command continues it.")


def _plugins(hardware: Hardware) -> list[Any]:
    # named, for under Slurm Lightning would requeue the job by itself and take the ranks from srun
    environment = LightningEnvironment() if hardware.strategy == "single" else TorchElasticEnvironment()
    # DeepSpeed writes its checkpoints itself
    return [environment] if hardware.zero_stage else [environment, InPlace()]


def _trainer(
    recipe: Finetune, hardware: Hardware, folder: Path, accumulation: int, steps: int, callbacks: list[Callback]
) -> pl.Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    strategy = strategies.strategy_of(hardware, recipe, any_ranks=for_any_ranks(folder / CHECKPOINT))
    return pl.Trainer(
        accelerator=hardware.accelerator,
        devices=hardware.devices,
        num_nodes=hardware.nodes,
        strategy=strategy,
        max_steps=steps,
        max_epochs=1,
        accumulate_grad_batches=accumulation,
        gradient_clip_val=recipe.clip_norm,
        callbacks=callbacks,
        plugins=_plugins(hardware),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=str(folder),
    )
