"""Shares of batches: the same results whatever the number of processes. Threads stand for the processes here."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from torch import distributed

from limit_lab.errors import EvalError
from limit_lab.model.team import ALONE, Team

BATCHES = [[4, 0], [3, 6], [1, 2], [5]]


def together(monkeypatch: pytest.MonkeyPatch, size: int, work: Callable[[Team], Any]) -> list[Any]:
    """What ``work`` gives each member of a team."""
    own, told, barrier = threading.local(), [None] * size, threading.Barrier(size, timeout=20)

    def gather(parts: list[Any], value: Any) -> None:
        told[own.rank] = value
        barrier.wait()
        parts[:] = told
        barrier.wait()

    def broadcast(values: list[Any], src: int) -> None:
        parts: list[Any] = [None] * size
        gather(parts, values[0])
        values[0] = parts[src]

    def member(rank: int) -> Any:
        own.rank = rank
        return work(Team(rank=rank, size=size))

    monkeypatch.setattr(distributed, "all_gather_object", gather)
    monkeypatch.setattr(distributed, "broadcast_object_list", broadcast)
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(member, range(size)))


@pytest.mark.parametrize("size", [2, 3, 5])
def test_every_process_ends_with_the_results_of_a_single_one(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    alone = ALONE.each(BATCHES, lambda batch: [index * 10 for index in batch])
    assert alone == {index: index * 10 for index in range(7)}
    seen: list[tuple[int, ...]] = []

    def work(team: Team) -> dict[int, int]:
        def ask(batch: Any) -> list[int]:
            seen.append(tuple(batch))
            return [index * 10 for index in batch]

        return team.each(BATCHES, ask)

    assert together(monkeypatch, size, work) == [alone] * size
    assert sorted(seen) == sorted(map(tuple, BATCHES)), "every batch whole, and by one process"


def test_progress_is_that_of_the_own_share(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(team: Team) -> list[tuple[int, int]]:
        moved: list[tuple[int, int]] = []
        team.each(BATCHES, lambda batch: batch, lambda done, of: moved.append((done, of)))
        return moved

    assert together(monkeypatch, 2, work) == [[(2, 4), (4, 4)], [(2, 3), (3, 3)]]
    assert work(ALONE) == [(2, 7), (4, 7), (6, 7), (7, 7)]


def test_processes_with_different_batches_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(team: Team) -> None:
        with pytest.raises(EvalError, match="the 2 processes of this evaluation made different batches"):
            team.each(BATCHES if team.first else BATCHES[::-1], lambda batch: batch)

    assert together(monkeypatch, 2, work) == [None, None]


def test_the_first_process_looks_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert together(monkeypatch, 3, lambda team: team.agreed(lambda: f"seen by {team.rank}")) == ["seen by 0"] * 3
