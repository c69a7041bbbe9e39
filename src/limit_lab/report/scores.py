"""Every number that tables and figures show: arms by prompting, comparisons by judge, each with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from limit_lab.report import quantities as q
from limit_lab.report.arms import Arm, Comparison
from limit_lab.report.records import Suite, Task
from limit_lab.report.spread import Spread, over_cells, over_pairs
from limit_lab.stats import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteScores:
    """One arm under one prompting: rescaled average and categories, and plain accuracies by task and group."""

    average: Estimate | None
    categories: Mapping[str, Estimate]
    tasks: Mapping[str, Estimate]
    groups: Mapping[str, Mapping[str, Estimate]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairScores:
    """One comparison: its rate, the rate by facts alone, and the rate on phrasings met and not met in training."""

    rate: Estimate
    facts: Estimate | None
    seen: Estimate | None
    unseen: Estimate | None
    score_cell: Estimate
    score_baseline: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """All estimates of a report: by arm name and prompting, and by comparison id."""

    cells: Mapping[str, Mapping[str, SuiteScores]]
    pairs: Mapping[str, PairScores]


def measure(cells: Sequence[Arm], pairs: Sequence[Comparison]) -> Scores:
    """Estimate everything that tables and figures show."""
    return Scores(
        cells={
            arm.name: {prompting: _suite(arm, prompting, suite) for prompting, suite in arm.suites.items()} for arm in cells
        },
        pairs={pair.id: _pair(pair) for pair in pairs},
    )


def average(arm: Arm, prompting: str) -> Spread:
    """The headline average of every replicate."""
    return over_cells(arm, partial(q.average, prompting=prompting))


def category(arm: Arm, prompting: str, name: str) -> Spread:
    """The mean of a category's rescaled tasks in every replicate."""
    return over_cells(arm, partial(q.category, prompting=prompting, name=name))


def accuracy(arm: Arm, prompting: str, label: str, group: str | None = None) -> Spread:
    """Share of a task's items (of one group) that are right in every replicate."""
    return over_cells(arm, lambda cell: q.accuracy(cell, prompting, cell.suites[prompting].tasks[label], group))


def rate(pair: Comparison) -> Spread:
    """Share of prompts that the arm wins against its baseline in every replicate."""
    return over_pairs(pair, q.rate)


def judge_score(pair: Comparison, role: str) -> Spread:
    """Mean judge score of the comparison's ``cell`` or ``baseline`` in every replicate."""
    return over_pairs(pair, partial(q.judge_score, role=role))


def groups_of(task: Task) -> list[str]:
    return sorted({group for group in task.groups if group is not None})


def has_facts(pair: Comparison) -> bool:
    return all(item.get("facts_cell") is not None and item.get("facts_baseline") is not None for item in pair.items)


def _suite(arm: Arm, prompting: str, suite: Suite) -> SuiteScores:
    return SuiteScores(
        average=average(arm, prompting).estimate() if suite.average else None,
        categories={name: category(arm, prompting, name).estimate() for name in suite.categories},
        tasks={label: accuracy(arm, prompting, label).estimate() for label in suite.tasks},
        groups={
            label: {group: accuracy(arm, prompting, label, group).estimate() for group in groups_of(task)}
            for label, task in suite.tasks.items()
        },
    )


def _pair(pair: Comparison) -> PairScores:
    both = {item.get("unseen") for item in pair.items} == {True, False}
    return PairScores(
        rate=rate(pair).estimate(),
        facts=over_pairs(pair, partial(q.rate, column="facts")).estimate() if has_facts(pair) else None,
        seen=over_pairs(pair, partial(q.rate, unseen=False)).estimate() if both else None,
        unseen=over_pairs(pair, partial(q.rate, unseen=True)).estimate() if both else None,
        score_cell=judge_score(pair, "cell").estimate(),
        score_baseline=judge_score(pair, "baseline").estimate(),
    )
