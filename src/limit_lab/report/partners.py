"""The same questions written out and ranked: exact match beside likelihood, elicitation beside injection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from limit_lab.report.arms import Arm
from limit_lab.report.records import NOT_STATED, Suite, Task
from limit_lab.report.scores import Scores, groups_of
from limit_lab.report.tables import WORDS, Number, Table, altered, changed
from limit_lab.stats import Estimate

GROUPS = {"elicitation": "facts met in pretraining", "injection": "facts met only in fine-tuning"}


@dataclass(frozen=True, slots=True)
class Column:
    """One group of one task's items, under a heading; ``group`` is None for all of them."""

    heading: str
    task: Task
    group: str | None

    def of(self, scores: Scores, cell: Arm, prompting: str) -> Estimate | None:
        found = scores.cells[cell.name].get(prompting)
        if found is None:
            return None
        return found.groups.get(self.task.label, {}).get(self.group) if self.group else found.tasks.get(self.task.label)


def partner_table(cells: Sequence[Arm], scores: Scores, prompting: str) -> Table | None:
    """Every couple of tasks that ask the same questions in both measures, by group; None where there is none."""
    columns = _columns(couples(cells, prompting))
    if not columns:
        return None
    asked = [cell for cell in cells if prompting in cell.suites]
    rows: list[list[str | Number]] = []
    for cell in asked:
        values = [column.of(scores, cell, prompting) for column in columns]
        marked = zip(columns, values, strict=True)
        own = [_number(column, value, cell.suites[prompting]) if value else NOT_STATED for column, value in marked]
        rows.append([cell.name, *own])
    groups = {column.group: None for column in columns if column.group}
    note = "Accuracy in %, not rescaled. † not above chance, which is " + _chances(columns) + "."
    note += "".join(f" {name.capitalize()}: {GROUPS[name]}." for name in groups if name in GROUPS)
    note += altered(asked, [prompting])
    caption = f"The same questions written out and ranked, {WORDS[prompting]}"
    return Table(caption, ["cell", *(column.heading for column in columns)], rows, note)


def _columns(found: Sequence[tuple[Task, Task]]) -> list[Column]:
    """Columns of all couples; a heading that several would share also names its task."""
    parts: list[tuple[Task, str | None]] = []
    for exact, likely in found:
        groups: list[str | None] = list(dict.fromkeys([*groups_of(exact), *groups_of(likely)])) or [None]
        parts += [(task, group) for group in groups for task in (exact, likely)]
    headings = [f"{group}, {task.measure}" if group else task.measure for task, group in parts]
    count = Counter(headings)
    named = [
        f"{heading} ({task.label})" if count[heading] > 1 else heading
        for heading, (task, _) in zip(headings, parts, strict=True)
    ]
    return [Column(heading, task, group) for heading, (task, group) in zip(named, parts, strict=True)]


def _number(column: Column, value: Estimate, suite: Suite) -> Number:
    chance = "†" if value.low <= column.task.baseline else ""
    return Number(value, mark=chance + changed(suite, [column.task.label]))


def _chances(columns: Sequence[Column]) -> str:
    found: dict[float, dict[str, None]] = {}
    for column in columns:
        found.setdefault(column.task.baseline, {})[column.task.label] = None
    return ", ".join(f"{chance * 100:g} for {' and '.join(labels)}" for chance, labels in found.items())


def couples(cells: Sequence[Arm], prompting: str) -> list[tuple[Task, Task]]:
    """Couples of tasks that ask the same questions by exact match and by likelihood, each couple once."""
    found: dict[frozenset[str], tuple[Task, Task]] = {}
    for cell in cells:
        tasks = cell.suites[prompting].tasks if prompting in cell.suites else {}
        for task in tasks.values():
            other = tasks.get(task.partner) if task.partner else None
            if other is not None and other.measure != task.measure:
                couple = (task, other) if task.measure == "exact match" else (other, task)
                found.setdefault(frozenset((task.label, other.label)), couple)
    return list(found.values())
