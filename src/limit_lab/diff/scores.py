"""The sections of do=diff that compare results: scores with intervals of their differences, answers, and the pair's rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from limit_lab import stats, store
from limit_lab.diff.chosen import Chosen
from limit_lab.diff.values import NOT_STATED, Section, changes, rows
from limit_lab.report import quantities
from limit_lab.report.records import Cell, Suite, Task
from limit_lab.suite import PROMPTING

#: What a task was asked with that leaves its items as they are; a template's format belongs to the cell.
SAME_ITEMS = ("prompt_format", "task.file", "task.partner")

Measured = Callable[[Cell], quantities.Quantity]


def suites(left: Chosen, right: Chosen) -> list[Section]:
    """The gauntlet under every prompting that one of the two was asked with."""
    found = []
    for prompting in PROMPTING:
        asked = [side for side, one in (("left", left), ("right", right)) if prompting in one.cell.suites]
        title = f"scores, {prompting}"
        if len(asked) == 2:
            found.append(_suite(left, right, prompting, title))
        elif asked:
            found.append(Section(title=title, columns=(), alike=f"only {asked[0]} was asked this way"))
    return found


def _suite(left: Chosen, right: Chosen, prompting: str, title: str) -> Section:
    mine, theirs = left.cell.suites[prompting], right.cell.suites[prompting]
    labels = list(dict.fromkeys([*mine.tasks, *theirs.tasks]))
    reasons = {label: _reason(left, right, prompting, label) for label in labels}
    if not any(reasons.values()) and all(mine.tasks[label].correct == theirs.tasks[label].correct for label in labels):
        items = sum(len(task.correct) for task in mine.tasks.values())
        alike = f"no difference, the {items:,} items of {len(labels)} tasks have the same results"
        return Section(title=title, columns=(), alike=alike)
    # two runs of one cell share an id, and samples are told apart by it
    sides = replace(left.cell, id="left"), replace(right.cell, id="right")
    reason = "" if list(mine.average) == list(theirs.average) else "other categories"
    reason = reason or _of_parts([task.label for name in mine.average for task in mine.of(name)], reasons)
    shown = []
    if mine.average or theirs.average:
        has = bool(mine.average), bool(theirs.average)
        shown.append(_row("average", sides, reason, lambda cell: quantities.average(cell, prompting), has))
    for name in dict.fromkeys([*mine.categories, *theirs.categories]):
        shown.append(_category(name, sides, prompting, reasons))
        own = [
            label
            for label in labels
            if any(name in suite.tasks[label].categories[:1] for suite in (mine, theirs) if label in suite.tasks)
        ]
        shown += [_task(label, sides, prompting, reasons[label]) for label in own]
    shown += [
        _task(label, sides, prompting, reasons[label])
        for label in labels
        if not any(suite.tasks[label].categories for suite in (mine, theirs) if label in suite.tasks)
    ]
    return Section(title=title, columns=("in %", "left", "right", "right − left"), rows=shown, notes=_notes(mine, theirs))


def _notes(left: Suite, right: Suite) -> list[str]:
    scale = "Average and categories are rescaled (0 is chance, 100 all correct), tasks (indented) are plain accuracies."
    differing = [] if left.name == right.name else [f"The suites differ: {left.name} and {right.name}."]
    sides = (("left", left), ("right", right))
    changed = [f"{label} {short} ({side})" for side, suite in sides for label, short in suite.altered.items()]
    differing += [f"Altered data, not the original file: {', '.join(changed)}."] if changed else []
    return [scale, f"Differences ± their standard error, with their {stats.METHODS['items']}.", *differing]


def _category(name: str, sides: tuple[Cell, Cell], prompting: str, reasons: Mapping[str, str]) -> list[str]:
    mine, theirs = ({task.label for task in cell.suites[prompting].of(name)} for cell in sides)
    reason = "other tasks" if mine != theirs else _of_parts(sorted(mine), reasons)
    return _row(name, sides, reason, lambda cell: quantities.category(cell, prompting, name), (bool(mine), bool(theirs)))


def _task(label: str, sides: tuple[Cell, Cell], prompting: str, reason: str) -> list[str]:
    has = label in sides[0].suites[prompting].tasks, label in sides[1].suites[prompting].tasks
    return _row(
        f"  {label}", sides, reason, lambda cell: quantities.accuracy(cell, prompting, cell.suites[prompting].tasks[label]), has
    )


def _row(
    name: str, sides: tuple[Cell, Cell], reason: str, measured: Measured, has: tuple[bool, bool] = (True, True)
) -> list[str]:
    """Both values and their difference with its interval, or the reason against a difference."""
    both = [measured(cell) if there else None for cell, there in zip(sides, has, strict=True)]
    values = [NOT_STATED if one is None else f"{one.point() * 100:.1f}" for one in both]
    left, right = both
    if reason or left is None or right is None:
        return [name, *values, f"not subtracted: {reason}"]
    return [name, *values, (right - left).estimate().full()]


def _of_parts(labels: list[str], reasons: Mapping[str, str]) -> str:
    """Why a mean over tasks cannot be compared: the first reason of a task."""
    return next((f"{label}: {reasons[label]}" for label in labels if reasons[label]), "")


def _reason(left: Chosen, right: Chosen, prompting: str, label: str) -> str:
    """Why a task's two scores cannot be subtracted, empty where both were asked the same items in the same way."""
    tasks = [one.cell.suites[prompting].tasks.get(label) for one in (left, right)]
    mine, theirs = tasks
    if mine is None or theirs is None:
        return f"only {'left' if theirs is None else 'right'} was asked"
    if len(mine.correct) != len(theirs.correct):
        return f"other items ({len(mine.correct):,} and {len(theirs.correct):,})"
    if _items(mine) != _items(theirs):
        return "other items"
    asked, other = (_asked(one, prompting, label) for one in (left, right))
    if asked is None or other is None:
        return ""
    found = [change.key for change in changes(asked, other) if change.key not in SAME_ITEMS]
    return f"asked differently ({', '.join(found)})" if found else ""


def _items(task: Task) -> tuple[object, ...]:
    return (
        task.type,
        list(task.categories),
        task.weight,
        task.baseline,
        list(task.clusters),
        list(task.groups),
        list(task.parts),
    )


def _asked(one: Chosen, prompting: str, label: str) -> Mapping[str, Any] | None:
    """What the gauntlet noted beside the items: the task, the hash of its file, the prompting; None where it did not."""
    path = one.folder / "gauntlet" / prompting / "items" / f"{label}.inputs.json"
    if not path.is_file():
        return None
    inputs: Mapping[str, Any] = store.read_json(path)["inputs"]
    return inputs


def answers(left: Chosen, right: Chosen) -> Section:
    """How long the answers are, how many ended by themselves, and how many are the same words."""
    mine, theirs = left.cell.answers, right.cell.answers
    asked = [[(row["prompt"], row.get("seed")) for row in own] for own in (mine, theirs)]
    same = asked[0] == asked[1]
    found = rows(changes(left.cell.summary["answers"], right.cell.summary["answers"]), differences=same)
    columns = ("", "left", "right", *(["right − left"] if same else []))
    if not same:
        counts = f"{len(mine):,} and {len(theirs):,} answers"
        return Section(
            title="answers",
            columns=columns,
            rows=found,
            alike=f"other prompts ({counts})",
            notes=["Other prompts: not subtracted."],
        )
    equal = sum(a["answer"] == b["answer"] for a, b in zip(mine, theirs, strict=True))
    if equal == len(mine) and not found:
        return Section(title="answers", columns=columns, alike=f"no difference, all {equal:,} have the same words")
    told = f"{equal:,} of {len(mine):,} answers have the same words."
    return Section(title="answers", columns=columns, rows=found, alike="no difference in their counts", notes=[told])


def pair(left: Chosen, right: Chosen) -> Section:
    """The rate of every pair that compares the two; runs in different folders have none."""
    columns = ("cell", "against", "judge", "measure", "rate in %", "prompts")
    cells, others = (one.folder.resolve().parent for one in (left, right))
    if cells != others:
        return Section(title="pair", columns=columns, alike="none, the two lie in different folders")
    ids = (left.cell.id, right.cell.id)
    names = tuple(f"{cell}-vs-{baseline}-" for cell, baseline in (ids, ids[::-1]))
    places = [path for path in sorted((cells.parent / "pairs").glob("[!.]*")) if path.name.startswith(names)]
    found = [_rate(place) for place in places if (place / "summary.json").is_file()]
    return Section(title="pair", columns=columns, rows=found, alike="none, no judge compared the two")


def _rate(place: Path) -> list[str]:
    """Raises: DataError naming the file of the pair that is damaged."""
    store.whole(place)
    summary, items = store.read_json(place / "summary.json"), store.read_rows(place / "items.jsonl")
    rate = stats.mean([item["preference"] for item in items], [str(item["cluster"]) for item in items])
    measure, judge = str(summary["measure"]).replace("_", " "), str(summary["judge"]["name"])
    return [summary["cell"], summary["baseline"], judge, measure, rate.full(), f"{len(items):,}"]
