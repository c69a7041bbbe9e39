"""Intervals that say what they cover: items by a cluster bootstrap, replicates by Student's t, and verdicts on predicates.

The bootstrap resamples whole clusters (entities, prompts), so items that share an entity are not counted as independent; it
covers the choice of items only. Replicates (worlds, seeds) are few, so their interval is Student's: it is exact for
normal values and, unlike a bootstrap of four, not far too narrow.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from limit_lab.errors import EvalError

DRAWS = 2000
#: Draws x kinds of clusters that are held in memory at once (32 MiB).
BLOCK = 2**22
LEVEL = 0.95
#: How often a difference of the size that is called detectable is found.
POWER = 0.8
#: More clusters than these are drawn by their kinds, those with equal contents together.
MANY = 512
Verdict = Literal["yes", "no", "not determined"]

#: What an interval covers: other items; other training or subset seeds and items; other worlds with all that is in them.
Basis = Literal["items", "seeds", "worlds"]

METHODS: dict[Basis, str] = {
    "items": "95 % percentile bootstrap over entities or prompts (items that share one move together), given these models",
    "seeds": "95 %: Student's t over seeds and a bootstrap over the items they share, the two reaches added in squares",
    "worlds": "95 % Student's t over worlds, each the mean of its seeds",
}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval and standard ``error`` over ``n`` items in ``clusters``, or ``replicates`` seeds or worlds."""

    value: float
    low: float
    high: float
    n: int
    clusters: int
    error: float
    basis: Basis = "items"
    replicates: int = 1

    def text(self, scale: float = 100.0, digits: int = 1) -> str:
        """``51.2 [48.9, 53.4]``, scaled to percent by default."""
        return f"{self.value * scale:.{digits}f} {self._interval(scale, digits)}"

    def full(self, scale: float = 100.0, digits: int = 1) -> str:
        """``51.2 ± 1.2 [48.9, 53.4]``: with the standard error before the interval."""
        return f"{self.value * scale:.{digits}f} ± {self.error * scale:.{digits}f} {self._interval(scale, digits)}"

    def _interval(self, scale: float, digits: int) -> str:
        return f"[{self.low * scale:.{digits}f}, {self.high * scale:.{digits}f}]"


@functools.lru_cache(maxsize=16)
def _cached(clusters: int, draws: int, seed: int, stream: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed if stream == 0 else [seed, stream])
    taken = rng.integers(clusters, size=(draws, clusters)) + clusters * np.arange(draws)[:, None]
    return np.bincount(taken.ravel(), minlength=draws * clusters).reshape(draws, clusters).astype(np.float64)


def cluster_weights(clusters: int, *, draws: int = DRAWS, seed: int = 0, stream: int = 0) -> Iterator[NDArray[np.float64]]:
    """How often each draw takes every cluster, the data itself first (ones): blocks [rows, clusters].

    Groups of samples that move apart take different ``stream`` numbers.
    """
    yield np.ones((1, clusters))
    yield _cached(clusters, draws, seed, stream)


@dataclass(frozen=True, slots=True)
class Sample:
    """Scores of items and the cluster of each: two aligned sequences."""

    scores: Sequence[float]
    clusters: Sequence[str]


def bootstrap(
    samples: Mapping[str, Sample],
    statistic: Callable[[Mapping[str, NDArray[np.float64]]], NDArray[np.float64]],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Estimate:
    """Estimate ``statistic`` of the means of several samples, resampling the clusters they share once for all of them.

    ``statistic`` maps each sample's means, float64 [draws + 1], to values of the same shape; entry 0 is the data itself.
    Sharing the draws keeps paired comparisons paired: two models on the same items use the same resampled entities.
    Samples that share no cluster, such as two tasks, are resampled each within itself. A draw that leaves a sample
    without items has no value and does not count.

    Raises: EvalError for a sample without items, or when no draw has a value.
    """
    means: dict[str, NDArray[np.float64]] = {}
    count = 0
    for stream, names in enumerate(_linked(samples)):
        clusters, own = _resampled({name: samples[name] for name in names}, draws, seed, stream)
        means |= own
        count += clusters
    values = statistic(means)
    spread = values[1:][np.isfinite(values[1:])]
    if not spread.size:
        raise EvalError(
            "no resampled draw gives a value: the items lie in too few clusters for an interval; evaluate more of them."
        )
    low, high = np.quantile(spread, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    n = max(len(sample.scores) for sample in samples.values())
    return Estimate(value=float(values[0]), low=float(low), high=float(high), n=n, clusters=count, error=float(spread.std()))


def _linked(samples: Mapping[str, Sample]) -> list[list[str]]:
    """Names of samples in groups: those that share a cluster, be it through others, stand together."""
    groups: list[tuple[list[str], set[str]]] = []
    for name, sample in samples.items():
        names, clusters = [name], set(sample.clusters)
        for group in [group for group in groups if not clusters.isdisjoint(group[1])]:
            groups.remove(group)
            names, clusters = group[0] + names, group[1] | clusters
        groups.append((names, clusters))
    return [names for names, _ in groups]


def _resampled(samples: Mapping[str, Sample], draws: int, seed: int, stream: int) -> tuple[int, dict[str, NDArray[np.float64]]]:
    """The number of clusters, and the mean of every sample in the data and in every draw, float64 [draws + 1]."""
    names = sorted({cluster for sample in samples.values() for cluster in sample.clusters})
    index = {name: position for position, name in enumerate(names)}
    sums = np.concatenate([_sums(sample, index) for sample in samples.values()])
    if len(names) > MANY:
        kinds, counts = np.unique(sums, axis=1, return_counts=True)
        blocks = _by_kind(kinds, counts, draws, [seed, stream])
    else:
        blocks = (weights @ sums.T for weights in cluster_weights(len(names), draws=draws, seed=seed, stream=stream))
    drawn = np.concatenate(list(blocks))
    with np.errstate(invalid="ignore"):
        return len(names), {name: drawn[:, 2 * at] / drawn[:, 2 * at + 1] for at, name in enumerate(samples)}


def _by_kind(
    kinds: NDArray[np.float64], counts: NDArray[np.int64], draws: int, seed: Sequence[int]
) -> Iterator[NDArray[np.float64]]:
    """Sums over the clusters of every draw, the data itself first: blocks [rows, sums].

    ``kinds`` [sums, kinds] tells what a cluster of each kind adds. How many of each kind a draw takes is multinomial,
    exactly as if the clusters were drawn one by one.
    """
    yield (kinds @ counts)[None, :]
    rng, total = np.random.default_rng(seed), int(counts.sum())
    rows = max(1, BLOCK // len(counts))
    for start in range(0, draws, rows):
        yield rng.multinomial(total, counts / total, size=min(rows, draws - start)) @ kinds.T


def _sums(sample: Sample, index: Mapping[str, int]) -> NDArray[np.float64]:
    """Sum of scores and number of items of every cluster, float64 [2, clusters]."""
    if not len(sample.scores) or len(sample.scores) != len(sample.clusters):
        raise EvalError(
            f"an estimate needs items, each with its cluster, but found {len(sample.scores)} scores and "
            f"{len(sample.clusters)} clusters: run the evaluation that writes them again."
        )
    positions = np.array([index[cluster] for cluster in sample.clusters])
    total = np.bincount(positions, weights=np.asarray(sample.scores, dtype=np.float64), minlength=len(index))
    return np.stack([total, np.bincount(positions, minlength=len(index)).astype(np.float64)])


def mean(scores: Sequence[float], clusters: Sequence[str], *, seed: int = 0) -> Estimate:
    """Mean of item scores with its cluster-bootstrap interval."""
    return bootstrap({"x": Sample(scores, clusters)}, lambda means: means["x"], seed=seed)


def above(estimate: Estimate, threshold: float) -> Verdict:
    """``yes`` when the whole interval exceeds ``threshold``, ``no`` when none of it does, else ``not determined``."""
    if estimate.low > threshold:
        return "yes"
    if estimate.high <= threshold:
        return "no"
    return "not determined"


def student(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and ends of its 95 % t interval over independent replicates. Raises: EvalError for fewer than two values."""
    data = np.asarray(values, dtype=np.float64)
    reach = _critical(len(data)) * float(data.std(ddof=1)) / len(data) ** 0.5
    mean = float(data.mean())
    return mean, mean - reach, mean + reach


def fieller(numerators: Sequence[float], denominators: Sequence[float]) -> tuple[float, float, float]:
    """Ratio of two means over the same replicates, and the ends of its 95 % interval (Fieller 1954).

    The interval holds every ratio r for which the t interval of ``numerator - r * denominator`` contains 0.
    Raises: EvalError when the denominator's own interval contains 0, which leaves the ratio without bounds.
    """
    above_line, below_line = (np.asarray(values, dtype=np.float64) for values in (numerators, denominators))
    count = len(above_line)
    square = _critical(count) ** 2 / count
    (s_aa, s_ab), (_, s_bb) = np.cov(above_line, below_line)
    a, b = float(above_line.mean()), float(below_line.mean())
    leading = b * b - square * s_bb
    if leading <= 0:
        raise EvalError("a ratio has no bounds while its denominator may be 0: more replicates are needed.")
    middle, last = a * b - square * s_ab, a * a - square * s_aa
    reach = max(middle * middle - leading * last, 0.0) ** 0.5
    return a / b, float((middle - reach) / leading), float((middle + reach) / leading)


def _critical(count: int) -> float:
    if count < 2:
        raise EvalError(f"an interval over replicates needs two or more and found {count}: run another seed or world.")
    return float(stdtrit(count - 1, (1 + LEVEL) / 2))


def combined(value: float, *intervals: tuple[float, float]) -> tuple[float, float]:
    """Ends of an interval whose reach on either side is the root of the summed squares of independent reaches."""
    low = sum((value - one) ** 2 for one, _ in intervals) ** 0.5
    high = sum((one - value) ** 2 for _, one in intervals) ** 0.5
    return value - low, value + high


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the mean of independent replicates. Raises: EvalError for fewer than two values."""
    _critical(len(values))
    return float(np.std(np.asarray(values, dtype=np.float64), ddof=1) / np.sqrt(len(values)))


def ratio_error(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Standard error of a ratio of two means over the same replicates, to first order."""
    ratio = float(np.mean(numerators) / np.mean(denominators))
    rest = [above_line - ratio * below_line for above_line, below_line in zip(numerators, denominators, strict=True)]
    return standard_error(rest) / abs(float(np.mean(denominators)))


def detectable(error: float) -> float:
    """The smallest difference with this standard error that a two-sided test at 5 % finds with a power of 80 %.

    ``(z(0.975) + z(0.8)) * error`` = 2.80 standard errors, for differences that are about normal.
    """
    return float(ndtri((1 + LEVEL) / 2) + ndtri(POWER)) * error
