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


def test_every_draw_takes_as_many_clusters_as_there_are() -> None:
    whole = np.concatenate(list(cluster_weights(7, draws=50)))
    assert np.array_equal(whole.sum(axis=1), np.full(51, 7.0))
    assert not np.array_equal(whole, np.concatenate(list(cluster_weights(7, draws=50, stream=1))))


def test_many_clusters_are_drawn_by_their_kinds_to_the_same_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passages of one to three questions, some right: one by one, by kinds, and by kinds in small blocks."""
    rng = np.random.default_rng(3)
    clusters = [str(place) for place in range(400) for _ in range(place % 3 + 1)]
    values = [float(one) for one in rng.random(len(clusters)) < 0.4]
    single = mean(values, clusters)
    monkeypatch.setattr(stats, "MANY", 10)
    together = mean(values, clusters)
    monkeypatch.setattr(stats, "BLOCK", 100)
    blocks = mean(values, clusters)
    assert (together.value, together.n, together.clusters) == (single.value, single.n, single.clusters)
    for one in (together, blocks):
        assert one.error == pytest.approx(single.error, rel=0.06)
        assert (one.low, one.high) == pytest.approx((single.low, single.high), abs=0.15 * single.error)


def test_tasks_without_a_cluster_in_common_are_resampled_by_themselves() -> None:
    """Every draw keeps the number of clusters of each task, so a task of two items never loses both."""
    samples = {"a": Sample([1.0, 0.0], ["a0", "a1"]), "b": Sample([1.0] * 50 + [0.0] * 50, [f"b{n}" for n in range(100)])}
    found: list[np.ndarray] = []

    def kept(means: object) -> np.ndarray:
        found.extend([means["a"], means["b"]])
        return (means["a"] + means["b"]) / 2

    joint = bootstrap(samples, kept)
    assert set(found[0]) == {0.0, 0.5, 1.0}
    assert abs(np.corrcoef(found[0][1:], found[1][1:])[0, 1]) < 0.08
    assert joint.error == pytest.approx((0.125 + 0.0025) ** 0.5 / 2, rel=0.05)
    assert joint.clusters == 102
    linked = bootstrap({**samples, "c": Sample([1.0, 0.0], ["a0", "b7"])}, lambda means: means["a"])
    assert linked.clusters == 102


@settings(max_examples=20, deadline=None)
@given(st.integers(20, 300), st.integers(5, 95))
def test_the_standard_error_is_the_one_that_theory_gives(count: int, percent: int) -> None:
    right = max(3, min(count - 3, count * percent // 100))
    found = mean([1.0] * right + [0.0] * (count - right), [str(place) for place in range(count)])
    share = right / count
    assert found.error == pytest.approx((share * (1 - share) / count) ** 0.5, rel=0.1)


def test_errors_of_replicates_with_worked_numbers() -> None:
    assert stats.standard_error([1.0, 2.0, 3.0]) == pytest.approx(1 / 3**0.5)
    assert stats.ratio_error([2.0, 4.0, 6.0], [1.0, 2.0, 3.0]) == pytest.approx(0.0)
    assert stats.ratio_error([1.0, 2.0, 3.0], [4.0, 4.0, 4.0]) == pytest.approx(1 / 3**0.5 / 4)
    with pytest.raises(EvalError, match="another seed or world"):
        stats.standard_error([1.0])


def test_the_smallest_detectable_difference() -> None:
    """1,000 items at 50 % in each of two models: 0.5 * sqrt(2 / 1000) * 2.80 = 6.3 points, found four times in five."""
    error = 0.5 * (2 / 1000) ** 0.5
    assert stats.detectable(error) == pytest.approx(0.06264, abs=1e-5)
    drawn = np.random.default_rng(0).normal(stats.detectable(error), error, size=20_000)
    assert np.mean(np.abs(drawn) > 1.959964 * error) == pytest.approx(0.8, abs=0.01)


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
    assert above(Estimate(0.5, 0.4, 0.6, 10, 10, 0.05), threshold) == verdict


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
