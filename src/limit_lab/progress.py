"""One bar for a whole study and one for each stage that runs: how far it is, and about how long the rest takes.

The bars stand on the terminal only; a log keeps the lines that the stages print.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Literal, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

#: Called with the work done and the work there is, in any unit.
Move = Callable[[int, int], None]

#: Weight in seconds of a stage whose length the configuration does not tell.
UNKNOWN = 60.0

#: Seconds back from which a stage's pace is taken.
PACE = 600.0


def by_part(move: Move, parts: Sequence[str]) -> Callable[[str, int, int], None]:
    """Progress inside a named part of a stage, as progress of the stage; all parts count alike."""

    def moved(part: str, done: int, of: int) -> None:
        move(parts.index(part) * 1000 + 1000 * done // max(of, 1), 1000 * len(parts))

    return moved


class Stages(Protocol):
    """What a cell tells about its stages."""

    def begin(self, key: str) -> Move:
        """A stage starts; the returned function moves it on."""

    def end(self, key: str) -> None:
        """A stage is over; one that never began was found done."""


class StudyProgress:
    """Stages by key with their expected seconds; those found done shrink the total."""

    def __init__(self, expected: Mapping[str, float | None], console: Console | None = None) -> None:
        self._weights = {key: UNKNOWN if seconds is None else seconds for key, seconds in expected.items()}
        self._shares: dict[str, float] = {}
        shown = console or Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
        times = (TimeElapsedColumn(), TextColumn("gone,"), TimeRemainingColumn(), TextColumn("left"))
        self._bar = Progress(
            *columns,
            *times,
            console=shown,
            disable=not shown.is_terminal,
            transient=True,
            speed_estimate_period=PACE,
        )
        self._task = self._bar.add_task("all", total=self.total)
        self._running: dict[str, TaskID] = {}

    @property
    def total(self) -> float:
        """Expected seconds of all stages that are not found done."""
        return sum(self._weights.values())

    @property
    def completed(self) -> float:
        """Expected seconds of what is done since the start."""
        return sum(self._weights[key] * share for key, share in self._shares.items())

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def begin(self, key: str) -> Move:
        self.take("begin", key)
        return lambda done, of: self.take("move", key, done / max(of, 1))

    def end(self, key: str) -> None:
        self.take("end", key)

    def take(self, what: Literal["begin", "move", "end"], key: str, share: float = 0.0) -> None:
        """One report on a stage: it begins, has reached ``share`` of its work, or ends."""
        if what == "end" and key not in self._shares:
            self._weights[key] = 0.0
        else:
            self._shares[key] = 1.0 if what == "end" else min(share, 1.0)
        self._show(what, key)
        self._bar.update(self._task, completed=self.completed, total=self.total)

    def _show(self, what: Literal["begin", "move", "end"], key: str) -> None:
        """Keep a bar for every stage that runs."""
        if what == "begin" and key not in self._running:
            self._running[key] = self._bar.add_task(key, total=1.0)
        if key in self._running:
            self._bar.update(self._running[key], completed=self._shares[key])
            if what == "end":
                self._bar.remove_task(self._running.pop(key))
