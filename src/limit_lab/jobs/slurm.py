"""Jobs for Slurm through submitit, whose signal before a job's end becomes a checkpoint and a requeue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import submitit

from limit_lab.config import Study
from limit_lab.interruption import STATUS
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
        """submitit's hook for its signal: None when nothing is left to be continued."""
        if self._child is not None and self._child.leave() != STATUS:
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
        return _Submitted(executor.submit(Called(command, Path.cwd(), folder / LOG)))


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
        "local_signal_delay_s": launch.signal_seconds,
    }
    if hardware.accelerator == "gpu":
        asked["gpus_per_node"] = hardware.devices
    further = {"slurm_partition": launch.partition, "slurm_account": launch.account}
    if launch.sbatch:
        further["slurm_additional_parameters"] = dict(launch.sbatch)
    return asked | {key: value for key, value in further.items() if value is not None}


class _Submitted:
    def __init__(self, job: submitit.Job[int]) -> None:
        self._job = job

    def over(self) -> bool:
        return bool(self._job.done())

    def cancel(self) -> None:
        self._job.cancel(check=False)
