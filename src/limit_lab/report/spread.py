"""A quantity over replicates: its mean, with an interval over worlds, over seeds and items, or over items alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from limit_lab.errors import EvalError
from limit_lab.report.arms import Arm, Comparison, Replicate
from limit_lab.report.quantities import Quantity, constant, mean_of
from limit_lab.report.records import Cell, Pair
from limit_lab.stats import Estimate, combined, fieller, ratio_error, standard_error, student


@dataclass(frozen=True, slots=True)
class Spread:
    """One quantity for every replicate that has it."""

    parts: Mapping[Replicate, Quantity]

    def __sub__(self, other: Spread) -> Spread:
        return self.with_(other, lambda mine, theirs: mine - theirs)

    def with_(self, other: Spread, join: Callable[[Any, Any], Any]) -> Spread:
        """Both joined replicate by replicate, seed against seed; the untouched base meets every seed of its world.

        Without a seed in common, world by world. Raises: EvalError when they have no world in common either.
        """
        joined = {
            max(one, two): mine.with_(theirs, join)
            for one, mine in self.parts.items()
            for two, theirs in other.parts.items()
            if one.meets(two)
        }
        if joined:
            return Spread(joined)
        mine, theirs = self.by_world(), other.by_world()
        if not mine.keys() & theirs.keys():
            raise EvalError("cells without a world in common cannot be compared: report their studies apart.")
        return Spread({key: mine[key].with_(theirs[key], join) for key in mine if key in theirs})

    def estimate(self) -> Estimate:
        """The mean over worlds of the means over seeds, with its interval.

        One replicate: the bootstrap over its items. Several worlds: Student's t over them, which have items of their own.
        One world, several seeds: the reaches of Student's t over seeds and of the bootstrap over the items they share,
        added in squares.
        """
        if len(self.parts) == 1:
            return next(iter(self.parts.values())).estimate()
        worlds = self.worlds()
        if len(worlds) > 1:
            values = list(worlds.values())
            return _over_worlds(student(values), standard_error(values), len(worlds), self.items)
        items, points = mean_of(list(self.parts.values())).estimate(), self.points()
        return _over_seeds(items, student(points)[1:], standard_error(points), len(points))

    def share_of(self, whole: Spread) -> Estimate:
        """This gain as a share of ``whole``, whose own interval lies above 0; a draw without a gain counts as nothing kept."""
        ratio = self.with_(whole, lambda mine, all_: np.where(all_ > 0, mine / np.where(all_ > 0, all_, 1.0), 0.0))
        if len(ratio.parts) == 1:
            return ratio.estimate()
        mine, all_ = self.at(ratio.parts), whole.at(ratio.parts)
        if len(mine.worlds()) > 1:
            values = list(mine.worlds().values()), list(all_.worlds().values())
            return _over_worlds(fieller(*values), ratio_error(*values), len(mine.worlds()), ratio.items)
        means = [Spread({Replicate(-1, -1, -1): mean_of(list(one.parts.values()))}) for one in (mine, all_)]
        points = mine.points(), all_.points()
        return _over_seeds(means[0].share_of(means[1]), fieller(*points)[1:], ratio_error(*points), len(mine.parts))

    def by_world(self) -> dict[Replicate, Quantity]:
        """The mean over the seeds of every world."""
        own: dict[int, list[Quantity]] = {}
        for key, part in self.parts.items():
            own.setdefault(key.world, []).append(part)
        return {Replicate(world, -1, -1): mean_of(parts) for world, parts in own.items()}

    def at(self, replicates: Mapping[Replicate, Any]) -> Spread:
        """The parts that meet the given replicates, once for each of them."""
        return Spread({key: part for key in replicates for own, part in self.parts.items() if own.meets(key)})

    def points(self) -> list[float]:
        return [part.point() for part in self.parts.values()]

    def worlds(self) -> dict[int, float]:
        """The mean over seeds in every world."""
        values: dict[int, list[float]] = {}
        for key, point in zip(self.parts, self.points(), strict=True):
            values.setdefault(key.world, []).append(point)
        return {world: float(np.mean(own)) for world, own in values.items()}

    @property
    def items(self) -> int:
        return sum(len(sample.scores) for part in self.parts.values() for sample in part.samples.values())


def over_cells(arm: Arm, quantity: Callable[[Cell], Quantity]) -> Spread:
    return Spread({key: quantity(cell) for key, cell in arm.cells.items()})


def over_pairs(comparison: Comparison, quantity: Callable[[Pair], Quantity]) -> Spread:
    return Spread({key: quantity(pair) for key, pair in comparison.pairs.items()})


def fixed(value: float, like: Sequence[Replicate]) -> Spread:
    """A constant at the given replicates."""
    return Spread({key: constant(value) for key in like})


def _over_worlds(found: tuple[float, float, float], error: float, worlds: int, items: int) -> Estimate:
    value, low, high = found
    return Estimate(value=value, low=low, high=high, n=items, clusters=worlds, error=error, basis="worlds", replicates=worlds)


def _over_seeds(items: Estimate, seeds: tuple[float, float], error: float, count: int) -> Estimate:
    low, high = combined(items.value, (items.low, items.high), seeds)
    return replace(items, low=low, high=high, error=math.hypot(items.error, error), basis="seeds", replicates=count)
