"""How much the judge's order of cells owes to its weights: by full score, by facts alone, under random weightings."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from limit_lab.report.arms import Comparison
from limit_lab.report.quantities import facts_preference
from limit_lab.report.scores import has_facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """Cells from most to least preferred against one baseline, which stands among them at one half.

    ``same`` is the share of random weightings with the whole order of the full score, ``steps`` that share for each
    neighbouring couple of it, ``sides`` for each cell the share that puts it on the same side of the baseline, and
    ``ranges`` the lowest and highest rate of each cell under any weighting. Items are held fixed throughout.
    """

    baseline: str
    judge: str
    full: Sequence[str]
    facts: Sequence[str]
    weightings: int
    same: float
    steps: Sequence[float]
    sides: Mapping[str, float]
    ranges: Mapping[str, tuple[float, float]]


def orders(pairs: Sequence[Comparison]) -> list[Orders]:
    """One `Orders` for each judge and baseline whose items carry facts and random weightings."""
    grouped: dict[tuple[str, str], list[Comparison]] = {}
    for pair in pairs:
        if has_facts(pair) and all(item.get("random") for item in pair.items):
            grouped.setdefault((pair.judge, pair.baseline.name), []).append(pair)
    return [_orders(judge, baseline, found) for (judge, baseline), found in grouped.items()]


def _orders(judge: str, baseline: str, pairs: Sequence[Comparison]) -> Orders:
    full = {baseline: 0.5} | {pair.cell.name: _mean([item["preference"] for item in pair.items]) for pair in pairs}
    facts = {baseline: 0.5} | {pair.cell.name: _mean([facts_preference(item) for item in pair.items]) for pair in pairs}
    draws = min(len(item["random"]) for pair in pairs for item in pair.items)
    random: dict[str, NDArray[np.float64]] = {baseline: np.full(draws, 0.5)}
    for pair in pairs:
        random[pair.cell.name] = np.array([item["random"][:draws] for item in pair.items], dtype=np.float64).mean(axis=0)
    order = _ranked(full)
    steps = [random[better] > random[worse] for better, worse in itertools.pairwise(order)]
    return Orders(
        baseline=baseline,
        judge=judge,
        full=order,
        facts=_ranked(facts),
        weightings=draws,
        same=float(np.all(steps, axis=0).mean()),
        steps=[float(step.mean()) for step in steps],
        sides={name: _side(values, full[name]) for name, values in random.items() if name != baseline},
        ranges={name: (float(values.min()), float(values.max())) for name, values in random.items() if name != baseline},
    )


def _side(values: NDArray[np.float64], rate: float) -> float:
    return float((np.sign(values - 0.5) == np.sign(rate - 0.5)).mean())


def _ranked(rates: Mapping[str, float]) -> list[str]:
    return sorted(rates, key=lambda name: (-rates[name], name))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(np.asarray(values, dtype=np.float64)))
