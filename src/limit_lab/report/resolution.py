"""What a suite can tell: which tasks its average owes its noise to, and how small a difference it finds.

Standard errors come from the influence of every cluster of items on a score (the linear form of the cluster bootstrap),
so they cost one pass over the items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from limit_lab.report.chance import item_weights
from limit_lab.report.records import Cell, Suite, Task
from limit_lab.stats import detectable

AVERAGE = "average"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """How finely one score is known: a task's accuracy, or a category or the average, which are rescaled; shares of 1.

    ``error``: its standard error in a typical cell (root of the mean variance). ``share``: of the variance of the average, None
    outside it. ``paired`` and ``unpaired``: the smallest difference between two cells that a two-sided test at 5 % finds with a
    power of 80 %, where both answer the same items (mean over all couples of cells that do; None without one) and where each
    answers items of its own. They cover the choice of items only, and are None where no item tells cells apart.
    """

    error: float
    share: float | None
    paired: float | None
    unpaired: float | None


@dataclass(slots=True)
class _Sums:
    """Squared influences: of cells, and of the differences of couples of cells that answer the same items."""

    cells: int = 0
    squares: float = 0.0
    couples: float = 0.0
    squared_differences: float = 0.0
    shared: float = 0.0  # products with the influence on the average

    def add(self, influence: NDArray[np.float64], average: NDArray[np.float64] | None) -> None:
        """``influence`` [cells, clusters] of one score, already weighted as in the ``average`` [cells, clusters] if given."""
        count = len(influence)
        self.cells += count
        self.squares += float((influence**2).sum())
        self.couples += count * (count - 1) / 2
        self.squared_differences += count * float(((influence - influence.mean(axis=0)) ** 2).sum())
        if average is not None:
            self.shared += float((influence * average).sum())

    def resolution(self, whole: float | None, scale: float) -> Resolution:
        """``whole``: the summed variance of the average; ``scale`` undoes the weighting."""
        variance = self.squares / self.cells * scale**2
        paired = (self.squared_differences / self.couples) ** 0.5 * scale if self.couples else 0.0
        return Resolution(
            error=variance**0.5,
            share=self.shared / whole if whole else None,
            paired=detectable(paired) or None,
            unpaired=detectable((2 * variance) ** 0.5) or None,
        )


@dataclass(slots=True)
class _Score:
    """One row of the answer: its sums, whether it counts in the average, and what undoes its weight there."""

    inside: bool
    scale: float
    sums: _Sums = field(default_factory=_Sums)


def resolutions(cells: Sequence[Cell], prompting: str) -> dict[str, dict[str, Resolution]]:
    """``{"average": {"average": ...}, "categories": {name: ...}, "tasks": {label: ...}}`` of cells that were asked one suite.

    Cells that answered other items (of another world) are no couples. ``average`` is empty for a suite without one.
    Raises: KeyError for a cell that was not asked in ``prompting``.
    """
    first = cells[0].suites[prompting]
    found: dict[str, dict[str, _Score]] = {AVERAGE: {}, "categories": {}, "tasks": {}}
    whole = 0.0
    for group in _same_items(cells, prompting):
        whole += _add(found, [cell.suites[prompting] for cell in group])
    result: dict[str, dict[str, Resolution]] = {}
    for kind, scores in found.items():
        result[kind] = {name: one.sums.resolution(whole if one.inside else None, one.scale) for name, one in scores.items()}
    return result if first.average else {**result, AVERAGE: {}}


def _same_items(cells: Sequence[Cell], prompting: str) -> list[list[Cell]]:
    groups: dict[int, list[Cell]] = {}
    for cell in cells:
        suite = cell.suites[prompting]
        items = [(one.label, one.baseline, tuple(one.clusters), tuple(one.parts)) for one in suite.tasks.values()]
        groups.setdefault(hash(tuple(items)), []).append(cell)
    return list(groups.values())


def _add(found: Mapping[str, dict[str, _Score]], suites: Sequence[Suite]) -> float:
    """Add the influences of cells on the same items to every score; returns the summed variance of their averages."""
    first = suites[0]
    index: dict[str, int] = {}
    for task in first.tasks.values():
        for cluster in task.clusters:
            index.setdefault(cluster, len(index))
    average = np.zeros((len(suites), len(index)))
    by_category = {name: np.zeros_like(average) for name in first.categories}
    own: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
    for label, task in first.tasks.items():
        places, values = _influence([suite.tasks[label] for suite in suites], index)
        own[label] = places, values * weight(first, task)
        for name in task.categories:
            by_category[name][:, places] += values * _within(first, task, name)
    for name in first.average:
        average += by_category[name]
    for label, (places, values) in own.items():
        inside = not set(first.tasks[label].categories).isdisjoint(first.average)
        score = found["tasks"].setdefault(label, _Score(inside, 1 / weight(first, first.tasks[label])))
        score.sums.add(values, average[:, places] if inside else None)
    for name, values in by_category.items():
        inside = name in first.average
        score = found["categories"].setdefault(name, _Score(inside, max(1, len(first.average))))
        score.sums.add(values, average if inside else None)
    found[AVERAGE].setdefault(AVERAGE, _Score(True, 1.0)).sums.add(average, average)
    return float((average**2).sum())


def weight(suite: Suite, task: Task) -> float:
    """How far the average moves with a task's accuracy; outside the average, as if its category were in it."""
    inside = [name for name in task.categories if name in suite.average] or task.categories[:1]
    if not inside:  # in no category: as if it were one
        return 1 / (1 - task.baseline) / max(1, len(suite.average))
    return sum(_within(suite, task, name) for name in inside)


def _within(suite: Suite, task: Task, category: str) -> float:
    """How far a category, divided by the number of those in the average, moves with a task's accuracy."""
    every = sum(other.weight for other in suite.of(category))
    return task.weight / every / (1 - task.baseline) / max(1, len(suite.average))


def _influence(tasks: Sequence[Task], index: Mapping[str, int]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The clusters of one task asked of several cells, and how far each moves the accuracy of each [cells, clusters]."""
    first = tasks[0]
    parts = first.parts or [""] * len(first.correct)
    _, part = np.unique(np.asarray(parts), return_inverse=True)
    places, place = np.unique(np.array([index[cluster] for cluster in first.clusters]), return_inverse=True)
    weights, sizes = np.asarray(item_weights(parts)), np.bincount(part)
    rows = []
    for task in tasks:
        correct = np.asarray(task.correct, dtype=np.float64)
        means = np.bincount(part, weights=correct) / sizes
        rows.append(np.bincount(place, weights=(correct - means[part]) * weights))
    return places, np.stack(rows)
