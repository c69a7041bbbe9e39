"""Which process asks which model where: devices of each rank, and when ranks are started at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from limit_lab import evaluating
from limit_lab.compose import compose
from limit_lab.evaluating import Evaluation
from limit_lab.model import placement
from limit_lab.model.team import Team
from limit_lab.ranks import order, start

MPT_30B = ["model=mpt_30b", "hardware=8x80gb"]


class LoadedError(Exception):
    """Ends an evaluation where its model would be loaded."""


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[list[torch.device]]:
    """The devices that models were to be loaded on."""
    seen: list[list[torch.device]] = []

    def load_on(folder: Path, devices: list[torch.device]) -> Any:
        seen.append(devices)
        raise LoadedError

    monkeypatch.setattr(placement, "load_on", load_on)
    return seen


def evaluation(folder: Path, prompting: str | None = "raw") -> Evaluation:
    return Evaluation(prompting=prompting, model=folder / "model", out=folder / "out", state=folder / "ranks")


@pytest.mark.parametrize(("rank", "wanted"), [("0", [0, 1]), ("3", [6, 7])])
def test_a_rank_takes_the_devices_after_those_of_the_ranks_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loads: list[list[torch.device]], rank: str, wanted: list[int]
) -> None:
    monkeypatch.setenv("LOCAL_RANK", rank)
    study = compose([*MPT_30B, "gauntlet.data=."])
    with pytest.raises(LoadedError):
        evaluating.here(study, evaluation(tmp_path), Team(rank=int(rank), size=4), lambda done, of: None)
    assert loads == [[torch.device("cuda", index) for index in wanted]]


@pytest.mark.parametrize(("gib", "processes"), [("79.1", 4), ("39.6", 2)])
def test_a_process_is_started_for_every_place_that_holds_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gib: str, processes: int
) -> None:
    monkeypatch.setattr(start, "evaluate", lambda study, work, count, move: {"processes": count})
    study = compose([*MPT_30B, f"hardware.gpu_gib={gib}"])
    assert evaluating.run(study, evaluation(tmp_path), lambda done, of: None) == {"processes": processes}


def test_a_model_that_needs_all_devices_is_asked_by_this_process(tmp_path: Path, loads: list[list[torch.device]]) -> None:
    study = compose([*MPT_30B, "hardware.gpu_gib=23", "gauntlet.data=."])
    with pytest.raises(LoadedError):
        evaluating.run(study, evaluation(tmp_path), lambda done, of: None)
    assert loads == [[torch.device("cuda", index) for index in range(8)]]


@pytest.mark.parametrize("prompting", ["template", None])
def test_ranks_read_the_evaluation_that_was_ordered(tmp_path: Path, prompting: str | None) -> None:
    study, work = compose(["hardware.devices=2", "hardware.strategy=ddp"]), evaluation(tmp_path, prompting)
    assert order.read(order.write(study, work, 7)) == (study, work, 7)
