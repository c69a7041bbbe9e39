"""Results that are kept on the way: a killed task goes on where it was, with the numbers of one that was not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limit_lab.gauntlet import results
from limit_lab.gauntlet.results import Results, each
from limit_lab.model.team import ALONE

BATCHES = [[place, place + 1] for place in range(0, 40, 2)]


def squares(kept: Results, die_at: int | None = None, seen: list[int] | None = None) -> dict[int, list[int]]:
    def work(batch: Sequence[int]) -> list[list[int]]:
        if die_at in batch:
            raise KeyboardInterrupt
        if seen is not None:
            seen.extend(batch)
        return [[place * place] for place in batch]

    return each(ALONE, BATCHES, work, list, None, kept)


@given(die_at=st.integers(0, 39), again=st.integers(0, 39))
def test_what_is_kept_is_not_done_again(die_at: int, again: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    kept = Results(file=tmp_path_factory.mktemp("kept") / "t.partial", inputs={"task": "t"})
    for at in (die_at, again):
        if at // 2 // results.BATCHES * results.BATCHES * 2 >= len(kept.read()):
            with pytest.raises(KeyboardInterrupt):
                squares(kept, at)
    before, seen = kept.read(), list[int]()
    assert len(before) >= die_at // 2 // results.BATCHES * results.BATCHES * 2
    assert squares(kept, seen=seen) == {place: [place * place] for place in range(40)}
    assert sorted([*before, *seen]) == list(range(40))


def test_a_line_that_was_cut_short_does_not_count(tmp_path: Path) -> None:
    kept = Results(file=tmp_path / "t.partial", inputs={"task": "t"})
    with pytest.raises(KeyboardInterrupt):
        squares(kept, 35)
    held = kept.read()
    with kept.file.open("a") as file:
        file.write('{"33": [10')
    assert kept.read() == held
    assert squares(kept) == {place: [place * place] for place in range(40)}
    assert kept.read() == {place: [place * place] for place in range(40)}


def test_other_inputs_begin_anew(tmp_path: Path) -> None:
    squares(Results(file=tmp_path / "t.partial", inputs={"rows": 3}))
    other = Results(file=tmp_path / "t.partial", inputs={"rows": 4})
    assert other.read() == {}
    seen: list[int] = []
    squares(other, seen=seen)
    assert len(seen) == 40


def test_a_short_task_writes_nothing(tmp_path: Path) -> None:
    kept = Results(file=tmp_path / "t.partial", inputs={})
    assert each(ALONE, [[0, 1]], lambda batch: [[place] for place in batch], list, None, kept) == {0: [0], 1: [1]}
    assert not kept.file.exists()


def test_progress_is_that_of_the_whole(tmp_path: Path) -> None:
    kept, told = Results(file=tmp_path / "t.partial", inputs={}), list[tuple[int, int]]()
    each(ALONE, BATCHES, lambda batch: [[place] for place in batch], list, lambda *step: told.append(step), kept)
    assert told == [(done, 40) for done in range(2, 41, 2)]
