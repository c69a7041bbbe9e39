"""What Slurm is asked for, and submitit's signal: the child is asked to end, and the job comes back."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from limit_lab.compose import compose
from limit_lab.config import Hardware
from limit_lab.jobs.run import Child
from tests.processes import alive

pytest.importorskip("submitit", reason="submitit is not installed: pip install 'limit_lab[slurm]'.")

from limit_lab.jobs import slurm

#: Ends with 75 when it is asked to, the first time; leaves a file for every start.
SCRIPT = """
import pathlib, signal, sys, time
where = pathlib.Path(sys.argv[1])
number = len(list(where.glob("start*")))
def leave(number, frame):
    sys.exit(75)
signal.signal(signal.SIGUSR1, leave)
(where / f"start{number}").touch()
while number == 0:
    time.sleep(0.05)
"""


def test_a_job_asks_for_the_devices_of_the_hardware_and_the_rest_of_the_launch() -> None:
    given = ["launch=slurm", "launch.partition=gpu", "launch.account=me", "launch.minutes=90", "+launch.sbatch.constraint=h100"]
    study = compose([*given, "hardware.threads=3"])
    asked = slurm.parameters(study, "1 lima")
    assert "gpus_per_node" not in asked
    assert asked == {
        "name": "limit_lab 1 lima",
        "timeout_min": 90,
        "nodes": 1,
        "tasks_per_node": 1,
        "cpus_per_task": 3,
        "slurm_signal_delay_s": 120,
        "slurm_partition": "gpu",
        "slurm_account": "me",
        "slurm_additional_parameters": {"constraint": "h100"},
    }
    eight = Hardware(name="8x80gb", accelerator="gpu", devices=8, nodes=2, strategy="zero3")
    asked = slurm.parameters(replace(study, hardware=eight), "1 lima")
    assert (asked["gpus_per_node"], asked["nodes"]) == (8, 2)


def test_submitits_signal_asks_the_child_to_end_and_the_job_comes_back(tmp_path: Path) -> None:
    study = compose(["launch=slurm", "launch.executor=local"])
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    job = slurm.Slurm(study).submit("one", command, tmp_path)
    until(lambda: (tmp_path / "start0").is_file())
    (pid,) = [int(path.name) for path in Path("/proc").glob("[0-9]*") if is_task(path, tmp_path)]
    os.kill(pid, signal.SIGUSR2)
    until(job.over)
    assert (tmp_path / "start1").is_file()
    until(lambda: not alive(str(tmp_path)))


def is_task(process: Path, folder: Path) -> bool:
    """Whether it is submitit's process that called the command."""
    try:
        line = (process / "cmdline").read_bytes().decode()
    except OSError:
        return False
    return "submitit.core._submit" in line and str(folder) in line


def until(condition: object, limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    assert callable(condition)
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.1)


def test_a_child_whose_waiting_is_interrupted_is_asked_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("limit_lab.jobs.run.time.sleep", interrupted)
    child = Child([sys.executable, "-c", "import sys, time; time.sleep(60)", str(tmp_path)], tmp_path, tmp_path / "log.txt")
    with pytest.raises(KeyboardInterrupt):
        child.status()
    monkeypatch.undo()
    assert child._process is not None
    assert child._process.wait(10) == -signal.SIGTERM
