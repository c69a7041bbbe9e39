"""What a process that makes cells tells the one that waits for it: lines, progress, and at last how its work ended.

A report is its kind with what belongs to it: ("line", text), ("begin", key), ("move", key, share), ("end", key); and as the
last one ("done",), ("busy",), ("failed", sentence), ("left", sentence), ("full", errno, reason, file) or ("broken", trace).
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable

from limit_lab.errors import BusyError, LimitLabError
from limit_lab.interruption import ToBeContinued
from limit_lab.progress import Move, Stages

#: Called with the kind of a report and what belongs to it.
Tell = Callable[..., None]

#: The kinds after which nothing comes.
LAST = ("done", "busy", "failed", "left", "full", "broken")


class Relay:
    """Progress that is told."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def begin(self, key: str) -> Move:
        self._tell("begin", key)
        return lambda done, of: self._tell("move", key, done / max(of, 1))

    def end(self, key: str) -> None:
        self._tell("end", key)


class Lines:
    """Standard output of a process: whole lines, told with the job's name before them."""

    def __init__(self, name: str, tell: Tell) -> None:
        self._name = name
        self._tell = tell
        self._open = ""

    def write(self, text: str) -> int:
        *lines, self._open = (self._open + text).split("\n")
        for line in lines:
            self._tell("line", line if line.startswith("cell ") else f"{self._name}: {line.strip()}")
        return len(text)

    def flush(self) -> None:
        """Whole lines only are told."""


def outcome(name: str, work: Callable[[Stages], None], tell: Tell) -> tuple[str, *tuple[str | int | None, ...]]:
    """Do the work; returns the last report on it. A KeyboardInterrupt that no scheduler sent ends the process without one."""
    try:
        work(Relay(tell))
    except BusyError:
        return ("busy",)
    except LimitLabError as error:
        return "failed", str(error)
    except OSError as error:  # the front door knows what the disk says
        return "full", error.errno, error.strerror, error.filename
    except ToBeContinued as left:
        return "left", str(left)
    except Exception:
        return "broken", f"{name}:\n{traceback.format_exc()}"
    except KeyboardInterrupt:
        os._exit(1)
    return ("done",)


def raised(kind: str, *content: str | int | None) -> Exception:
    """The error behind a report of the kind "full" or "broken"."""
    if kind == "full":
        return OSError(*content)
    return RuntimeError(*content)


def follow(parent: int) -> None:
    """End this process when its parent has ended; for a thread of its own."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
