"""Jobs for Ray: each command line is a task with the devices that a cell needs."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from limit_lab.config import Study
from limit_lab.errors import LimitLabError
from limit_lab.jobs.order import LOG
from limit_lab.jobs.run import Child


@contextmanager
def started(study: Study) -> Iterator[Ray]:
    """The instance at ``launch.address``, or one of this machine's own that ends with the study. Raises: LimitLabError."""
    address = study.launch.address
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(
            address or "local",
            include_dashboard=None if address else False,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise LimitLabError(
            f"launch.address={address}: no Ray instance answers ({reason}): start one there with 'ray start --head', or leave "
            "the address out to start one on this machine."
        ) from error
    try:
        _require(study)
        yield Ray(study)
    finally:
        ray.shutdown()


def _require(study: Study) -> None:
    """Raises: LimitLabError for a task that no node can hold, which would wait for ever."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for kind, count in _resources(study).items():
        if (has := max((node.get(kind, 0.0) for node in nodes), default=0.0)) < count:
            raise LimitLabError(
                f"a cell needs {count} {kind} of Ray and no node has more than {has:g}: add one that has, or choose another "
                f"{'launch.cpus' if kind == 'CPU' else 'hardware'}."
            )


def _resources(study: Study) -> dict[str, int]:
    gpus = study.hardware.devices if study.hardware.accelerator == "gpu" else 0
    return {"CPU": study.launch.cpus or study.hardware.threads or 1} | ({"GPU": gpus} if gpus else {})


def run(command: list[str], where: Path, log: Path) -> int:
    """The task itself, on whichever node holds it."""
    return Child(command, where, log).status()


class Ray:
    """Submits to the instance that is connected."""

    def __init__(self, study: Study) -> None:
        wanted = _resources(study)
        self._task = ray.remote(num_cpus=wanted["CPU"], num_gpus=wanted.get("GPU", 0), max_retries=0)(run)

    def submit(self, name: str, command: list[str], folder: Path) -> _Submitted:
        return _Submitted(self._task.options(name=f"limit_lab {name}").remote(command, Path.cwd(), folder / LOG))


class _Submitted:
    def __init__(self, result: Any) -> None:
        self._result = result

    def over(self) -> bool:
        ended, _ = ray.wait([self._result], timeout=0)
        return bool(ended)

    def cancel(self) -> None:
        ray.cancel(self._result)
