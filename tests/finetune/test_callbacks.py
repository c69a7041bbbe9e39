"""Ranks that would not train the same thing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import lightning.pytorch as pl
import pytest
import torch

from limit_lab.errors import DataError
from limit_lab.finetune.callbacks import Agree
from tests.finetune.test_train import some_documents


def compare(monkeypatch: pytest.MonkeyPatch, mine: int, theirs: int) -> None:
    """Rank 0 with ``mine`` and rank 2 with ``theirs`` documents; rank 1 has what rank 0 has."""
    sent: list[Any] = []

    def gather(found: list[Any], own: Any) -> None:
        sent.append(own)
        found[:] = [sent[0], sent[0], sent[-1]]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    trainer = cast(pl.Trainer, SimpleNamespace(global_step=0, world_size=3))
    for count in (mine, theirs):
        Agree(some_documents(count)).on_train_start(trainer, cast(pl.LightningModule, None))


def test_ranks_with_the_same_rows_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    compare(monkeypatch, 5, 5)


def test_a_rank_with_other_rows_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="rank 2 would train on other rows"):
        compare(monkeypatch, 5, 4)
