"""Jobs made at the same time, each by a process of its own: small models leave cores idle that another can use."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

from limit_lab.config import Study
from limit_lab.errors import BusyError, LimitLabError
from limit_lab.interruption import ToBeContinued, listen
from limit_lab.progress import Stages, StudyProgress
from limit_lab.told import LAST, Lines, follow, outcome, raised

#: Seconds between two looks at what the processes report.
PAUSE = 0.1

#: Seconds after which jobs that other processes held are tried again.
AGAIN = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A cell or a base to be made. ``name`` stands before its lines; ``work`` is called with its progress.

    ``work`` raises BusyError when another process makes the same: the job comes back when all others are begun.
    """

    name: str
    seconds: float
    work: Callable[[Stages], None]


def at_once(study: Study, jobs: int) -> int:
    """How many of ``jobs`` are made at the same time: ``hardware.cells``, or as many as the cores allow."""
    hardware = study.hardware
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(jobs, hardware.cells if hardware.cells is not None else cores // (hardware.threads or cores)))


def make(jobs: Sequence[Job], workers: int, progress: StudyProgress, finished: Callable[[Job], None]) -> dict[str, str]:
    """Do every job, ``workers`` at a time; one at a time is done by this process, in the order given.

    ``finished`` is called here with each job that was done. A failing job, or one whose process is killed, stops no other.
    Returns a sentence for each that failed, by name, in the order given.
    """
    if workers == 1:
        return _in_a_row(_Waiting(jobs), progress, finished)
    crew = [_Worker() for _ in range(workers)]
    try:
        failed = _together(_Waiting(longest_first(jobs)), crew, progress, finished)
    except ToBeContinued:
        _ask_to_leave(crew)
        raise
    finally:
        for worker in crew:
            worker.process.kill()
            worker.process.join()
            worker.reports.close()
    return {job.name: failed[job.name] for job in jobs if job.name in failed}


def longest_first(jobs: Sequence[Job]) -> list[Job]:
    """The order in which jobs are begun side by side: a long one begun last would run alone."""
    return sorted(jobs, key=lambda job: -job.seconds)


class _Waiting:
    """The jobs that nobody works on; those that another process held come back last."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._ready = deque(jobs)
        self._busy: list[Job] = []
        self._again = 0.0
        self._told: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._ready or self._busy)

    def take(self) -> Job | None:
        """The next job; None while there is none, or others hold all that are left."""
        if not self._ready and time.monotonic() >= self._again:
            self._ready.extend(self._busy)
            self._busy.clear()
        return self._ready.popleft() if self._ready else None

    def put_back(self, job: Job) -> None:
        """Another process works on it."""
        if job.name not in self._told:
            _say(f"{job.name}: another process makes it; the others go first")
        self._told.add(job.name)
        self._busy.append(job)
        self._again = time.monotonic() + AGAIN


def _in_a_row(waiting: _Waiting, progress: StudyProgress, finished: Callable[[Job], None]) -> dict[str, str]:
    failed: dict[str, str] = {}
    while waiting:
        job = waiting.take()
        if job is None:
            time.sleep(PAUSE)
            continue
        try:
            job.work(progress)
        except BusyError:
            waiting.put_back(job)
        except LimitLabError as error:
            failed[job.name] = str(error)
        else:
            finished(job)
    return failed


def _together(
    waiting: _Waiting, crew: list[_Worker], progress: StudyProgress, finished: Callable[[Job], None]
) -> dict[str, str]:
    failed: dict[str, str] = {}
    broken: list[Exception] = []
    while waiting or any(worker.job for worker in crew):
        for at, worker in enumerate(crew):
            if worker.job is None and (job := waiting.take()):
                if not worker.process.is_alive():
                    worker = crew[at] = _Worker()
                worker.give(job)
        told = wait([worker.reports for worker in crew if worker.job], PAUSE)
        if not told:
            time.sleep(PAUSE)
        for worker in crew:
            if worker.job is None or worker.reports not in told:
                continue
            job, (kind, *content) = worker.job, worker.hear()
            if kind == "line":
                _say(content[0])
            elif kind == "busy":
                waiting.put_back(job)
            elif kind == "done":
                finished(job)
            elif kind == "failed":
                failed[job.name] = content[0]
            elif kind == "left":
                raise ToBeContinued(content[0])
            elif kind in ("full", "broken"):
                broken.append(raised(kind, *content))
            else:
                progress.take(kind, *content)
    for error in broken:
        raise error
    return failed


def _ask_to_leave(crew: list[_Worker]) -> None:
    """Pass a scheduler's signal on, and wait until every fine-tuning has written its checkpoint."""
    busy = [worker for worker in crew if worker.job]
    for worker in busy:
        worker.process.terminate()
    while busy := [worker for worker in busy if worker.job]:
        told = wait([worker.reports for worker in busy], PAUSE)
        for worker in busy:
            if worker.reports in told:
                worker.hear()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class _Worker:
    """A process that does one job after another, seen from the parent."""

    def __init__(self) -> None:
        context = get_context("spawn")
        self.reports, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, os.getpid()))
        self.process.start()
        theirs.close()
        self.job: Job | None = None

    def give(self, job: Job) -> None:
        self.job = job
        with contextlib.suppress(BrokenPipeError):  # its end is heard next
            self.reports.send(job)

    def hear(self) -> tuple[Any, ...]:
        """The next report; the last one on a job frees the worker."""
        try:
            report: tuple[Any, ...] = self.reports.recv()
        except (EOFError, OSError):
            self.process.join()
            said = "its process was killed, perhaps for memory (hardware.cells=1 needs least): run again."
            report = ("failed", said)
        if report[0] in LAST:
            self.job = None
        return report


def _serve(reports: Connection[Any, Any], parent: int) -> None:
    """A process: it ends without a word on Ctrl-C and with its parent; all it leaves is resumable."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as behind nohup
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=follow, args=(parent,), daemon=True).start()
    tell = partial(_tell, reports)
    try:
        listen()
        while True:
            job: Job = reports.recv()
            sys.stdout = Lines(job.name, tell)
            tell(*outcome(job.name, job.work, tell))
    except (EOFError, ToBeContinued):
        return


def _tell(reports: Connection[Any, Any], *message: Any) -> None:
    try:
        reports.send(message)
    except ConnectionError:  # the parent is gone
        os._exit(1)
