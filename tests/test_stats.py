"""Intervals: what they contain, when they widen, and that pairing is exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limit_lab import stats
from limit_lab.errors import EvalError
from limit_lab.stats import Estimate, Sample, above, bootstrap, cluster_weights, combined, fieller, mean, student

scores = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=4, max_size=60)


@settings(max_examples=30, deadline=None)
@given(scores)
def test_an_interval_contains_the_mean_of_symmetric_data(values: list[float]) -> None:
    mirrored = values + [1 - value for value in values]
    found = mean(mirrored, [str(place) for place in range(len(mirrored))])
    assert found.value == pytest.approx(0.5)
    assert found.low <= 0.5 <= found.high


@settings(max_examples=30, deadline=None)
@given(scores)
def test_identical_samples_differ_by_exactly_zero(values: list[float]) -> None:
    clusters = [f"e{place % 5}" for place in range(len(values))]
    pair = {"left": Sample(values, clusters), "right": Sample(list(values), clusters)}
    found = bootstrap(pair, lambda means: means["left"] - means["right"])
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


@settings(max_examples=30, deadline=None)
@given(scores, st.randoms())
def test_the_order_of_items_does_not_matter(values: list[float], random: object) -> None:
    rows = [(value, f"e{place % 4}") for place, value in enumerate(values)]
    shuffled = sorted(rows, key=lambda _: random.random())
    one, other = (mean([value for value, _ in own], [cluster for _, cluster in own]) for own in (rows, shuffled))
    assert (one.low, one.high) == pytest.approx((other.low, other.high))


def test_items_that_move_together_widen_the_interval() -> None:
    values = [float(place % 2) for place in range(20) for _ in range(10)]
    apart = mean(values, [str(place) for place in range(200)])
    together = mean(values, [str(place // 10) for place in range(200)])
    assert together.high - together.low > 2.5 * (apart.high - apart.low)
    assert (together.n, together.clusters) == (200, 20)


def test_an_interval_has_the_width_that_theory_gives() -> None:
    values = [float(place < 200) for place in range(400)]
    found = mean(values, [str(place) for place in range(400)])
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * 0.5 / 20, rel=0.1)


def test_pairing_narrows_a_difference_of_correlated_samples() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=200)
    clusters = [str(place) for place in range(200)]
    left, right = Sample(list(base + 1), clusters), Sample(list(base + rng.normal(scale=0.1, size=200)), clusters)
    found = bootstrap({"left": left, "right": right}, lambda means: means["left"] - means["right"])
    alone = mean(left.scores, clusters)
    assert found.high - found.low < 0.2 * (alone.high - alone.low)


def test_blocks_give_the_same_draws_as_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(cluster_weights(7, draws=50)))
    monkeypatch.setattr(stats, "BLOCK", 20)
    parts = list(cluster_weights(7, draws=50))
    assert len(parts) > 10
    assert np.array_equal(np.concatenate(parts), whole)
    assert np.array_equal(whole.sum(axis=1), np.full(51, 7.0))


@pytest.mark.parametrize("sample", [Sample([], []), Sample([1.0], ["a", "b"])])
def test_an_estimate_needs_items_with_clusters(sample: Sample) -> None:
    with pytest.raises(EvalError, match="run the evaluation"):
        bootstrap({"x": sample}, lambda means: means["x"])


def test_a_statistic_without_values_is_an_error() -> None:
    with pytest.raises(EvalError, match="too few clusters"):
        bootstrap({"x": Sample([1.0], ["a"])}, lambda means: means["x"] * np.nan)


@pytest.mark.parametrize(
    ("threshold", "verdict"), [(0.3, "yes"), (0.4, "not determined"), (0.5, "not determined"), (0.6, "no")]
)
def test_verdicts_go_by_the_whole_interval(threshold: float, verdict: str) -> None:
    assert above(Estimate(0.5, 0.4, 0.6, 10, 10), threshold) == verdict


replicates = st.lists(st.tuples(st.floats(-1, 1), st.floats(2, 3)), min_size=3, max_size=8)


@settings(max_examples=60, deadline=None)
@given(replicates)
def test_the_ends_of_a_ratio_are_where_the_contrast_touches_zero(values: list[tuple[float, float]]) -> None:
    above_line, below_line = zip(*values, strict=True)
    try:
        ratio, low, high = fieller(above_line, below_line)
    except EvalError:
        return  # the denominator's own interval holds 0: checked below
    assert low - 1e-12 <= ratio <= high + 1e-12
    for end in (low, high):
        mean, left, right = student([a - end * b for a, b in values])
        assert min(abs(left), abs(right)) == pytest.approx(0, abs=1e-6 * max(1.0, abs(end), right - left))
        assert left - 1e-6 <= mean <= right + 1e-6


def test_a_ratio_over_nothing_has_no_bounds() -> None:
    with pytest.raises(EvalError, match="more replicates"):
        fieller([1.0, 2.0, 3.0], [0.1, -0.1, 0.05])


def test_students_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(2000):
        _, low, high = student(list(rng.normal(size=4)))
        held += low <= 0 <= high
    assert 0.935 < held / 2000 < 0.965
    with pytest.raises(EvalError, match="another seed or world"):
        student([1.0])


def test_independent_reaches_add_in_squares() -> None:
    assert combined(10.0, (7.0, 13.0), (6.0, 14.0)) == pytest.approx((5.0, 15.0))
    assert combined(1.0, (1.0, 1.0), (0.5, 2.0)) == pytest.approx((0.5, 2.0))
