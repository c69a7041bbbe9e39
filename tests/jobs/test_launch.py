"""Cells made by a scheduler: the numbers of cells made here, failing ones named alike, and none left behind."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.commands import call, groups, numbers
from tests.processes import alive

GRID = """# @package _global_
study: {name: rates, axes: {finetune.learning_rate: [0.001, 1.0e+30]}, mixtures: [none], baseline: null}
"""

#: Two cells and one that diverges at its first step.
THREE = ["+experiment=tiny", "+grid=rates", "mixture=lima_tiny", "finetune.clip_norm=1e30", "answers.limit=2"]
THREE += ["gauntlet.prompting=[raw]", "gauntlet.raw_only=true", "hardware.cells=1", "hardware.threads=1"]

SLURM = ["launch=slurm", "launch.executor=local"]
RAY = ["launch=ray", "launch.cpus=1"]


def needs(library: str) -> pytest.MarkDecorator:
    reason = f"{library} is not installed: pip install 'limit_lab[{'slurm' if library == 'submitit' else library}]'."
    return pytest.mark.skipif(importlib.util.find_spec(library) is None, reason=reason)


def three(folder: Path, *more: str) -> list[str]:
    return [*groups(folder / "groups", grid__rates=GRID), *THREE, f"runs={folder / 'runs'}", *more]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], dict[str, object]]:
    """The study as this machine makes it, and its numbers."""
    folder = tmp_path_factory.mktemp("here")
    done = call(three(folder))
    return done, results(folder)


def results(folder: Path) -> dict[str, object]:
    """The numbers of the cells but for their summaries, which hold the launch."""
    return {name: value for name, value in numbers(folder / "runs" / "cells").items() if not name.endswith("summary.json")}


@pytest.mark.slow
@pytest.mark.parametrize(
    "launch", [pytest.param(SLURM, marks=needs("submitit"), id="slurm"), pytest.param(RAY, marks=needs("ray"), id="ray")]
)
def test_a_scheduler_makes_two_cells_and_names_the_failing_one(
    launch: list[str], here: tuple[subprocess.CompletedProcess[str], dict[str, object]], tmp_path: Path
) -> None:
    local, expected = here
    done = call(three(tmp_path, *launch))
    assert (done.returncode, local.returncode) == (1, 1), done.stderr
    assert done.stderr == local.stderr
    assert done.stderr.startswith("3 lima_tiny: the ")
    assert results(tmp_path) == expected
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"3 of 3 cells to make by {launch[0].removeprefix('launch=')}, 3 jobs: ")
    assert any(line.startswith("2 lima_tiny: step ") for line in lines)
    assert lines[-1] == str(tmp_path / "runs/studies/rates/index.html")
    assert len(list((tmp_path / "runs/studies/rates/jobs").iterdir())) == 3
    assert not alive(str(tmp_path))


@pytest.mark.slow
@needs("submitit")
def test_a_job_that_is_asked_to_end_is_submitted_again_and_goes_on(
    here: tuple[subprocess.CompletedProcess[str], dict[str, object]], tmp_path: Path
) -> None:
    _, expected = here
    arguments = three(
        tmp_path, *SLURM, "finetune.learning_rate=0.001", "study.mixtures=[]", "finetune.checkpoint_every_steps=100"
    )
    done = call(arguments, at=r"finetune/metrics\.jsonl$", count=5, sent=signal.SIGUSR2)
    assert done.returncode == 0, done.stderr
    left = [line for line in done.stdout.splitlines() if "stopped on SIGUSR2" in line]
    assert left
    assert all(line.startswith("1 lima_tiny: fine-tuning stopped on SIGUSR2 after step ") for line in left)
    found = {name: value for name, value in results(tmp_path).items() if name.endswith("metrics.jsonl")}
    assert found
    assert found.items() <= expected.items()


@needs("submitit")
def test_ctrl_c_cancels_the_jobs(tmp_path: Path) -> None:
    arguments = three(tmp_path, *SLURM, "finetune.learning_rate=0.001", "study.mixtures=[]")
    done = call(arguments, at=r"rates/jobs/[^/]*/[^/]*submitted.pkl$", sent=signal.SIGINT)
    assert done.returncode == 130, done.stderr
    assert "interrupted: the same command continues where this one stopped." in done.stderr.splitlines()
    end = time.monotonic() + 30
    while alive(str(tmp_path)):
        assert time.monotonic() < end, alive(str(tmp_path))
        time.sleep(0.2)
