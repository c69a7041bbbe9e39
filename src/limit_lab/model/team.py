"""The processes that ask one model together: each does its share of the batches, and all end with the results of all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from limit_lab.errors import EvalError
from limit_lab.fingerprints import fingerprint

R = TypeVar("R")

#: A share may take hours longer than another; a process that died is noticed by who started it, not by waiting.
PATIENCE = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """This process is ``rank`` of ``size``; more than one meet in torch's process group, which must be there.

    The batches are those of a single process, each done whole by one process, so that every result is the same to the bit on
    devices (and, on CPUs, thread numbers) that compute alike; only the first process writes.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def each(
        self,
        batches: Sequence[Sequence[int]],
        work: Callable[[Sequence[int]], Sequence[R]],
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[int, R]:
        """The result of every index in ``batches``; ``work`` gives those of one batch, in its order.

        Batch by batch goes to the next process, so batches in order of length make shares that are alike in length.
        ``progress`` gets the indices done and to do of this process. Raises: EvalError when the processes' batches differ.
        """
        share = batches[self.rank :: self.size]
        todo, done, own = sum(len(batch) for batch in share), 0, []
        for batch in share:
            own.append(list(work(batch)))
            done += len(batch)
            if progress is not None:
                progress(done, todo)
        found: dict[int, R] = {}
        for batch, results in zip(batches, self._gathered(batches, own), strict=True):
            found.update(zip(batch, results, strict=True))
        return found

    def agreed(self, look: Callable[[], R]) -> R:
        """What the first process finds, for all: several machines need not see a file at the same time."""
        if self.size == 1:
            return look()
        from torch import distributed

        found: list[Any] = [look() if self.first else None]
        distributed.broadcast_object_list(found, src=0)
        told: R = found[0]
        return told

    def _gathered(self, batches: Sequence[Sequence[int]], own: list[list[Any]]) -> list[list[Any]]:
        """The results of all batches, in their order."""
        if self.size == 1:
            return own
        from torch import distributed

        parts: list[Any] = [None] * self.size
        distributed.all_gather_object(parts, (fingerprint(batches), own))
        if len({mark for mark, _ in parts}) > 1:
            raise EvalError(
                f"the {self.size} processes of this evaluation made different batches: give all machines the same model, data "
                "and version of limit_lab."
            )
        return [parts[place % self.size][1][place // self.size] for place in range(len(batches))]


#: A single process.
ALONE = Team()
