"""Arms against one another: differences from the untouched base by category, win matrices, and what single replicates say."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

from limit_lab.report.arms import Arm, Comparison, Replicate
from limit_lab.report.records import NOT_STATED
from limit_lab.report.scores import average, category, rate
from limit_lab.report.spread import Spread, fixed
from limit_lab.report.tables import WORDS, Number, Table, altered, minus
from limit_lab.stats import Estimate

#: Every couple of arms, the row against the column.
Matrix = Mapping[tuple[str, str], Estimate]


def differences_table(arms: Sequence[Arm], prompting: str) -> Table | None:
    """How far every category and the average of each arm lie from the untouched base; None without one."""
    asked = [arm for arm in arms if prompting in arm.suites]
    base = next((arm for arm in asked if arm.untouched), None)
    tuned = [arm for arm in asked if not arm.untouched and base is not None and arm.suites[prompting].categories]
    if base is None or not tuned:
        return None
    names = base.suites[prompting].categories
    rows: list[list[str | Number]] = []
    if base.suites[prompting].average:
        rows.append(["average", *(_number(average(arm, prompting) - average(base, prompting)) for arm in tuned)])
    for name in names:
        row: list[str | Number] = [name]
        for arm in tuned:
            there = name in arm.suites[prompting].categories
            row.append(_number(category(arm, prompting, name) - category(base, prompting, name)) if there else NOT_STATED)
        rows.append(row)
    note = "Points of the rescaled score. † the interval holds 0." + altered(asked, [prompting])
    return Table(f"Difference from {base.name}, {WORDS[prompting]}", ["category", *(arm.name for arm in tuned)], rows, note)


def _number(difference: Spread) -> Number | str:
    if not difference.parts:
        return NOT_STATED
    found = difference.estimate()
    return Number(found, mark="†" if found.low <= 0 <= found.high else "")


def benchmark_matrix(arms: Sequence[Arm], prompting: str) -> Matrix:
    """Difference of the averages, row minus column, over the replicates that both have."""
    asked = [arm for arm in arms if prompting in arm.suites and arm.suites[prompting].average]
    found: dict[tuple[str, str], Estimate] = {}
    for one, other in itertools.combinations(asked, 2):
        difference = average(one, prompting) - average(other, prompting)
        if difference.parts and _same_suite(one, other, prompting):
            found[one.name, other.name] = difference.estimate()
            found[other.name, one.name] = _opposite(found[one.name, other.name])
    return found


def _same_suite(one: Arm, other: Arm, prompting: str) -> bool:
    mine, theirs = one.suites[prompting], other.suites[prompting]
    return (mine.name, tuple(mine.tasks)) == (theirs.name, tuple(theirs.tasks))


def judge_matrix(pairs: Sequence[Comparison]) -> Matrix:
    """Rate of the row against the column, by the first judge that states preferences."""
    usable = [pair for pair in pairs if pair.prefers]
    found: dict[tuple[str, str], Estimate] = {}
    for pair in usable:
        if pair.judge == usable[0].judge:
            found[pair.cell.name, pair.baseline.name] = rate(pair).estimate()
            found[pair.baseline.name, pair.cell.name] = (fixed(1.0, list(pair.pairs)) - rate(pair)).estimate()
    return found


def _opposite(one: Estimate) -> Estimate:
    return replace(one, value=-one.value, low=-one.high, high=-one.low)


def matrix_table(caption: str, names: Sequence[str], values: Matrix, note: str = "") -> Table:
    rows: list[list[str | Number]] = [
        [row, *(Number(values[row, column]) if (row, column) in values else NOT_STATED for column in names)] for row in names
    ]
    return Table(caption, ["row against column", *names], rows, note)


def replicates_table(arms: Sequence[Arm], pairs: Sequence[Comparison], prompting: str) -> Table | None:
    """The average and the rate of every single replicate, which is all that intervals over replicates rest on."""
    every = sorted({key for arm in arms for key in arm.cells})
    keys = [key for key in every if key.training >= 0] or every  # the untouched base of a world stands beside every seed
    if len(keys) < 2:
        return None
    rated = {pair.cell.name: {key: own.point() for key, own in rate(pair).parts.items()} for pair in pairs}
    rows: list[list[str | Number]] = []
    for arm in arms:
        own: dict[Replicate, float] = {}
        if prompting in arm.suites and arm.suites[prompting].average:
            points = {key: part.point() for key, part in average(arm, prompting).parts.items()}
            own = {key: point for key in keys for one, point in points.items() if one.meets(key)}
        rows.append([arm.name, *(_couple(own.get(key), rated.get(arm.name, {}).get(key)) for key in keys)])
    note = "Benchmark average" + (f" / rate against {pairs[0].baseline.name}" if pairs else "") + ", in %."
    note += altered(arms, [prompting])
    caption = f"Every replicate by itself, {WORDS[prompting]}"
    return Table(caption, ["cell", *(key.text for key in keys)], rows, note)


def _couple(score: float | None, rate: float | None) -> str:
    parts = [minus(f"{value * 100:.1f}") if value is not None else NOT_STATED for value in (score, rate)]
    return NOT_STATED if parts == [NOT_STATED, NOT_STATED] else " / ".join(parts)
