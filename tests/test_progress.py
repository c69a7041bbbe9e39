"""The bar of a study: shares of stages, and stages found done."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from limit_lab.progress import UNKNOWN, StudyProgress, by_part


def test_the_bar_counts_stages_by_their_expected_seconds() -> None:
    with StudyProgress({"a": 30.0, "b": 10.0, "c": None}) as progress:
        assert progress.total == 40 + UNKNOWN
        move = progress.begin("a")
        move(1, 3)
        assert progress.completed == pytest.approx(10)
        progress.end("a")
        assert progress.completed == pytest.approx(30)


def test_a_stage_found_done_counts_no_longer() -> None:
    progress = StudyProgress({"a": 30.0, "b": 10.0})
    progress.end("a")
    assert (progress.total, progress.completed) == (10, 0)
    progress.begin("b")(10, 10)
    progress.end("b")
    assert progress.completed == progress.total


def test_parts_of_a_stage_count_alike() -> None:
    seen: list[float] = []
    moved = by_part(lambda done, of: seen.append(done / of), ["x", "y"])
    moved("x", 1, 2)
    moved("x", 7, 7)
    moved("y", 3, 6)
    assert seen == [0.25, 0.5, 0.75]


def test_every_running_stage_has_a_bar_until_it_ends() -> None:
    out = io.StringIO()
    with StudyProgress({"a": 5.0, "b": 5.0}, Console(file=out, force_terminal=True, width=100)) as progress:
        progress.begin("a")(1, 4)
        progress.begin("b")(1, 2)
        progress.end("a")
        assert list(progress._running) == ["b"]
    shown = out.getvalue()
    assert "a " in shown
    assert "b " in shown


def test_a_log_gets_no_bar_and_a_terminal_gets_one() -> None:
    for terminal in (False, True):
        out = io.StringIO()
        with StudyProgress({"cell 1: answers": 5.0}, Console(file=out, force_terminal=terminal)) as progress:
            progress.begin("cell 1: answers")(1, 2)
        assert ("cell 1: answers" in out.getvalue()) == terminal
