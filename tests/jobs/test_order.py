"""A job's folder: what goes in comes out, and reports are read as they are written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from limit_lab import cell
from limit_lab.compose import compose
from limit_lab.errors import BusyError, DataError, LimitLabError
from limit_lab.grid import cells
from limit_lab.interruption import ToBeContinued
from limit_lab.jobs import order, work
from limit_lab.jobs.order import Heard, Numbered, Order, Reports
from limit_lab.progress import Stages
from limit_lab.told import Relay


@pytest.mark.parametrize("overrides", [["+experiment=micro_limit"], ["+grid=micro_updates"], ["+grid=sample_sizes"]])
def test_an_order_gives_back_its_cells(overrides: list[str], tmp_path: Path) -> None:
    study = compose(overrides)
    given = Order(name="1 lima", cells=[(3, one) for one in cells(study, overrides)[:4]], of=9, arguments=overrides)
    order.write(tmp_path, given)
    assert order.read(tmp_path) == given


def test_every_job_has_a_folder_of_its_own(tmp_path: Path) -> None:
    study = compose([f"runs={tmp_path}", "study.name=mine"])
    places = [order.place(study, "1 lima, 3step") for _ in range(2)]
    assert places == [tmp_path / "studies/mine/jobs" / name for name in ("1-lima-3step.1", "1-lima-3step.2")]


def test_reports_are_heard_once_and_whole(tmp_path: Path) -> None:
    reports, heard = Reports(tmp_path), Heard(tmp_path)
    assert heard.new() == []
    reports.tell("begin", "a")
    reports.tell("move", "a", 0.1)
    reports.tell("move", "a", 0.2)  # too soon to be worth a line
    assert heard.new() == [["begin", "a"], ["move", "a", 0.1]]
    with (tmp_path / order.REPORTS).open("ab") as file:
        file.write(b'["line", "half')
        file.flush()
        assert heard.new() == []
        file.write(b' and whole"]\n')
    assert heard.new() == [["line", "half and whole"]]


@pytest.mark.parametrize(
    ("raised", "status", "last"),
    [
        (None, 0, ["done"]),
        (BusyError("another works in it."), 1, ["busy"]),
        (DataError("rows are gone: bring them back."), 1, ["failed", "rows are gone: bring them back."]),
        (ToBeContinued("stopped."), 75, ["left", "stopped."]),
        (OSError(28, "No space left on device", "runs/x"), 1, ["full", 28, "No space left on device", "runs/x"]),
    ],
)
def test_a_job_tells_how_it_ended(
    raised: BaseException | None, status: int, last: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(own: list[Numbered], of: int, progress: Stages) -> None:
        progress.begin("a stage")(1, 2)
        sys.stdout.write("it ran\nto its end\n")
        if raised is not None:
            raise raised

    monkeypatch.setattr(work, "there", made)
    monkeypatch.setattr(work, "listen", lambda: None)
    monkeypatch.setattr(sys, "argv", ["python"])
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    study = compose(["mixture=lima"])
    order.write(tmp_path, Order(name="1 lima", cells=[(1, study)], of=1, arguments=["mixture=lima"]))
    assert work.main(tmp_path) == status
    assert sys.argv == ["python", "mixture=lima"]
    lines = [["line", "1 lima: it ran"], ["line", "1 lima: to its end"]]
    assert Heard(tmp_path).new() == [["begin", "a stage"], ["move", "a stage", 0.5], *lines, last]


def test_a_machine_that_is_too_small_is_named_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    study = compose(["hardware=gpu"])
    monkeypatch.setattr("limit_lab.preflight.gpus", lambda: 0)
    monkeypatch.setattr(cell, "make", lambda *_, **__: pytest.fail("it was made"))
    with pytest.raises(LimitLabError, match="hardware=gpu needs 1 GPUs in each node and this machine has no NVIDIA GPU"):
        work.there([(1, study)], 1, Relay(lambda *_: None))
