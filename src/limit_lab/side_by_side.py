"""Cells of a study made at the same time, each by a process of its own: small models leave cores idle that another can use."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from queue import Empty
from typing import Any

from limit_lab import cell
from limit_lab.config import Study
from limit_lab.errors import LimitLabError
from limit_lab.estimate import seconds
from limit_lab.progress import UNKNOWN, Move, StudyProgress

#: Seconds between two looks at what the processes report.
PAUSE = 0.1

#: The way back to the parent, set once in each process.
_reports: Any = None


def at_once(study: Study, cells: int) -> int:
    """How many of ``cells`` are made at the same time: ``hardware.cells``, or as many as the cores allow."""
    hardware = study.hardware
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cells, hardware.cells if hardware.cells is not None else cores // (hardware.threads or cores)))


def make(
    waiting: Sequence[tuple[int, Study]], of: int, workers: int, progress: StudyProgress, finished: Callable[[Study], None]
) -> None:
    """Make the numbered cells, ``workers`` at a time; lines and progress of all come back to this process.

    ``finished`` is called here with each cell that was made. A failing cell does not stop the others.
    Raises: LimitLabError for those that failed, when all have ended.
    """
    context = get_context("spawn")
    reports, stop = context.Queue(), context.Event()
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(reports, stop, os.getpid()))
    try:
        futures = [(study, pool.submit(_make, study, number, of)) for number, study in longest_first(waiting)]
        left = list(futures)
        while left:
            _pass_on(reports, progress)
            ended = [pair for pair in left if pair[1].done()]
            left = [pair for pair in left if pair not in ended]
            for study, future in ended:
                if future.exception() is None:
                    finished(study)
            time.sleep(PAUSE)
    except BaseException:
        stop.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        _pass_on(reports, progress)
    failed = [text for study, future in futures if (text := _failure(study, future))]
    if failed:
        raise LimitLabError("\n".join(failed))


def longest_first(waiting: Sequence[tuple[int, Study]]) -> list[tuple[int, Study]]:
    """The order in which cells are begun: a long one begun last would run alone."""
    expected = {number: sum(UNKNOWN if time is None else time for time in seconds(study).values()) for number, study in waiting}
    return sorted(waiting, key=lambda pair: -expected[pair[0]])


def _failure(study: Study, future: Future[None]) -> str | None:
    error = future.exception()
    if error is None:
        return None
    if isinstance(error, LimitLabError):
        return f"{study.mixture.name}: {error}"
    if isinstance(error, BrokenProcessPool):
        return f"{study.mixture.name}: its process was killed, perhaps for memory (hardware.cells=1 needs least): run again."
    raise error


def _pass_on(reports: Any, progress: StudyProgress) -> None:
    """Print the lines and move the bar for everything reported so far."""
    while True:
        try:
            kind, *content = reports.get_nowait()
        except Empty:
            return
        if kind == "line":
            sys.stdout.write(content[0] + "\n")
            sys.stdout.flush()
        else:
            progress.take(kind, *content)


def _begin(reports: Any, stop: Any, parent: int) -> None:
    """Set up a process: it ends without a word on Ctrl-C, on ``stop`` and with its parent; all it leaves is resumable."""
    global _reports
    _reports = reports
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as behind nohup
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_follow, args=(parent, stop), daemon=True).start()


def _follow(parent: int, stop: Any) -> None:
    while os.getppid() == parent and not stop.wait(1):
        pass
    os._exit(1)


def _make(study: Study, number: int, of: int) -> None:
    sys.stdout = _Lines(f"{number} {study.mixture.name}")
    cell.make(study, number, of, _Relay())


class _Relay:
    """Progress that is told to the parent."""

    def begin(self, key: str) -> Move:
        _reports.put(("begin", key))
        return lambda done, of: _reports.put(("move", key, done / max(of, 1)))

    def end(self, key: str) -> None:
        _reports.put(("end", key))


class _Lines:
    """Standard output of a process: whole lines, told to the parent with the cell's number and name before them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._open = ""

    def write(self, text: str) -> int:
        *lines, self._open = (self._open + text).split("\n")
        for line in lines:
            _reports.put(("line", line if line.startswith("cell ") else f"{self._name}: {line.strip()}"))
        return len(text)

    def flush(self) -> None:
        """Whole lines only are told."""
