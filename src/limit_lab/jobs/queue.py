"""The launcher's side: jobs submitted to a scheduler, their reports passed on, failing ones named, none left behind."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from limit_lab import cell, store
from limit_lab.config import Study
from limit_lab.jobs import order
from limit_lab.jobs.order import Heard, Numbered, Order
from limit_lab.progress import StudyProgress
from limit_lab.told import LAST, raised

#: Seconds between two looks at what the jobs report.
PAUSE = 0.5

#: Seconds that a job's last report may need to get here from another machine.
LATE = 10.0


class Submitted(Protocol):
    """A job in the hands of a scheduler."""

    def over(self) -> bool:
        """Whether it neither waits nor runs."""

    def cancel(self) -> None:
        """Have it end; a fine-tuning writes its checkpoint first where the scheduler leaves it the time."""


class Queue(Protocol):
    """A scheduler."""

    def submit(self, name: str, command: list[str], folder: Path) -> Submitted:
        """Have ``command`` run in the current folder, its output going to the log in ``folder``."""


@dataclass(slots=True)
class _Job:
    name: str
    cells: list[Numbered]
    folder: Path | None = None
    heard: Heard | None = None
    submitted: Submitted | None = None
    continued: int = 0  # times
    told: bool = False  # that another process makes it
    unfinished: bool = False  # the last that was heard is that it is to be continued
    silent: float | None = None  # when it was found over without a last report


def opened(study: Study) -> contextlib.AbstractContextManager[Queue]:
    """The scheduler that ``launch`` names. Raises: LimitLabError when it cannot be reached."""
    if study.launch.kind == "slurm":
        from limit_lab.jobs.slurm import Slurm

        return contextlib.nullcontext(Slurm(study))
    from limit_lab.jobs.ray import started

    return started(study)


def make(
    trainings: dict[str, list[Numbered]], of: int, queue: Queue, progress: StudyProgress, finished: Callable[[str], None]
) -> dict[str, str]:
    """Have every training made as a job; returns a sentence for each that failed, by name.

    One whose cells another launcher makes is submitted when that one has ended. ``finished`` is called with the name of each
    that was done. On the way out, with Ctrl-C too, the jobs that are left are cancelled.
    """
    jobs = [_Job(name, own) for name, own in trainings.items()]
    failed: dict[str, str] = {}
    broken: list[Exception] = []
    left = list(jobs)
    try:
        while left:
            for job in list(left):
                if job.submitted is None:
                    _submit(job, of, queue)
                    continue
                for kind, *content in _reports(job, queue):
                    if kind == "line":
                        _say(content[0])
                    elif kind not in LAST:
                        progress.take(kind, *content)
                    elif kind == "busy":
                        job.submitted = None
                    else:
                        left.remove(job)
                    if kind == "done":
                        finished(job.name)
                    elif kind == "failed":
                        failed[job.name] = content[0]
                    elif kind in ("full", "broken"):
                        broken.append(raised(kind, *content))
            time.sleep(PAUSE)
    finally:
        for job in left:
            if job.submitted is not None:
                job.submitted.cancel()
    for error in broken:
        raise error
    return {job.name: failed[job.name] for job in jobs if job.name in failed}


def _submit(job: _Job, of: int, queue: Queue) -> None:
    """Submit a job, unless another process makes one of its cells."""
    if any(store.held(cell.folder_of(study)) for _, study in job.cells):
        if not job.told:
            _say(f"{job.name}: another process makes it; the others go first")
        job.told = True
        return
    if job.folder is None:
        job.folder = order.place(job.cells[-1][1], job.name)
        order.write(job.folder, Order(name=job.name, cells=job.cells, of=of, arguments=sys.argv[1:]))
        job.heard = Heard(job.folder)
    job.submitted = queue.submit(job.name, order.command(job.folder), job.folder)
    job.unfinished, job.silent = False, None


def _reports(job: _Job, queue: Queue) -> Iterator[Sequence[Any]]:
    """What is new of a submitted job; one that ended to be continued is submitted again, and one without a word has failed."""
    assert job.folder is not None
    assert job.heard is not None
    assert job.submitted is not None
    ended = job.submitted.over()  # asked before the reports are read, which are then all of them
    for report in job.heard.new():
        job.unfinished = report[0] == "left"
        if job.unfinished:
            _say(f"{job.name}: {report[1]}")
        else:
            yield report
            if report[0] in LAST:
                return
    if not ended:
        return
    most = job.cells[-1][1].launch.requeues
    if job.unfinished and job.continued < most:
        job.continued, job.unfinished = job.continued + 1, False
        job.submitted = queue.submit(job.name, order.command(job.folder), job.folder)
    elif job.unfinished:
        yield "failed", f"it was asked to end {most + 1} times: raise launch.minutes or launch.requeues, and run again."
    elif job.silent is None:
        job.silent = time.monotonic()
    elif time.monotonic() - job.silent > LATE:
        yield "failed", f"its job ended without a word, perhaps for memory or time (its logs are in {job.folder}): run again."


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
