"""A few items of every task for the page: those that two cells answer differently, by a rule that never looks at the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from limit_lab.report.arms import Arm
from limit_lab.report.questions import Item, data_file, data_rows, item
from limit_lab.report.records import Cell, items
from limit_lab.report.samples import spaced
from limit_lab.report.scores import Scores
from limit_lab.report.tables import WORDS

#: Items of one task, characters of a question (its end, where it asks) and of any other text, and choices of one item.
ITEMS, QUESTION, TEXT, CHOICES = 3, 400, 120, 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownTask:
    """Some items of one task; ``count`` of all ``total`` items are of this ``kind``: changed, or wrong."""

    label: str
    kind: str
    count: int
    total: int
    items: Sequence[Item]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownSuite:
    """The items of one prompting; ``names`` are the arms whose answers are shown, in order."""

    where: str
    names: Sequence[str]
    tasks: Sequence[ShownTask]


def shown_items(root: Path, arms: Sequence[Arm], scores: Scores, baseline: str | None) -> list[ShownSuite]:
    """For every prompting the items that changed from the ``baseline`` (a label) to the arm of highest average.

    Without such a couple on the same items: those that the one arm gets wrong. Each pair is the first replicate of both.
    """
    found = []
    for prompting, where in WORDS.items():
        names, cells = _couple(arms, scores, prompting, baseline)
        if cells:
            tasks = [_task(root, cells, prompting, label) for label in cells[0].suites[prompting].tasks]
            found.append(ShownSuite(where=where, names=names, tasks=[task for task in tasks if task is not None]))
    return [suite for suite in found if suite.tasks]


def _couple(arms: Sequence[Arm], scores: Scores, prompting: str, baseline: str | None) -> tuple[list[str], list[Cell]]:
    """What the leading arm is held against and the arm itself, with a cell of each; only it, or none, without a couple."""
    averages = {arm.name: found.average for arm in arms if (found := scores.cells[arm.name].get(prompting))}
    values = {name: one.value for name, one in averages.items() if one is not None}
    ranked = sorted((arm for arm in arms if arm.name in values), key=lambda arm: -values[arm.name])
    if not ranked:
        return [], []
    leader, others = ranked[0], ranked[1:]
    for against in sorted(others, key=lambda arm: arm.label != baseline)[:1]:
        for one, mine in leader.cells.items():
            for two, theirs in against.cells.items():
                if one.meets(two) and _asked_alike(mine, theirs, prompting):
                    return [against.name, leader.name], [theirs, mine]
    return [leader.name], [leader.first]


def _asked_alike(one: Cell, other: Cell, prompting: str) -> bool:
    mine, theirs = (cell.suites[prompting].tasks for cell in (one, other))
    return mine.keys() == theirs.keys() and all(
        (task.clusters, task.golds) == (theirs[label].clusters, theirs[label].golds) for label, task in mine.items()
    )


def _task(root: Path, cells: Sequence[Cell], prompting: str, label: str) -> ShownTask | None:
    """None where nothing changed, or the records are of before predictions were kept."""
    tasks = [cell.suites[prompting].tasks[label] for cell in cells]
    first, last = tasks[0].correct, tasks[-1].correct
    changed = len(cells) > 1
    wanted = [place for place, right in enumerate(last) if (first[place] != right if changed else not right)]
    if not wanted or tasks[0].golds[wanted[0]] is None:
        return None
    folders = [root / "cells" / cell.id for cell in cells]
    records = [items(folder, prompting, label, cell.name) for folder, cell in zip(folders, cells, strict=True)]
    chosen = spaced(wanted, ITEMS)
    path = data_file(folders[0], cells[0].summary["config"], prompting, label)
    indices = {place: int(records[0][place]["index"]) for place in chosen}
    rows = {} if path is None else data_rows(path, set(indices.values()))
    found = [short(item([own[place] for own in records], rows.get(index))) for place, index in indices.items()]
    kind = "changed" if changed else "wrong"
    return ShownTask(label=label, kind=kind, count=len(wanted), total=len(last), items=found)


def short(one: Item) -> Item:
    """The item with its texts cut, each cut marked by an ellipsis; of many choices the first, and those that matter."""
    question = one.question
    if question is not None and len(question) > QUESTION:
        question = "… " + question[-QUESTION:]
    matter = [place for place, choice in enumerate(one.choices) if choice.gold or any(choice.picked)]
    kept = sorted({*matter, *range(max(0, CHOICES - len(matter)))} & set(range(len(one.choices))))
    return replace(
        one,
        question=question,
        choices=[replace(one.choices[place], text=_cut(one.choices[place].text)) for place in kept],
        wrote=[replace(own, text=_cut(own.text)) for own in one.wrote],
        gold=_cut(one.gold),
    )


def _cut(text: str) -> str:
    return text if len(text) <= TEXT else text[:TEXT] + " …"
