"""Jobs for Slurm through submitit, whose signal before a job's end becomes a checkpoint and a requeue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from limit_lab.config import Study
from limit_lab.errors import LimitLabError
from limit_lab.interruption import SIGNALS, STATUS
from limit_lab.jobs.order import LOG
from limit_lab.jobs.run import Child


class Called:
    """What submitit starts on the node: the job's command line; asked to end, it is submitted again if it can be continued."""

    def __init__(self, command: list[str], where: Path, log: Path) -> None:
        self._given = (command, where, log)
        self._child: Child | None = None

    def __call__(self) -> int:
        if submitit.JobEnvironment().global_rank:  # the first task of several nodes starts the cell
            return 0
        self._child = Child(*self._given)
        return self._child.status()

    def checkpoint(self) -> submitit.helpers.DelayedSubmission | None:
        """submitit's hook for its signal: None when there is nothing to continue."""
        goes_on = (STATUS, *(-one for one in SIGNALS))  # it may have been asked before it listened
        if self._child is not None and self._child.leave() not in goes_on:
            return None
        return submitit.helpers.DelayedSubmission(Called(*self._given))


class Slurm:
    """Submits with sbatch, or with ``launch.executor=local`` to submitit's executor on this machine."""

    def __init__(self, study: Study) -> None:
        self._study = study

    def submit(self, name: str, command: list[str], folder: Path) -> _Submitted:
        launch = self._study.launch
        executor = submitit.AutoExecutor(folder, cluster=launch.executor, slurm_max_num_timeout=launch.requeues)
        executor.update_parameters(**parameters(self._study, name))
        try:
            return _Submitted(executor.submit(Called(command, Path.cwd(), folder / LOG)))
        except (FailedJobError, FailedSubmissionError) as error:
            reason = " ".join(str(error).split())
            raise LimitLabError(f"sbatch refuses the job {name} ({reason}): correct launch.partition and its like.") from error


def parameters(study: Study, name: str) -> dict[str, Any]:
    """What submitit is told of a job: the devices and nodes of ``hardware``, the rest of ``launch``."""
    launch, hardware = study.launch, study.hardware
    asked: dict[str, Any] = {
        "name": f"limit_lab {name}",
        "timeout_min": launch.minutes,
        "nodes": hardware.nodes,
        "tasks_per_node": 1,
        "cpus_per_task": launch.cpus or hardware.threads or 1,
        "slurm_signal_delay_s": launch.signal_seconds,
    }
    if hardware.accelerator == "gpu":
        asked["gpus_per_node"] = hardware.devices
    if launch.partition is not None:
        asked["slurm_partition"] = launch.partition
    if launch.account is not None:
        asked["slurm_account"] = launch.account
    if launch.sbatch:
        asked["slurm_additional_parameters"] = dict(launch.sbatch)
    return asked


class _Submitted:
    def __init__(self, job: submitit.Job[int]) -> None:
        self._job = job

    def over(self) -> bool:
        return bool(self._job.done())

    def cancel(self) -> None:
        self._job.cancel(check=False)
