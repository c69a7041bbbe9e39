"""What a fine-tuning is watched by: held-out loss by source, answers to a few prompts. No number of the training depends on it.

Everything runs in evaluation mode without gradients, under the training's autocast, and draws nothing at random.
"""

from __future__ import annotations

import textwrap
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from limit_lab.config import Finetune, Hardware
from limit_lab.durations import documents
from limit_lab.finetune import rows
from limit_lab.finetune.batches import MicroBatch, pack
from limit_lab.finetune.meter import Clock
from limit_lab.finetune.module import batch_loss
from limit_lab.model.answering import Decoding, answer
from limit_lab.model.causal import CausalLM
from limit_lab.prompt import Document, Tokenizer
from limit_lab.shapes import Shape

#: Evaluations of the held-out loss in one run.
EVALUATIONS = 20
#: Tokens of a sample answer, and signs of it that are printed.
ANSWER_TOKENS, PRINTED = 64, 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """Token ids of the prompts that are answered on the way, and the tokenizer that reads the answers."""

    ids: Sequence[Sequence[int]]
    tokenizer: Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What a run is watched with: the model's sizes for its speed, documents held out by source, sample prompts."""

    shape: Shape | None = None
    held_out: Mapping[str, Sequence[Document]] = field(default_factory=dict)
    prompts: Prompts | None = None


class Look(ABC):
    """One way to look at the model; ``file`` holds its rows, each with the step it was taken at."""

    file: str

    @abstractmethod
    def due(self, step: int) -> bool:
        """Whether to look after ``step`` updates."""

    @abstractmethod
    def take(self, model: CausalLM, step: int) -> list[dict[str, Any]]:
        """The rows of one look."""

    @abstractmethod
    def said(self, found: Sequence[Mapping[str, Any]], step: int) -> str:
        """What is printed of them."""


class HeldOut(Look):
    """Mean loss per target token of documents that the mixture did not draw, by source."""

    file = "held_out.jsonl"

    def __init__(
        self, held_out: Mapping[str, Sequence[Document]], steps: Sequence[int], recipe: Finetune, hardware: Hardware
    ) -> None:
        self.held_out = {source: own for source, own in held_out.items() if own}
        self.steps = set(steps)
        self.capacity = recipe.max_seq_tokens
        self.micro_batch = documents(hardware.micro_batch, name="hardware.micro_batch")
        self.at_once = hardware.logits_at_once

    def due(self, step: int) -> bool:
        return bool(self.held_out) and step in self.steps

    def take(self, model: CausalLM, step: int) -> list[dict[str, Any]]:
        found = []
        for source, own in self.held_out.items():
            tokens = sum(one.targets for one in own)
            total = sum(float(batch_loss(model, batch, at_once=self.at_once)) for batch in self._batches(own, model.device))
            found.append({"step": step, "source": source, "loss": total / tokens, "tokens": tokens, "documents": len(own)})
        return found

    def _batches(self, own: Sequence[Document], device: torch.device) -> Iterator[MicroBatch]:
        for start in range(0, len(own), self.micro_batch):
            part = own[start : start + self.micro_batch]
            batch = pack(part, [1.0] * len(part), self.capacity, sum(one.targets for one in part))
            yield move_data_to_device(batch, device)

    def said(self, found: Sequence[Mapping[str, Any]], step: int) -> str:
        losses = [f"{row['source']} {row['loss']:.4f}" for row in found]
        return f"  held out at step {step:,}: loss {', '.join(losses)}"


class Samples(Look):
    """Greedy answers to the same few prompts, every so many steps."""

    file = "samples.jsonl"

    def __init__(self, prompts: Prompts | None, every_steps: int) -> None:
        self.prompts = prompts
        self.every_steps = every_steps

    def due(self, step: int) -> bool:
        return self.prompts is not None and self.every_steps > 0 and step > 0 and step % self.every_steps == 0

    def take(self, model: CausalLM, step: int) -> list[dict[str, Any]]:
        if self.prompts is None:
            return []
        ids, tokenizer = self.prompts.ids, self.prompts.tokenizer
        decoding = Decoding(max_new_tokens=ANSWER_TOKENS)
        answers = answer(model, ids, tokenizer.eos_token_id, decoding, batch=len(ids))
        return [
            {
                "step": step,
                "index": index,
                "prompt": tokenizer.decode(list(asked), skip_special_tokens=True),
                "answer": tokenizer.decode(own, skip_special_tokens=True).strip(),
                "tokens": len(own),
                "ended": own[-1] == tokenizer.eos_token_id,
            }
            for index, (asked, own) in enumerate(zip(ids, answers, strict=True))
        ]

    def said(self, found: Sequence[Mapping[str, Any]], step: int) -> str:
        short = {row["index"]: textwrap.shorten(row["answer"], PRINTED, placeholder=" …") for row in found}
        return "\n".join(f"  sample {index} at step {step:,}: {text}" for index, text in short.items())


class Observer(Callback):
    """Takes each look when it is due, writes its rows and prints them; a resumed run takes a missed one first."""

    def __init__(self, folder: Path, recipe: Finetune, looks: Sequence[Look], clock: Clock, *, say: bool) -> None:
        self.folder = folder
        self.recipe = recipe
        self.looks = looks
        self.clock = clock
        self.say = say

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            for look in self.looks:
                rows.cut(self.folder / look.file, trainer.global_step)
        self._look(pl_module, trainer.global_step)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: MicroBatch,
        batch_idx: int,
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self._look(pl_module, trainer.global_step)

    def _look(self, module: pl.LightningModule, step: int) -> None:
        with self.clock.paused():
            for look in self.looks:
                path = self.folder / look.file
                missing = look.due(step) and not any(row["step"] == step for row in rows.read(path))
                if not module.trainer.strategy.broadcast(missing):  # the ranks look together, as the first one decides
                    continue
                found = self._taken(look, module, step)
                if not module.trainer.is_global_zero:
                    continue
                rows.append(path, found)
                if self.say:
                    print(look.said(found, step), flush=True)

    def _taken(self, look: Look, module: pl.LightningModule, step: int) -> list[dict[str, Any]]:
        model = module.model
        assert isinstance(model, CausalLM)
        training = model.training
        model.eval()
        try:
            with torch.no_grad(), torch.autocast(module.device.type, torch.bfloat16, enabled=bool(module.autocast)):
                return look.take(model, step)
        finally:
            model.train(training)


def evaluations(steps: int, steps_per_epoch: int) -> list[int]:
    """When the held-out loss is taken: before the first step, after each epoch and at the end; evenly fewer beyond 20."""
    ends = [*range(steps_per_epoch, steps, steps_per_epoch), steps]
    most = EVALUATIONS - 1
    if len(ends) > most:
        ends = [ends[(place + 1) * len(ends) // most - 1] for place in range(most)]
    return [0, *ends]
