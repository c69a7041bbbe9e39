"""What a run is watched by: right numbers, at the right steps, and no trace of it in the training."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from limit_lab import cell
from limit_lab.compose import compose
from limit_lab.finetune import checkpoint, rows
from limit_lab.finetune.observe import EVALUATIONS, HeldOut, Samples, evaluations
from limit_lab.finetune.train import train
from limit_lab.model.answering import Decoding, answer
from tests.finetune.runs import CPU, model, recipe, some_documents, watch


def read(folder: Path, name: str) -> list[dict[str, Any]]:
    """Rows without their times."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows.read(folder / name)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_watching_changes_no_bit_of_the_training(tmp_path: Path, precision: str) -> None:
    alone, watched = model(), model()
    how = recipe(precision=precision, samples_every_steps=2)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    train(alone, some_documents(), how, CPU, tmp_path / "alone", seed=1, say=False)
    after = torch.get_rng_state()
    torch.set_rng_state(before)
    train(watched, some_documents(), how, CPU, tmp_path / "watched", seed=1, say=False, watch=watch())
    assert torch.equal(torch.get_rng_state(), after)
    assert read(tmp_path / "alone", "metrics.jsonl") == read(tmp_path / "watched", "metrics.jsonl")
    assert all(torch.equal(mine, watched.state_dict()[name]) for name, mine in alone.state_dict().items())
    assert [row["step"] for row in read(tmp_path / "watched", "samples.jsonl")] == [2, 2, 2, 4, 4, 4, 6, 6, 6]
    assert not (tmp_path / "alone/held_out.jsonl").exists()


def test_the_held_out_loss_is_the_mean_over_targets_at_the_start_each_epoch_and_the_end(tmp_path: Path) -> None:
    made = model()
    first = {source: mean_loss(made, source) for source in "ab"}
    train(made, some_documents(), recipe(), CPU, tmp_path, seed=1, say=False, watch=watch())
    found = read(tmp_path, "held_out.jsonl")
    assert [(row["step"], row["source"]) for row in found] == [(step, source) for step in (0, 3, 6) for source in "ab"]
    for row in found:
        own = watch().held_out[row["source"]]
        assert (row["documents"], row["tokens"]) == (len(own), sum(one.targets for one in own))
    last = {source: mean_loss(made, source) for source in "ab"}
    assert {row["source"]: row["loss"] for row in found if row["step"] == 0} == pytest.approx(first, rel=1e-5)
    assert {row["source"]: row["loss"] for row in found if row["step"] == 6} == pytest.approx(last, rel=1e-5)
    assert first != pytest.approx(last, rel=1e-3)


@torch.no_grad()
def mean_loss(made: torch.nn.Module, source: str) -> float:
    """Document by document, without packing."""
    total = count = 0.0
    for one in watch().held_out[source]:
        ids = torch.tensor([one.ids])
        targets = ids[0, one.prompt_tokens :]
        total += float(F.cross_entropy(made(ids)[0, one.prompt_tokens - 1 : -1], targets, reduction="sum"))
        count += len(targets)
    return total / count


def test_samples_are_the_greedy_answers_of_the_weights_at_that_step(tmp_path: Path) -> None:
    made, told = model(), watch()
    train(made, some_documents(), recipe(samples_every_steps=3), CPU, tmp_path, seed=1, say=False, watch=told)
    assert told.prompts is not None
    answers = answer(made, told.prompts.ids, 0, Decoding(max_new_tokens=64), batch=3)
    last = [row for row in read(tmp_path, "samples.jsonl") if row["step"] == 6]
    assert [row["answer"] for row in last] == [" ".join(str(one) for one in own if one) for own in answers]
    assert [row["prompt"] for row in last] == ["5 6", "7", "8 9 1"]
    assert [row["ended"] for row in last] == [own[-1] == 0 for own in answers]


@pytest.mark.parametrize("done_at", [3, 4])
def test_a_resumed_run_has_each_look_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done_at: int) -> None:
    how = recipe(checkpoint_every_steps=done_at, samples_every_steps=3)
    train(model(), some_documents(), how, CPU, tmp_path / "whole", seed=1, say=False, watch=watch())
    real = checkpoint.save

    def save_then_die(*arguments: Any) -> None:
        real(*arguments)
        raise RuntimeError("killed")

    monkeypatch.setattr(checkpoint, "save", save_then_die)
    with pytest.raises(RuntimeError, match="killed"):
        train(model(), some_documents(), how, CPU, tmp_path / "cut", seed=1, say=False, watch=watch())
    monkeypatch.setattr(checkpoint, "save", real)
    rows.append(tmp_path / "cut/held_out.jsonl", [{"step": 6, "source": "a", "loss": 9.0, "tokens": 1, "documents": 1}])
    train(model(), some_documents(), how, CPU, tmp_path / "cut", seed=1, say=False, watch=watch())
    for name in ("held_out.jsonl", "samples.jsonl"):
        assert read(tmp_path / "cut", name) == read(tmp_path / "whole", name)


def test_what_is_printed_of_looks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(model(), some_documents(), recipe(samples_every_steps=6), CPU, tmp_path, seed=1, watch=watch())
    lines = capsys.readouterr().out.splitlines()
    found = read(tmp_path, "held_out.jsonl")
    assert lines[0] == f"  held out at step 0: loss a {found[0]['loss']:.4f}, b {found[1]['loss']:.4f}"
    assert sum(line.startswith("  held out at step") for line in lines) == 3
    assert [line.split(":")[0] for line in lines[-3:]] == [f"  sample {index} at step 6" for index in range(3)]
    assert all(len(line) < 128 for line in lines)


def test_evaluations_are_few_and_evenly_spread() -> None:
    assert evaluations(6, 3) == [0, 3, 6]
    assert evaluations(7, 3) == [0, 3, 6, 7]
    assert evaluations(2, 3) == [0, 2]
    many = evaluations(1000, 10)
    assert (many[0], many[-1], len(many)) == (0, 1000, EVALUATIONS)
    gaps = [two - one for one, two in itertools.pairwise(many)]
    assert set(gaps) == {50, 60}


def test_nothing_is_due_where_there_is_nothing_to_look_at() -> None:
    assert not HeldOut({"a": []}, [0, 1], recipe(), CPU).due(0)
    assert not Samples(None, 1).due(1)
    assert [step for step in range(5) if Samples(watch().prompts, 2).due(step)] == [2, 4]
    assert not Samples(watch().prompts, 0).due(2)


def test_looks_are_outside_the_fingerprint() -> None:
    plain = compose(["mixture=lima"])
    other = compose(["mixture=lima", "finetune.held_out=0", "finetune.samples_every_steps=5"])
    assert other.finetune.held_out == 0
    assert cell.identity(plain) == cell.identity(other)
