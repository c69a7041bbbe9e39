"""Every number of a report with its interval: averages, categories, tasks, groups, and rates against a baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limit_lab.report.records import Cell, Pair, Suite, Task
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
            return Estimate(value=value, low=value, high=value, n=0, clusters=0)
        return replace(bootstrap(self.samples, self.value), n=sum(len(sample.scores) for sample in self.samples.values()))


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


def mean_of(parts: Sequence[Quantity]) -> Quantity:
    samples = {key: sample for part in parts for key, sample in part.samples.items()}
    return Quantity(samples, lambda means: sum(part.value(means) for part in parts) / len(parts))


def category(cell: Cell, prompting: str, name: str) -> Quantity:
    """Mean of a category's rescaled tasks."""
    return mean_of([rescaled(cell, prompting, task) for task in cell.suites[prompting].of(name)])


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


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteScores:
    """One cell under one prompting: rescaled average and categories, and plain accuracies by task and group."""

    average: Estimate | None
    categories: Mapping[str, Estimate]
    tasks: Mapping[str, Estimate]
    groups: Mapping[str, Mapping[str, Estimate]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairScores:
    """One pair: its rate, the rate by facts alone, and the rate on phrasings met and not met in training."""

    rate: Estimate
    facts: Estimate | None
    seen: Estimate | None
    unseen: Estimate | None
    score_cell: Estimate
    score_baseline: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """All estimates of a report: by cell name and prompting, and by pair id."""

    cells: Mapping[str, Mapping[str, SuiteScores]]
    pairs: Mapping[str, PairScores]


def measure(cells: Sequence[Cell], pairs: Sequence[Pair]) -> Scores:
    """Estimate everything that tables and figures show."""
    return Scores(
        cells={
            cell.name: {prompting: _suite(cell, prompting, suite) for prompting, suite in cell.suites.items()} for cell in cells
        },
        pairs={pair.id: _pair(pair) for pair in pairs},
    )


def groups_of(task: Task) -> list[str]:
    return sorted({group for group in task.groups if group is not None})


def _suite(cell: Cell, prompting: str, suite: Suite) -> SuiteScores:
    return SuiteScores(
        average=average(cell, prompting).estimate() if suite.average else None,
        categories={name: category(cell, prompting, name).estimate() for name in suite.categories},
        tasks={label: accuracy(cell, prompting, task).estimate() for label, task in suite.tasks.items()},
        groups={
            label: {group: accuracy(cell, prompting, task, group).estimate() for group in groups_of(task)}
            for label, task in suite.tasks.items()
        },
    )


def _pair(pair: Pair) -> PairScores:
    phrasings = {item.get("unseen") for item in pair.items}
    both = phrasings == {True, False}
    return PairScores(
        rate=rate(pair).estimate(),
        facts=rate(pair, column="facts").estimate() if has_facts(pair) else None,
        seen=rate(pair, unseen=False).estimate() if both else None,
        unseen=rate(pair, unseen=True).estimate() if both else None,
        score_cell=judge_score(pair, "cell").estimate(),
        score_baseline=judge_score(pair, "baseline").estimate(),
    )


def has_facts(pair: Pair) -> bool:
    return all(item.get("facts_cell") is not None and item.get("facts_baseline") is not None for item in pair.items)
