"""Facts and repetition in a sample of a source."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from limit_lab.config import Data, Source
from limit_lab.mixture.facts import fact_counts
from limit_lab.mixture.selection import draw
from limit_lab.mixture.sources import Row, read


def rows(*facts: str) -> list[Row]:
    """One row for each word, which states the facts that are its letters."""
    return [Row(index=i, prompt="p", response="r", facts=tuple(own), template=f"t{i % 2}") for i, own in enumerate(facts)]


def test_counts_of_a_sample_that_goes_on_after_its_last_fact() -> None:
    assert fact_counts(rows("a", "ab", "a", "cb", "", "a", "c"), rows("abc")) == {
        "distinct_facts": 3,
        "source_facts": 3,
        "distinct_templates": 2,
        "last_new_fact": 4,
        "repeated_rows": 3,
        "repetition": True,
    }


def test_a_sample_that_lacks_a_fact_is_no_repetition() -> None:
    found = fact_counts(rows("a", "b", "a", "a"), rows("a", "b", "c"))
    assert (found["last_new_fact"], found["repeated_rows"], found["repetition"]) == (2, 2, False)


def test_a_sample_that_ends_with_its_last_fact_is_no_repetition() -> None:
    found = fact_counts(rows("a", "a", "b"), rows("a", "b"))
    assert (found["last_new_fact"], found["repeated_rows"], found["repetition"]) == (3, 0, False)


def test_nothing_is_claimed_of_a_source_without_known_facts() -> None:
    found = fact_counts(rows("", "", ""), rows("", "", ""))
    assert found.pop("repetition") is False
    assert set(found.values()) == {None}


def test_a_sample_without_facts_of_a_source_that_has_some() -> None:
    found = fact_counts(rows("", ""), rows("", "", "a"))
    assert (found["distinct_facts"], found["last_new_fact"], found["repeated_rows"]) == (0, None, 2)
    assert found["repetition"] is False


@given(st.lists(st.text("abcd", max_size=3), min_size=1, max_size=12), st.integers(1, 12))
def test_repetition_begins_at_the_same_row_in_every_larger_sample(words: list[str], size: int) -> None:
    made = rows(*words)
    part, whole = fact_counts(made[:size], made), fact_counts(made, made)
    if part["repetition"]:
        assert whole["repetition"] or size >= len(made)
        assert whole["last_new_fact"] == part["last_new_fact"]
    elif part["distinct_facts"] is not None:
        assert part["distinct_facts"] < part["source_facts"] or part["last_new_fact"] == min(size, len(made))


def test_five_thousand_terse_rows_repeat_and_one_thousand_do_not() -> None:
    source = Data(name="micro", sources={"instruct": Source(kind="microworld")})
    made = read("instruct", source, world_seed=0).rows
    small, large = (fact_counts(draw(made, count, source="instruct", seed=0), made) for count in (1000, 5000))
    assert small["distinct_facts"] < small["source_facts"] == large["distinct_facts"]
    assert not small["repetition"]
    assert large["repetition"]
    assert 1000 < large["last_new_fact"] < 5000
    assert large["repeated_rows"] == 5000 - large["last_new_fact"]
