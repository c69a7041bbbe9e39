"""What a job does, wherever it runs: the exports of one training, one after another."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from limit_lab import cell, preflight
from limit_lab.errors import BusyError, LimitLabError
from limit_lab.interruption import STATUS, ToBeContinued, listen
from limit_lab.jobs import order
from limit_lab.jobs.order import Numbered
from limit_lab.progress import Stages
from limit_lab.told import Lines, follow, outcome


def in_order(own: Sequence[Numbered], of: int, progress: Stages) -> None:
    """Make the exports of one training; each but the last leaves its state to the next.

    Raises: BusyError when another process makes one; LimitLabError for those that failed, when the others are made.
    """
    failed: list[str] = []
    for place, (at, study) in enumerate(own):
        try:
            cell.make(study, at, of, progress, onward=place + 1 < len(own))
        except BusyError:
            raise
        except LimitLabError as error:
            failed.append(str(error) if len(own) == 1 else f"{study.label}: {error}")
    if failed:
        raise LimitLabError("\n".join(failed))


def there(own: Sequence[Numbered], of: int, progress: Stages) -> None:
    """`in_order` on a machine that the launcher has not seen. Raises: LimitLabError when it is too small for the cells."""
    for sentence in preflight.machine(own[-1][1]):
        raise LimitLabError(sentence)
    in_order(own, of, progress)


def main(folder: Path) -> int:
    """Do the job in ``folder``, reporting into it; returns the exit status, 75 when it is to be continued.

    It ends with the process that started it, which may have been killed.
    """
    reports = order.Reports(folder)
    try:
        listen()
        threading.Thread(target=follow, args=(os.getppid(),), daemon=True).start()
        given = order.read(folder)
        study = given.cells[-1][1]
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as at the front door, before torch loads
        if study.hardware.threads is not None:
            os.environ["OMP_NUM_THREADS"] = str(study.hardware.threads)
        sys.argv[1:] = given.arguments  # records tell the study's command
        sys.stdout = Lines(given.name, reports.tell)
        kind, *content = outcome(given.name, partial(there, given.cells, given.of), reports.tell)
    except ToBeContinued as left:  # before or after the work
        kind, content = "left", [str(left)]
    reports.tell(kind, *content)
    return {"done": 0, "left": STATUS}.get(kind, 1)
