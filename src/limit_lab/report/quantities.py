"""What items determine: averages, categories, tasks, groups of one cell, and rates of one pair, each with its interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limit_lab.report.records import Cell, Pair, Task
from limit_lab.stats import Estimate, Sample, bootstrap

Means = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number that items determine: the samples it rests on, and how it follows from their means."""

    samples: Mapping[str, Sample]
    value: Callable[[Means], Any]

    def __sub__(self, other: Quantity) -> Quantity:
        return self.with_(other, lambda mine, theirs: mine - theirs)

    def with_(self, other: Quantity, join: Callable[[Any, Any], Any]) -> Quantity:
        """Both quantities joined into one, so that they share every resampled draw."""
        return Quantity({**self.samples, **other.samples}, lambda means: join(self.value(means), other.value(means)))

    def estimate(self) -> Estimate:
        """The value with its interval; a quantity without items is a constant. ``n`` counts the items it rests on."""
        if not self.samples:
            value = float(self.value({}))
            return Estimate(value=value, low=value, high=value, n=0, clusters=0, error=0.0)
        return replace(bootstrap(self.samples, self.value), n=sum(len(sample.scores) for sample in self.samples.values()))

    def point(self) -> float:
        """The value that the items themselves give."""
        means = {key: np.array([float(np.mean(sample.scores))]) for key, sample in self.samples.items()}
        return float(np.asarray(self.value(means)).ravel()[0])


def constant(value: float) -> Quantity:
    return Quantity({}, lambda _: value)


def accuracy(cell: Cell, prompting: str, task: Task, group: str | None = None) -> Quantity:
    """Share of a task's items (of one group) that the cell gets right, not rescaled.

    A task with categories scores the plain mean over their shares. A resampled draw is scored as the gauntlet would score
    those items: a category that it leaves empty does not count there, so its value is the mean over the others.
    """
    by_part: dict[str, list[int]] = {}
    for i, own in enumerate(task.groups):
        if group is None or own == group:
            by_part.setdefault(task.parts[i] if task.parts else "", []).append(i)
    samples = {
        f"{cell.id}/{prompting}/{task.label}/{group}/{part}": Sample(
            [task.correct[i] for i in kept], [task.clusters[i] for i in kept]
        )
        for part, kept in by_part.items()
    }
    return Quantity(samples, lambda means: _mean_of_present([means[key] for key in samples]))


def _mean_of_present(parts: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Mean over the parts that have a value in a draw; NaN in a draw where none has."""
    stacked = np.stack(parts)
    present = np.isfinite(stacked)
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = np.where(present, stacked, 0.0).sum(axis=0) / present.sum(axis=0)
    return mean


def rescaled(cell: Cell, prompting: str, task: Task) -> Quantity:
    """Accuracy on the scale where chance is 0 and everything right is 1."""
    plain = accuracy(cell, prompting, task)
    return Quantity(plain.samples, lambda means: (plain.value(means) - task.baseline) / (1 - task.baseline))


def mean_of(parts: Sequence[Quantity], weights: Sequence[float] | None = None) -> Quantity:
    """Mean of the parts, which weigh the same where no ``weights`` are given."""
    samples = {key: sample for part in parts for key, sample in part.samples.items()}
    own = [1] * len(parts) if weights is None else weights
    return Quantity(
        samples,
        lambda means: sum(part.value(means) * one for part, one in zip(parts, own, strict=True)) / sum(own),
    )


def category(cell: Cell, prompting: str, name: str) -> Quantity:
    """Weighted mean of a category's rescaled tasks."""
    tasks = cell.suites[prompting].of(name)
    return mean_of([rescaled(cell, prompting, task) for task in tasks], [task.weight for task in tasks])


def average(cell: Cell, prompting: str) -> Quantity:
    """The headline average: the mean over its categories, each the mean over its tasks."""
    return mean_of([category(cell, prompting, name) for name in cell.suites[prompting].average])


def rate(pair: Pair, *, column: str = "preference", unseen: bool | None = None) -> Quantity:
    """Share of prompts that the cell wins against its baseline, ties as halves; on seen or unseen phrasings if asked.

    ``column="facts"`` compares correct minus wrong claims alone.
    """
    items = [item for item in pair.items if unseen is None or item["unseen"] is unseen]
    key = f"{pair.id}/{column}/{unseen}"
    wins = [float(item["preference"]) if column == "preference" else facts_preference(item) for item in items]
    return Quantity({key: Sample(wins, [str(item["cluster"]) for item in items])}, lambda means: means[key])


def facts_preference(item: Mapping[str, Any]) -> float:
    """1, 0.5 or 0: whether the cell's answer holds more correct minus wrong claims than the baseline's."""
    return (1 + float(np.sign(item["facts_cell"] - item["facts_baseline"]))) / 2


def judge_score(pair: Pair, role: str) -> Quantity:
    """Mean judge score of the pair's ``cell`` or ``baseline``, on the judge's own scale."""
    key = f"{pair.id}/score/{role}"
    sample = Sample([float(item[f"score_{role}"]) for item in pair.items], pair.clusters)
    return Quantity({key: sample}, lambda means: means[key])
