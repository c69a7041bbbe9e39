"""What happens at the edges of a fine-tuning: ranks compare notes, pieces are gathered, the end is handed over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from limit_lab.config import NUMERICS
from limit_lab.errors import DataError
from limit_lab.finetune import pieces
from limit_lab.finetune.batches import MicroBatch
from limit_lab.finetune.checkpoint import save
from limit_lab.fingerprints import fingerprint
from limit_lab.model.causal import CausalLM
from limit_lab.prompt import Document


class HandOver(Callback):
    """Hands the trained model over before DeepSpeed lets go of its pieces."""

    def __init__(self, hand_over: Callable[[CausalLM], None], steps: int) -> None:
        self.hand_over = hand_over
        self.steps = steps

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        model = pl_module.model
        assert isinstance(model, CausalLM)
        if trainer.global_step == self.steps:  # it was not asked to end before
            self.hand_over(model.eval())


class GatherHead(Callback):
    """Has ZeRO-3 gather the vocabulary's matrix for the head, which does not own it."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        model = pl_module.model
        assert isinstance(model, CausalLM)
        pieces.gather_head(model)


class Agree(Callback):
    """Has the ranks compare what they are about to train. Raises: DataError naming those that differ from the first."""

    def __init__(self, mixed: Sequence[Document]) -> None:
        self.mixed = mixed

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        versions = [torch.__version__, lightning.__version__, NUMERICS]
        own = fingerprint([versions, trainer.global_step, [(one.source, one.row, one.ids) for one in self.mixed]])
        found: list[str] = [""] * trainer.world_size
        torch.distributed.all_gather_object(found, own)
        others = [str(rank) for rank, other in enumerate(found) if other != found[0]]
        if others:
            raise DataError(
                f"rank {', '.join(others)} would train on other rows, from another step or with other versions than rank 0: "
                "give every machine the same code, environment, data and runs folder."
            )


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
