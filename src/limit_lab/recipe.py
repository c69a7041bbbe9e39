"""The recipe of a fine-tuning as typed configuration, what fingerprints see of it, and the steps that it comes to."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from omegaconf import MISSING

from limit_lab.durations import Batch, Duration
from limit_lab.errors import ConfigError, one_of
from limit_lab.fingerprints import ADDED, stated

#: Fields that change no result.
DISPLAY = ("checkpoint_every_steps", "log_every_steps", "held_out", "samples_every_steps", "note")

#: A training of token-sized batches takes at least so many steps: fewer say more about the schedule than about the data.
FEWEST = 20


@dataclass(kw_only=True)
class Loss:
    """How the losses of a step's target tokens are weighted against one another."""

    weight: str = "token"  # token: all alike | document: every document alike | paper_microbatch: means of micro-batches
    microbatch: int = 4  # documents whose targets share a mean under paper_microbatch
    devices: int = field(default=1, metadata=ADDED)  # over which a step is spread before it is cut into those

    def __post_init__(self) -> None:
        one_of("finetune.loss.weight", self.weight, ("token", "document", "paper_microbatch"))
        if self.microbatch < 1:
            raise ConfigError(f"finetune.loss.microbatch={self.microbatch} holds no document: use 1 or more.")
        if self.devices < 1:
            raise ConfigError(f"finetune.loss.devices={self.devices} leaves nothing to train on: use 1 or more.")


@dataclass(kw_only=True)
class Lora:
    """Low-rank adapters (Hu et al. 2021) in place of learning all weights; added to the weights in the export."""

    rank: int = 0  # 0: none
    alpha: int = 16  # the adapters' output is scaled by alpha / rank
    targets: list[str] = field(default_factory=list)  # names of linear layers; none: every one inside the blocks

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise ConfigError(f"finetune.lora.rank={self.rank} is no rank: use 1 or more, or 0 to learn all weights.")
        if self.alpha <= 0:
            raise ConfigError(f"finetune.lora.alpha={self.alpha} must be above 0.")


@dataclass(kw_only=True)
class Finetune:
    """The recipe. ``duration`` is how long is trained; with exports, training ends at the last of them.

    ``schedule_over`` is the span of the learning-rate schedule. In a study each export is a cell, whose ``export_at`` ends
    with its own point and begins with those of the cells that its training has passed.
    """

    name: str = MISSING
    duration: str = "3ep"
    schedule_over: str | None = field(default=None, metadata=ADDED)  # null: the duration
    export_at: list[str] = field(default_factory=list, metadata=ADDED)  # none: at the end
    batch: str = "48doc"  # documents or tokens (9ktok)
    last_batch: str = field(default="train", metadata=ADDED)  # of an epoch, when not full: train | drop
    max_seq_tokens: int = 2048
    rows: str = field(default="packed", metadata=ADDED)  # packed | padded (one document a row, to max_seq_tokens)
    on_too_long: str = "error"  # error | drop | truncate_head | truncate_tail (which part of the response is lost)
    loss: Loss = field(default_factory=Loss, metadata=ADDED)
    optimizer: str = "adamw"  # adamw | lionw
    learning_rate: float = 5e-6
    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])
    eps: float = 1e-8  # adamw only
    weight_decay: float = 0.0
    schedule: str = "linear"  # linear | cosine | linear_after_warmup (as in LIMIT), all down to zero
    warmup: str = "50step"  # steps, or a share of the schedule such as 0.05
    clip_norm: float = 1.0
    freeze_embeddings: bool = False
    lora: Lora = field(default_factory=Lora, metadata=ADDED)
    precision: str = "bf16"  # bf16 (autocast over fp32 weights) | fp32
    checkpoint_every_steps: int = 100
    log_every_steps: int = 10
    # documents of each source that the mixture leaves, whose loss is told after each epoch; 0: none
    held_out: int = field(default=32, metadata=ADDED)
    samples_every_steps: int = field(
        default=0, metadata=ADDED
    )  # three of the study's prompts are answered on the way; 0: never
    note: str = field(default="", metadata=ADDED)  # what a reader of plan and report should know of this recipe

    def __post_init__(self) -> None:
        self._check_lengths()
        self._check_words()
        for name, value in (("learning_rate", self.learning_rate), ("clip_norm", self.clip_norm)):
            if not 0 < value < math.inf:
                raise ConfigError(f"finetune.{name}={value} must be above 0 and finite.")
        for name, every in (("checkpoint", self.checkpoint_every_steps), ("log", self.log_every_steps)):
            if every < 1:
                raise ConfigError(f"finetune.{name}_every_steps={every} is no interval: use 1 or more.")
        for name, number in (("held_out", self.held_out), ("samples_every_steps", self.samples_every_steps)):
            if number < 0:
                raise ConfigError(f"finetune.{name}={number} is below 0: use 0 for none, or more.")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"finetune.betas={self.betas} must be two numbers from 0 to below 1, such as [0.9, 0.99].")
        for name, value in (("weight_decay", self.weight_decay), ("eps", self.eps)):
            if not 0 <= value < math.inf:
                raise ConfigError(f"finetune.{name}={value} must be 0 or above, and finite.")

    def _check_lengths(self) -> None:
        duration = Duration.parse(self.duration, name="finetune.duration")
        if self.schedule_over is not None:
            span = Duration.parse(self.schedule_over, name="finetune.schedule_over")
            if span.unit == duration.unit and span.amount < duration.amount and not self.export_at:
                raise ConfigError(_schedule_ends(self, self.duration))
        points = [Duration.parse(text, name="finetune.export_at") for text in self.export_at]
        ascending = all(one.unit == two.unit and one.amount < two.amount for one, two in pairwise(points))
        if not ascending:
            raise ConfigError(f"finetune.export_at={self.export_at} does not ascend in one unit: write it as [2ep, 4ep, 6ep].")
        if points and points[-1].unit == duration.unit and points[-1].amount > duration.amount:
            raise ConfigError(_export_beyond(self))
        batch = Batch.parse(self.batch, name="finetune.batch")
        if self.max_seq_tokens < 8:
            raise ConfigError(f"finetune.max_seq_tokens={self.max_seq_tokens} leaves no room for a prompt: use 8 or more.")
        if batch.unit == "tok" and batch.amount < self.max_seq_tokens:
            raise ConfigError(
                f"finetune.batch={self.batch} holds less than one document may (finetune.max_seq_tokens="
                f"{self.max_seq_tokens}): use {self.max_seq_tokens}tok or more."
            )
        if not re.fullmatch(r"\d+step|0?\.\d+|0", self.warmup):
            raise ConfigError(f"finetune.warmup={self.warmup!r} is neither steps (50step) nor a share (0.05).")

    def _check_words(self) -> None:
        if self.on_too_long == "truncate":
            raise ConfigError(
                "finetune.on_too_long='truncate' does not say which part is lost: write truncate_tail (the end of the "
                "response, what truncate did) or truncate_head (its beginning, as in LIMIT)."
            )
        one_of("finetune.on_too_long", self.on_too_long, ("error", "drop", "truncate_head", "truncate_tail"))
        one_of("finetune.last_batch", self.last_batch, ("train", "drop"))
        one_of("finetune.rows", self.rows, ("packed", "padded"))
        one_of("finetune.optimizer", self.optimizer, ("adamw", "lionw"))
        one_of("finetune.schedule", self.schedule, ("linear", "cosine", "linear_after_warmup"))
        one_of("finetune.precision", self.precision, ("bf16", "fp32"))

    @property
    def export(self) -> str | None:
        """Where this cell's training ends before its duration, such as ``4ep``."""
        return self.export_at[-1] if self.export_at else None

    @property
    def in_tokens(self) -> bool:
        """Whether its steps depend on the lengths of the documents."""
        spans = (self.duration, self.schedule_over, *self.export_at, self.batch)
        return any(text is not None and text.endswith("tok") for text in spans)

    def warmup_steps(self, steps: int) -> int:
        """Warm-up in optimizer steps for a schedule of ``steps``."""
        if self.warmup.endswith("step"):
            return int(self.warmup.removesuffix("step"))
        return round(float(self.warmup) * steps)


def identity(recipe: Finetune) -> dict[str, Any]:
    """What fingerprints see of a recipe: all that changes a result, written as the first records were."""
    found = {key: value for key, value in stated(recipe).items() if key not in ("name", "export_at", *DISPLAY)}
    found["stop"] = recipe.export  # records know the point of the export under this name, null at the end
    if recipe.on_too_long == "truncate_tail":
        found["on_too_long"] = "truncate"  # and its only way to cut under this one
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A recipe in optimizer steps, for a mixture."""

    epoch: int
    steps: int  # of the learning-rate schedule
    whole: int  # of the duration
    begun: int  # up to the export before this cell's, 0 without one
    stop: int  # up to this cell's export
    warmup: int


def in_steps(recipe: Finetune, documents: int, tokens: float) -> Schedule:
    """The recipe for a mixture of so many documents and tokens, of which 0 says that they are unknown.

    Raises: ConfigError when the recipe counts in tokens and they are unknown.
    """
    batch = Batch.parse(recipe.batch, name="finetune.batch")
    epoch, each = batch.epoch(documents, tokens, drop=recipe.last_batch == "drop"), batch.tokens(tokens / documents)

    def count(text: str) -> int:
        return Duration.parse(text, name="finetune").steps(epoch, each)

    steps, whole = count(recipe.schedule_over or recipe.duration), count(recipe.duration)
    points = [count(text) for text in recipe.export_at] or [whole]
    begun = points[-2] if len(points) > 1 else 0
    warmup = recipe.warmup_steps(steps)
    return Schedule(epoch=epoch, steps=steps, whole=whole, begun=begun, stop=points[-1], warmup=warmup)


def misfits(recipe: Finetune, found: Schedule) -> Iterator[str]:
    """What is wrong with a recipe for the mixture that it came to ``found`` with."""
    if not found.epoch:
        yield f"finetune.last_batch=drop leaves nothing of a mixture below finetune.batch={recipe.batch}: use a smaller batch."
        return
    if found.stop > found.whole:
        yield _export_beyond(recipe)
    elif found.stop > found.steps:
        yield _schedule_ends(recipe, recipe.export or recipe.duration)
    ends = f"finetune.export_at={recipe.export}" if recipe.export else f"finetune.duration={recipe.duration}"
    if found.stop < found.warmup:
        yield (
            f"{ends} is {found.stop:,} steps and finetune.warmup={recipe.warmup} is {found.warmup:,}: train longer, or use a "
            "share such as finetune.warmup=0.05."
        )
    if recipe.batch.endswith("tok") and found.stop < FEWEST:
        yield (
            f"{ends} is {found.stop:,} steps of finetune.batch={recipe.batch}, fewer than {FEWEST}: use a smaller batch or a "
            "longer duration."
        )


def _export_beyond(recipe: Finetune) -> str:
    return f"finetune.export_at={recipe.export} lies beyond finetune.duration={recipe.duration}: export earlier."


def _schedule_ends(recipe: Finetune, text: str) -> str:
    return (
        f"finetune.schedule_over={recipe.schedule_over} ends before the training ({text}), whose last steps would teach "
        "nothing: use a longer schedule."
    )
