"""One bar for a whole study: which stage runs, how far it is, and about how long the rest takes.

The bar stands on the terminal only; a log keeps the lines that the stages print.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

#: Called with the work done and the work there is, in any unit.
Move = Callable[[int, int], None]

#: Weight in seconds of a stage whose length the configuration does not tell.
UNKNOWN = 60.0


def by_part(move: Move, parts: Sequence[str]) -> Callable[[str, int, int], None]:
    """Progress inside a named part of a stage, as progress of the stage; all parts count alike."""

    def moved(part: str, done: int, of: int) -> None:
        move(parts.index(part) * 1000 + 1000 * done // max(of, 1), 1000 * len(parts))

    return moved


class StudyProgress:
    """Stages by key with their expected seconds; those found done shrink the total."""

    def __init__(self, expected: Mapping[str, float | None], console: Console | None = None) -> None:
        self._weights = {key: UNKNOWN if seconds is None else seconds for key, seconds in expected.items()}
        self._done = 0.0
        self._begun = ""
        shown = console or Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
        times = (TimeElapsedColumn(), TextColumn("gone,"), TimeRemainingColumn(), TextColumn("left"))
        self._bar = Progress(*columns, *times, console=shown, disable=not shown.is_terminal, transient=True)
        self._task = self._bar.add_task("", total=self.total)

    @property
    def total(self) -> float:
        """Expected seconds of all stages that are not found done."""
        return sum(self._weights.values())

    @property
    def completed(self) -> float:
        return self._bar.tasks[0].completed

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def begin(self, key: str) -> Move:
        """A stage starts; the returned function moves the bar through it."""
        self._begun = key
        self._bar.update(self._task, description=key)

        def move(done: int, of: int) -> None:
            self._bar.update(self._task, completed=self._done + self._weights[key] * min(done / max(of, 1), 1.0))

        return move

    def end(self, key: str) -> None:
        """A stage is over; one that never began was found done and counts no longer."""
        if self._begun == key:
            self._done += self._weights[key]
        else:
            self._weights[key] = 0.0
        self._bar.update(self._task, completed=self._done, total=self.total)
