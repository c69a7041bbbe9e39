"""First-fit packing and nested selection."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limit_lab.errors import DataError
from limit_lab.mixture.packing import first_fit
from limit_lab.mixture.selection import draw
from limit_lab.mixture.sources import Row

ROWS = [Row(index=index, prompt=f"p{index}", response="r") for index in range(50)]


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(40, 90))
def test_every_document_is_packed_once_and_no_row_overflows(lengths: list[int], capacity: int) -> None:
    rows = first_fit(lengths, capacity)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= capacity for row in rows)


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(40, 90))
def test_every_document_goes_into_the_first_row_with_room(lengths: list[int], capacity: int) -> None:
    rows: list[list[int]] = []
    for index, length in enumerate(lengths):
        room = [capacity - sum(lengths[other] for other in row) >= length for row in rows]
        if not any(room):
            rows.append([])
        rows[[*room, True].index(True)].append(index)
    assert first_fit(lengths, capacity) == rows


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_no_two_rows_would_fit_into_one(lengths: list[int]) -> None:
    totals = [sum(lengths[index] for index in row) for row in first_fit(lengths, 40)]
    assert all(first + second > 40 for place, first in enumerate(totals) for second in totals[place + 1 :])


def test_a_document_that_is_too_long_is_refused_with_both_numbers() -> None:
    with pytest.raises(DataError, match=r"41 tokens and a pack holds 40"):
        first_fit([3, 41], 40)


@given(st.integers(1, 49), st.integers(0, 5))
def test_smaller_draws_are_prefixes_of_larger_ones(count: int, seed: int) -> None:
    assert draw(ROWS, count, source="x", seed=seed) == draw(ROWS, 50, source="x", seed=seed)[:count]


def test_draws_depend_on_seed_and_source() -> None:
    assert draw(ROWS, 50, source="x", seed=0) != draw(ROWS, 50, source="x", seed=1)
    assert draw(ROWS, 50, source="x", seed=0) != draw(ROWS, 50, source="y", seed=0)


def test_asking_for_more_than_there_is_names_both_numbers() -> None:
    with pytest.raises(DataError, match=r"mixture.samples.x=51 asks for more than the 50"):
        draw(ROWS, 51, source="x", seed=0)
