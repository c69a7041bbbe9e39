"""Cells made at the same time, each by its own process: the same numbers, and nothing outlives the parent."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import limit_lab
from limit_lab import side_by_side
from limit_lab.compose import compose
from limit_lab.config import Hardware
from limit_lab.errors import BusyError, LimitLabError
from limit_lab.finetune.checkpoint import completed_steps
from limit_lab.finetune.journal import read_metrics
from limit_lab.progress import Stages, StudyProgress
from limit_lab.side_by_side import Job
from tests.commands import call, groups, hear_interrupts, numbers

#: Two tiny cells.
TINY = ["+experiment=tiny", "finetune.duration=3step", "finetune.batch=16doc", "answers.limit=2", "study.mixtures=[lima_tiny]"]


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
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["2 lima_tiny", "3 both_tiny"]
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


def test_a_scheduler_that_ends_the_study_leaves_every_cell_a_checkpoint(tmp_path: Path) -> None:
    arguments = [*groups(tmp_path / "groups"), *TINY, "finetune.duration=100000step", f"runs={tmp_path / 'runs'}"]
    environment = os.environ | {"PYTHONPATH": str(Path(limit_lab.__file__).resolve().parent.parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "limit_lab", *arguments, "hardware.cells=2", "finetune.checkpoint_every_steps=100000"]
    study = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def metrics() -> list[Path]:
        return list((tmp_path / "runs").glob("cells/*/finetune/metrics.jsonl"))

    try:
        wait(lambda: len(metrics()) == 2 and all(path.stat().st_size > 500 for path in metrics()), limit=240)
        study.send_signal(signal.SIGUSR1)
        _, said = study.communicate(timeout=120)
    finally:
        study.kill()
    assert (study.returncode, said) == (75, "stopped on SIGUSR1: the same command continues where this one stopped.\n")
    for path in metrics():
        (last,) = [row["step"] for row in read_metrics(path)][-1:]
        assert completed_steps(path.parent / "checkpoint.ckpt") == last


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


def test_the_longest_job_is_begun_first() -> None:
    jobs = [Job(name=name, seconds=time, work=noted) for name, time in (("a", 2.0), ("b", 3.0), ("c", 1.0))]
    assert [job.name for job in side_by_side.longest_first(jobs)] == ["b", "a", "c"]


def noted(_: Stages) -> None:
    sys.stdout.write("it ran\nto its end\n")


def killed(_: Stages) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refused(_: Stages) -> None:
    raise LimitLabError("it broke: mend it.")


def full(_: Stages) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "runs/x")


def busy_until(path: Path, stages: Stages) -> None:
    """Another process holds it until the file is there."""
    if not path.is_file():
        raise BusyError("another process works in it.")
    stages.begin("held")(1, 1)


def touching(path: Path, _: Stages) -> None:
    path.touch()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_job_stops_no_other(workers: int, capsys: pytest.CaptureFixture[str]) -> None:
    works = {"bad": refused, "one": noted, "two": noted} | ({"dead": killed} if workers > 1 else {})
    jobs = [Job(name=name, seconds=1.0, work=work) for name, work in works.items()]
    done: list[str] = []
    failed = side_by_side.make(jobs, workers, StudyProgress({}), lambda job: done.append(job.name))
    assert sorted(done) == ["one", "two"]
    assert failed.pop("bad") == "it broke: mend it."
    assert [said.split(",")[0] for said in failed.values()] == (["its process was killed"] if workers > 1 else [])
    said = capsys.readouterr().out
    assert said.count("it ran") == 2
    assert ("one: to its end" in said) == (workers > 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_another_process_holds_comes_back_last(
    workers: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side_by_side, "AGAIN", 0.05)
    free = tmp_path / "free"
    jobs = [
        Job(name="held", seconds=2.0, work=partial(busy_until, free)),
        Job(name="last", seconds=1.0, work=partial(touching, free)),
    ]
    done: list[str] = []
    progress = StudyProgress({"held": 10.0})
    assert side_by_side.make(jobs, workers, progress, lambda job: done.append(job.name)) == {}
    assert sorted(done) == ["held", "last"]
    assert progress.completed == 10
    if workers == 1:
        assert done == ["last", "held"]
        assert capsys.readouterr().out == "held: another process makes it; the others go first\n"


def test_what_the_disk_says_is_passed_on_when_all_have_ended() -> None:
    jobs = [Job(name="full", seconds=2.0, work=full), Job(name="one", seconds=1.0, work=noted)]
    done: list[str] = []
    with pytest.raises(OSError, match="No space left") as caught:
        side_by_side.make(jobs, 2, StudyProgress({}), lambda job: done.append(job.name))
    assert (caught.value.errno, caught.value.filename, done) == (errno.ENOSPC, "runs/x", ["one"])


def test_the_embedded_study_takes_one_thread_a_cell() -> None:
    study = compose(["+experiment=micro_limit"])
    assert study.hardware.threads == 1
    assert study.hardware.cells is None
