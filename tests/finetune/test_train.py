"""Loss, batches, golden trace and resume of the trainer."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from limit_lab.config import Finetune, Hardware
from limit_lab.errors import DataError
from limit_lab.finetune import checkpoint
from limit_lab.finetune.journal import read_metrics
from limit_lab.finetune.module import learning_rate_factor
from limit_lab.finetune.train import train
from limit_lab.model.mpt import MPT, MPTConfig
from limit_lab.prompt import Document

SHAPE = MPTConfig(d_model=16, n_layers=2, n_heads=2, vocab_size=40, max_seq_len=64)
CPU = Hardware(name="cpu", micro_batch="8doc")


def model() -> MPT:
    made = MPT(SHAPE)
    made.initialise(3)
    return made


def some_documents(n: int = 21) -> list[Document]:
    rng = random.Random(7)
    made = []
    for row in range(n):
        ids = [rng.randrange(40) for _ in range(rng.randint(4, 20))]
        made.append(Document(ids=ids, prompt_tokens=rng.randint(1, len(ids) - 2), source="x", row=row))
    return made


def recipe(**changes: object) -> Finetune:
    base = Finetune(
        name="test", duration="2ep", batch="8doc", max_seq_tokens=32, learning_rate=1e-2, warmup="2step", precision="fp32"
    )
    return replace(base, **changes)


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(folder / "metrics.jsonl")]


@pytest.mark.parametrize("micro", ["8doc", "3doc", "1doc"])
def test_losses_do_not_depend_on_the_micro_batch(tmp_path: Path, micro: str) -> None:
    train(model(), some_documents(), recipe(), CPU, tmp_path / "whole", seed=1, say=False)
    train(model(), some_documents(), recipe(), replace(CPU, micro_batch=micro), tmp_path / "parts", seed=1, say=False)
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), abs=2e-5)


def test_an_interrupted_run_continues_to_bit_equal_losses_and_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    often = recipe(checkpoint_every_steps=2)
    whole = model()
    train(whole, some_documents(), often, CPU, tmp_path / "whole", seed=1, say=False)
    real = checkpoint.save

    def save_then_die(*arguments: object) -> None:
        real(*arguments)
        raise RuntimeError("killed")

    monkeypatch.setattr(checkpoint, "save", save_then_die)
    with pytest.raises(RuntimeError, match="killed"):
        train(model(), some_documents(), often, CPU, tmp_path / "cut", seed=1, say=False)
    monkeypatch.setattr(checkpoint, "save", real)
    again = model()
    train(again, some_documents(), often, CPU, tmp_path / "cut", seed=1, say=False)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert len(losses(tmp_path / "cut")) == 6
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


@pytest.mark.parametrize("micro", ["3doc", "1doc"])
def test_a_run_goes_on_with_another_micro_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, micro: str) -> None:
    often = recipe(checkpoint_every_steps=3)
    train(model(), some_documents(), often, CPU, tmp_path / "whole", seed=1, say=False)
    real = checkpoint.save

    def save_then_die(*arguments: object) -> None:
        real(*arguments)
        raise RuntimeError("killed")

    monkeypatch.setattr(checkpoint, "save", save_then_die)
    with pytest.raises(RuntimeError, match="killed"):
        train(model(), some_documents(), often, CPU, tmp_path / "cut", seed=1, say=False)
    monkeypatch.setattr(checkpoint, "save", real)
    train(model(), some_documents(), often, replace(CPU, micro_batch=micro), tmp_path / "cut", seed=1, say=False)
    assert len(losses(tmp_path / "cut")) == 6
    assert losses(tmp_path / "cut") == pytest.approx(losses(tmp_path / "whole"), abs=2e-5)


def test_a_training_that_was_kept_goes_on_to_a_later_export(tmp_path: Path) -> None:
    first, second = recipe(export_at=["2step"]), recipe(export_at=["2step", "4step"])
    whole, made, again, later, back = (model() for _ in range(5))
    train(whole, some_documents(), second, CPU, tmp_path / "whole", seed=1, say=False)
    parts = tmp_path / "parts"
    train(made, some_documents(), first, CPU, parts, seed=1, say=False, keep=True)
    train(again, some_documents(), first, CPU, parts, seed=1, say=False, keep=True)  # killed before its export
    assert losses(parts) == losses(tmp_path / "whole")[:2]
    outcome = train(later, some_documents(), second, CPU, parts, seed=1, say=False, keep=True)
    assert (outcome["steps"], outcome["schedule_steps"]) == (4, 6)
    assert losses(parts) == losses(tmp_path / "whole")
    train(back, some_documents(), first, CPU, parts, seed=1, say=False)  # the earlier one again, from nothing
    for one, other in ((made, again), (made, back), (whole, later)):
        assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
    assert not torch.equal(made.transformer.wte.weight, whole.transformer.wte.weight)


@pytest.mark.parametrize("optimizer", ["adamw", "lionw"])
def test_either_optimizer_learns(tmp_path: Path, optimizer: str) -> None:
    train(model(), some_documents(), recipe(optimizer=optimizer, duration="6ep"), CPU, tmp_path, seed=1, say=False)
    assert losses(tmp_path)[-1] < 0.9 * losses(tmp_path)[0]


def test_frozen_embeddings_stay(tmp_path: Path) -> None:
    made = model()
    before = made.transformer.wte.weight.clone()
    train(made, some_documents(), recipe(freeze_embeddings=True), CPU, tmp_path, seed=1, say=False)
    assert torch.equal(before, made.transformer.wte.weight)


def test_an_empty_mixture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no document"):
        train(model(), [], recipe(), CPU, tmp_path, seed=1, say=False)


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("linear", 4, [0.25, 0.5, 0.75, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0]),
        ("linear", 0, [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0]),
        ("cosine", 0, [0.5 + 0.5 * math.cos(math.pi * step / 10) for step in range(11)]),
        ("cosine", 2, [0.5, *(0.5 + 0.5 * math.cos(math.pi * step / 10) for step in range(1, 11))]),
        ("linear_after_warmup", 4, [0.0, 0.25, 0.5, 0.75, 1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0.0]),
        ("linear_after_warmup", 0, [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0]),
        ("linear_after_warmup", 10, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.0]),
    ],
)
def test_every_schedule_warms_up_and_ends_at_zero(schedule: str, warmup: int, expected: list[float]) -> None:
    found = [learning_rate_factor(step, steps=10, warmup=warmup, schedule=schedule) for step in range(11)]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "linear_after_warmup"])
def test_the_updates_follow_the_schedule_of_the_recipe(tmp_path: Path, schedule: str) -> None:
    train(model(), some_documents(), recipe(schedule=schedule, schedule_over="3ep"), CPU, tmp_path, seed=1, say=False)
    rates = [row["learning_rate"] for row in read_metrics(tmp_path / "metrics.jsonl")]
    assert rates == pytest.approx(
        [1e-2 * learning_rate_factor(step, steps=9, warmup=2, schedule=schedule) for step in range(6)]
    )
