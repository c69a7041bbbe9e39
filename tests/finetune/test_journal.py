"""The record of a run: exact counts, the printed line, and the end of one that diverges."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from limit_lab.errors import LimitLabError
from limit_lab.finetune import checkpoint, module
from limit_lab.finetune.batches import Batches
from limit_lab.finetune.journal import read_metrics, stop_now
from limit_lab.finetune.meter import Amount
from limit_lab.finetune.train import train
from limit_lab.interruption import LEAVE
from limit_lab.operations import counted, mosaic
from limit_lab.recipe import Lora
from tests.finetune.runs import CPU, SIZES, model, recipe, some_documents, watch

COUNTED = ["step", "loss", "grad_norm", "learning_rate", "targets", "tokens", "raw_tokens", "documents", "seconds"]


def test_every_update_records_what_it_read(tmp_path: Path) -> None:
    train(model(), some_documents(), recipe(), CPU, tmp_path, seed=1, say=False)
    batches = Batches.of(some_documents(), recipe(), steps=6, micro_batch=3, seed=1)
    found = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in found] == [1, 2, 3, 4, 5, 6]
    for step, row in enumerate(found):
        own = batches.of_step(step)
        parts = [batches[step * batches.accumulation + part] for part in range(batches.accumulation)]
        assert list(row) == COUNTED
        assert row["documents"] == len(own)
        assert row["tokens"] == sum(len(one.ids) for one in own)
        assert row["raw_tokens"] == sum(part.ids.numel() for part in parts) >= row["tokens"]
        assert row["targets"] == sum(one.targets for one in own)
        assert row["seconds"] > 0
    assert sum(row["raw_tokens"] for row in found) > sum(row["tokens"] for row in found)


def test_the_line_tells_speed_memory_and_time_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(model(), some_documents(), recipe(), CPU, tmp_path, seed=1, watch=watch())
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  step")]
    form = r"  step +(\d)/6  loss \d\.\d{4}  grad \d\.\d\d  lr \d\.\de-\d\d  ([\d,]+) tok/s \(([\d,]+) raw\)"
    form += r"  mfu \d+% \(mosaic \d+%\)  \d+\.\d\d GiB  \d:\d\d:\d\d left"
    told = [re.fullmatch(form, line) for line in lines]
    assert [int(one[1]) for one in told if one] == [2, 4, 6]
    assert all(int(one[2].replace(",", "")) <= int(one[3].replace(",", "")) for one in told if one)
    assert lines[-1].endswith("0:00:00 left")


@pytest.mark.parametrize("rank", [0, 2])
def test_operations_are_counted_by_document_and_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    if rank:
        pytest.importorskip("peft", reason="peft is not installed: pip install -e '.[lora]'")
    seen: list[float] = []
    monkeypatch.setattr(Amount, "said", lambda amount, tflops: str(seen.extend([amount.flops, amount.raw_flops])))
    how = recipe(log_every_steps=1, lora=Lora(rank=rank))
    train(model(), some_documents(), how, CPU, tmp_path, seed=1, watch=watch())
    batches = Batches.of(some_documents(), how, steps=6, micro_batch=3, seed=1)
    expected: list[float] = []
    for step in range(6):
        lengths, targets = zip(*((len(one.ids), one.targets) for one in batches.of_step(step)), strict=True)
        parts = [batches[step * batches.accumulation + part].ids for part in range(batches.accumulation)]
        own = counted(SIZES, sum(lengths), sum(targets), sum(length**2 for length in lengths), adapters=rank > 0)
        expected += [own, sum(mosaic(SIZES, ids.numel(), ids.shape[1]) for ids in parts)]
    assert seen == pytest.approx(expected)


def test_no_share_of_an_unknown_peak_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(model(), some_documents(), recipe(), CPU, tmp_path, seed=1)
    assert "mfu" not in capsys.readouterr().out
    assert SIZES.parameters == sum(parameter.numel() for parameter in model().parameters())


def poisoned(monkeypatch: pytest.MonkeyPatch, at_call: int, spoil: Any) -> None:
    """Make the loss of one micro-batch, counted from 1, what ``spoil`` makes of it."""
    real, calls = module.batch_loss, [0]

    def loss(*arguments: Any, **options: Any) -> Tensor:
        calls[0] += 1
        found = real(*arguments, **options)
        return spoil(found) if calls[0] == at_call else found

    monkeypatch.setattr(module, "batch_loss", loss)


def with_infinite_gradient(loss: Tensor) -> Tensor:
    loss.register_hook(lambda gradient: gradient * math.inf)
    return loss


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda loss: loss * math.nan, "the loss is nan at step 4, on"),
        (lambda loss: loss + math.inf, "the loss is inf at step 4, on"),
        (with_infinite_gradient, "the gradient norm is nan at step 4, on"),
    ],
)
def test_a_step_that_is_not_finite_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Any, what: str) -> None:
    how = recipe(checkpoint_every_steps=2)
    whole, again = model(), model()
    train(whole, some_documents(), how, CPU, tmp_path / "whole", seed=1, say=False)
    with monkeypatch.context() as patch:
        poisoned(patch, 11, spoil)  # the second of step 4's three micro-batches
        broken = model()
        with pytest.raises(LimitLabError, match=re.escape(what)) as caught:
            train(broken, some_documents(), how, CPU, tmp_path / "cut", seed=1, say=False)
    named = Batches.of(some_documents(), how, steps=6, micro_batch=3, seed=1).of_step(3)
    rows = ", ".join(f"{one.source} row {one.row}" for one in named[:5])
    assert str(caught.value).endswith(
        f"{rows} and 3 more: lower finetune.learning_rate, or leave out what is wrong with these rows; "
        "the checkpoint of step 2 is kept."
    )
    assert all(bool(value.isfinite().all()) for value in broken.state_dict().values())
    assert [row["step"] for row in read_metrics(tmp_path / "cut/metrics.jsonl")] == [1, 2, 3]
    assert checkpoint.completed_steps(tmp_path / "cut/checkpoint.ckpt") == 2
    train(again, some_documents(), how, CPU, tmp_path / "cut", seed=1, say=False)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in whole.state_dict().items())


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    how = recipe(learning_rate=1e25, checkpoint_every_steps=1)
    with pytest.raises(LimitLabError, match=r"the norm of the weights is inf at step 1, .* no checkpoint was due before\.$"):
        train(model(), some_documents(), how, CPU, tmp_path, seed=1, say=False)
    assert not (tmp_path / "checkpoint.ckpt").exists()


def test_a_rank_leaves_when_its_launcher_says_so_even_the_only_one(tmp_path: Path) -> None:
    trainer = pl.Trainer(accelerator="cpu", devices=1, strategy=DDPStrategy(), logger=False, default_root_dir=tmp_path)
    assert not stop_now(trainer, tmp_path)
    (tmp_path / LEAVE).touch()
    assert stop_now(trainer, tmp_path)
