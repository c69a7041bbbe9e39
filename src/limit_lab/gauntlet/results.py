"""Results of a task that is under way, kept a few batches at a time, so that a killed one goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from limit_lab import store
from limit_lab.fingerprints import fingerprint
from limit_lab.model.team import Team

R = TypeVar("R")

#: Batches of each process after which the results are kept.
BATCHES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The file of a task's results, whose first line names the ``inputs`` that they belong to.

    Each further line holds the results of some batches, by place. A line that a kill cut short does not count.
    """

    file: Path
    inputs: Mapping[str, Any]

    def read(self) -> dict[int, Any]:
        """The results so far; none where there are none of these inputs."""
        if not self.file.is_file():
            return {}
        first, *lines = self.file.read_text(encoding="utf-8").split("\n")[:-1] or [""]
        if first != fingerprint(self.inputs):
            return {}
        return {int(place): result for line in lines for place, result in json.loads(line).items()}

    def begin(self) -> None:
        """An empty file for these inputs."""
        store.write_text(self.file, fingerprint(self.inputs) + "\n")

    def add(self, found: Mapping[int, Any]) -> None:
        """Append results and wait for the disk. Raises: DataError when it refuses."""
        with store.writing(self.file), self.file.open("rb+") as file:
            file.seek(self._whole())
            file.write((json.dumps(found) + "\n").encode())
            file.truncate()
            file.flush()
            os.fsync(file.fileno())

    def _whole(self) -> int:
        """Bytes up to the end of the last whole line."""
        return self.file.read_bytes().rfind(b"\n") + 1


def each(
    team: Team,
    batches: Sequence[Sequence[int]],
    work: Callable[[Sequence[int]], Sequence[R]],
    restored: Callable[[Any], R],
    progress: Callable[[int, int], None] | None,
    results: Results | None,
) -> dict[int, R]:
    """`Team.each`, some batches at a time, whose results ``results`` keeps; what it holds already is not done again.

    Batches are those of an uninterrupted run. A result must be what JSON can hold; ``restored`` makes it of that again.
    """
    some = BATCHES * team.size
    if results is None or len(batches) <= some:
        return team.each(batches, work, progress)
    kept: dict[int, Any] = team.agreed(results.read)
    found = {place: restored(result) for place, result in kept.items()}
    if team.first and not found:
        results.begin()
    todo = [batch for batch in batches if any(place not in found for place in batch)]
    every = sum(map(len, batches))
    for start in range(0, len(todo), some):
        own = team.each(todo[start : start + some], work, _beyond(progress, len(found), every, team.size))
        found |= own
        if team.first:
            results.add(own)
    return found


def _beyond(
    progress: Callable[[int, int], None] | None, before: int, every: int, processes: int
) -> Callable[[int, int], None] | None:
    """Progress within a part, told as that of the whole."""
    if progress is None:
        return None
    return lambda done, _: progress(min(every, before + done * processes), every)
