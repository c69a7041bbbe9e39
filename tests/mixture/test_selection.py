"""Selection: nested, repeatable, without repeats, and never more than there is."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limit_lab.errors import DataError
from limit_lab.mixture.selection import draw, held_out
from limit_lab.mixture.sources import Row

SIZES = st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(0, n)))
NAMES = st.text(min_size=1, max_size=8)
SEEDS = st.integers(0, 10**6)


def rows(n: int) -> list[Row]:
    return [Row(index=index, prompt=f"p{index}", response="r") for index in range(n)]


@given(SIZES, NAMES, SEEDS)
def test_draws_are_nested(sizes: tuple[int, int, int], source: str, seed: int) -> None:
    n, one, other = sizes
    small, large = (draw(rows(n), count, source=source, seed=seed) for count in sorted((one, other)))
    assert large[: len(small)] == small


@given(SIZES, NAMES, SEEDS)
def test_draws_are_repeatable_unique_and_of_the_size_asked_for(sizes: tuple[int, int, int], source: str, seed: int) -> None:
    n, count, _ = sizes
    drawn = draw(rows(n), count, source=source, seed=seed)
    assert drawn == draw(rows(n), count, source=source, seed=seed)
    assert len({row.index for row in drawn}) == len(drawn) == count
    assert {row.index for row in drawn} <= set(range(n))


@given(SIZES, NAMES, SEEDS)
def test_rows_are_held_out_from_the_other_end_of_the_permutation(sizes: tuple[int, int, int], source: str, seed: int) -> None:
    n, drawn, count = sizes
    whole = draw(rows(n), n, source=source, seed=seed)
    apart = held_out(rows(n), count, drawn=drawn, source=source, seed=seed)
    assert apart == whole[drawn:][::-1][:count]


def test_a_row_that_repeats_a_drawn_one_is_not_held_out() -> None:
    same = [Row(index=index, prompt="p", response="r") for index in range(9)]
    assert held_out(same, 5, drawn=1, source="x", seed=0) == []
    assert len(held_out(same, 5, drawn=0, source="x", seed=0)) == 5


@given(st.integers(0, 30), st.integers(1, 9), SEEDS)
def test_asking_for_too_many_names_source_and_both_numbers(n: int, more: int, seed: int) -> None:
    with pytest.raises(DataError, match=rf"mixture.samples.mine={n + more} asks for more than the {n} usable rows of 'mine'"):
        draw(rows(n), n + more, source="mine", seed=seed)


def test_draws_are_pinned() -> None:
    """A published mixture names its rows by seed: another permutation would be other data under the same name."""
    assert [row.index for row in draw(rows(100), 6, source="lima", seed=0)] == [27, 90, 21, 87, 85, 94]


def test_every_row_is_as_likely_first() -> None:
    firsts = Counter(draw(rows(5), 1, source="x", seed=seed)[0].index for seed in range(1000))
    assert sorted(firsts) == [0, 1, 2, 3, 4]
    assert all(150 < count < 250 for count in firsts.values())
