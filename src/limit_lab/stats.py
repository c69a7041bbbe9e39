"""Intervals that say what they cover: cluster bootstrap, paired differences, and verdicts on predicates.

Every interval is a percentile bootstrap that resamples whole clusters (entities, prompts), so items that share an entity
are not counted as independent. It covers the choice of items only: not training, pretraining or data seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
LEVEL = 0.95
METHOD = "95 % percentile bootstrap over entities (items of one entity move together), given these trained models"

Verdict = Literal["yes", "no", "not determined"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval; ``n`` items in ``clusters`` clusters."""

    value: float
    low: float
    high: float
    n: int
    clusters: int

    def text(self, scale: float = 100.0, digits: int = 1) -> str:
        """``51.2 [48.9, 53.4]``, scaled to percent by default."""
        return f"{self.value * scale:.{digits}f} [{self.low * scale:.{digits}f}, {self.high * scale:.{digits}f}]"


def cluster_weights(clusters: Sequence[str], *, draws: int = DRAWS, seed: int = 0) -> tuple[list[str], NDArray[np.int64]]:
    """Bootstrap counts: the sorted cluster names, and how often each draw takes each of them, int64 [draws, clusters]."""
    names = sorted(set(clusters))
    rng = np.random.default_rng(seed)
    return names, rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)


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
    """
    every = [cluster for sample in samples.values() for cluster in sample.clusters]
    names, counts = cluster_weights(every, draws=draws, seed=seed)
    weights = np.vstack([np.ones((1, len(names)), dtype=np.int64), counts]).astype(np.float64)
    index = {name: position for position, name in enumerate(names)}
    means = {}
    for name, sample in samples.items():
        positions = np.array([index[cluster] for cluster in sample.clusters])
        total = np.bincount(positions, weights=np.asarray(sample.scores, dtype=np.float64), minlength=len(names))
        size = np.bincount(positions, minlength=len(names)).astype(np.float64)
        drawn = weights @ size
        with np.errstate(invalid="ignore"):
            means[name] = (weights @ total) / drawn
    values = statistic(means)
    spread = values[1:][np.isfinite(values[1:])]
    low, high = np.quantile(spread, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    n = max(len(sample.scores) for sample in samples.values())
    return Estimate(value=float(values[0]), low=float(low), high=float(high), n=n, clusters=len(names))


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
