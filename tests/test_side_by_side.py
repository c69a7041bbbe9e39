"""Cells made at the same time, each by its own process: the same numbers, and nothing outlives the parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import limit_lab
from limit_lab import side_by_side
from limit_lab.compose import compose
from limit_lab.config import Hardware
from limit_lab.grid import cells
from tests.commands import call, groups, hear_interrupts, numbers

#: Two tiny cells, one document a step.
TINY = ["+experiment=tiny", "finetune.duration=3step", "answers.limit=2", "study.mixtures=[lima_tiny]"]


def made(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return call([*groups(folder / "groups"), *TINY, f"runs={folder / 'runs'}", *overrides])


def results(folder: Path) -> dict[str, object]:
    """The numbers of the cells but for their summaries, which hold the hardware."""
    return {name: value for name, value in numbers(folder / "runs" / "cells").items() if not name.endswith("summary.json")}


def test_cells_side_by_side_give_the_numbers_of_cells_in_a_row(tmp_path: Path) -> None:
    row, side = made(tmp_path / "row", "hardware.cells=1"), made(tmp_path / "side", "hardware.cells=2")
    assert row.returncode == side.returncode == 0, row.stderr + side.stderr
    assert results(tmp_path / "side") == results(tmp_path / "row")
    lines = side.stdout.splitlines()
    assert lines[0].startswith("2 of 2 cells to make, 2 at a time: ")
    for name in ("1 lima_tiny", "2 both_tiny"):
        assert any(line.startswith(f"{name}: step ") for line in lines)
    assert lines[-1] == str(tmp_path / "side/runs/studies/tiny/index.html")


def test_cells_asked_something_else_are_made_again(tmp_path: Path) -> None:
    first, again, more = (made(tmp_path, "hardware.cells=2", *changes) for changes in ([], [], ["answers.limit=3"]))
    assert first.returncode == again.returncode == more.returncode == 0, first.stderr + again.stderr + more.stderr
    assert [line for line in again.stdout.splitlines() if "to make" in line] == []
    assert "2 of 2 cells to make, 2 at a time" in more.stdout
    assert {line.strip() for line in more.stdout.splitlines() if ": " in line} >= {
        "1 lima_tiny: answers: 3 prompts",
        "2 both_tiny: answers: 3 prompts",
    }
    assert "step" not in more.stdout


def test_a_failing_cell_is_named_and_stops_no_other(tmp_path: Path) -> None:
    where = ["hardware.cells=2", "finetune.clip_norm=1e30", "finetune.learning_rate=1e30"]
    where += ["tracking=wandb", "tracking.mode=offline"]
    done = made(tmp_path, *where, "study.mixtures=[none,lima_tiny]")
    assert done.returncode == 1
    assert sorted(line.split(":")[0] for line in done.stderr.splitlines()) == ["both_tiny", "lima_tiny"]
    assert [path.parent.name.split("-")[0] for path in (tmp_path / "runs/cells").glob("*/summary.json")] == ["none"]
    assert [path.name.split("-")[0] for path in (tmp_path / "runs/tracking/told").iterdir()] == ["none"]


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_no_cell_outlives_its_study(sent: signal.Signals, tmp_path: Path) -> None:
    arguments = [*groups(tmp_path / "groups"), *TINY, "finetune.duration=100000step", f"runs={tmp_path / 'runs'}"]
    environment = os.environ | {"PYTHONPATH": str(Path(limit_lab.__file__).resolve().parent.parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "limit_lab", *arguments, "hardware.cells=2"]
    study = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_interrupts
    )

    def metrics() -> list[Path]:
        return list((tmp_path / "runs").glob("cells/*/finetune/metrics.jsonl"))

    wait(lambda: len(metrics()) == 2 and all(path.stat().st_size > 500 for path in metrics()))
    study.send_signal(sent)
    _, said = study.communicate(timeout=60)
    if sent == signal.SIGINT:
        assert study.returncode == 130
        assert said.splitlines() == ["interrupted: the same command continues where this one stopped."]
    size = wait_still(metrics())
    assert [path.stat().st_size for path in metrics()] == size


def wait(condition: Callable[[], bool], limit: float = 60.0) -> None:
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.1)


def wait_still(paths: list[Path]) -> list[int]:
    """Sizes once they have not changed for two seconds."""
    sizes: list[int] = []
    for _ in range(30):
        before, sizes = sizes, [path.stat().st_size for path in paths]
        if sizes == before:
            return sizes
        time.sleep(2)
    raise AssertionError("the cells go on without their study")


@pytest.mark.parametrize(
    ("hardware", "number", "expected"),
    [({"cells": 1}, 5, 1), ({"cells": 3}, 5, 3), ({"cells": 3}, 2, 2), ({"cells": None, "threads": 1}, 99, None)],
)
def test_as_many_as_the_hardware_says(hardware: dict[str, int | None], number: int, expected: int | None) -> None:
    study = replace(compose([]), hardware=Hardware(name="cpu", **hardware))
    assert side_by_side.at_once(study, number) == (expected or min(99, len(os.sched_getaffinity(0))))


def test_the_longest_cell_is_begun_first() -> None:
    given = ["+experiment=micro_limit"]
    order = side_by_side.longest_first(list(enumerate(cells(compose(given), given), 1)))
    assert [study.mixture.name for _, study in order] == ["lima_plus_instruct", "lima", "instruct", "none"]


def test_the_embedded_study_takes_one_thread_a_cell() -> None:
    study = compose(["+experiment=micro_limit"])
    assert study.hardware.threads == 1
    assert study.hardware.cells is None
