"""do=items: browse what cells made of single items of a task; reads only."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from limit_lab import store
from limit_lab.config import Items, Study
from limit_lab.diff import chosen
from limit_lab.errors import ConfigError, DataError, did_you_mean
from limit_lab.report import questions, records
from limit_lab.report.questions import Item, printable

Rows = Sequence[Mapping[str, Any]]

#: What a record must tell of an item.
NEEDED = ("index", "cluster", "correct", "prediction", "gold", "nll")


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the cells that are browsed: where it lies, and its summary."""

    folder: Path
    summary: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name


def show(study: Study) -> None:
    """Print the items that ``items`` asks for, or without a task all tasks with their counts.

    Raises: ConfigError for a cell, task or prompting that is not there; DataError for a cell that is not finished or damaged.
    """
    asked = study.items
    sides = [_side(study, "cell"), *([_side(study, "against")] if asked.against else [])]
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)
    if asked.task is None:
        console.print(_tasks(sides, asked))
        console.print("One task's items: items.task=NAME, and with items.only=wrong or changed those alone.", soft_wrap=True)
        return
    found, head = _items(sides, asked, asked.task)
    console.print(head, style="bold", soft_wrap=True)
    for one in found:
        _print(console, one, [side.name for side in sides])


def _side(study: Study, key: str) -> Side:
    text = study.items.cell if key == "cell" else study.items.against
    folder = chosen.place(Path(study.runs), f"items.{key}", text)
    return Side(folder=folder, summary=store.read_json(folder / "summary.json"))


def _labels(side: Side, prompting: str) -> list[str]:
    """The tasks that the cell was asked. Raises: ConfigError where it was asked none this way."""
    found = side.summary["gauntlet"].get(prompting)
    if not found:
        raise ConfigError(f"the cell {side.name} was not asked in items.prompting={prompting}: use another one.")
    return list(found["tasks"])


def _tasks(sides: Sequence[Side], asked: Items) -> Table:
    """Every task with the items that each cell has right, and how many changed."""
    table = Table()
    for column in (
        "task",
        "items",
        *(f"right: {side.name}" for side in sides),
        *(["only the first", "only the second"] if sides[1:] else []),
    ):
        table.add_column(column, overflow="fold")
    for label in _labels(sides[0], asked.prompting):
        answers = _answers(sides, asked.prompting, label)
        right = [[bool(row["correct"]) for row in rows] for rows in answers]
        counts = [f"{len(right[0]):,}", *(f"{sum(own):,}" for own in right)]
        if sides[1:]:
            counts += [
                f"{sum(a > b for a, b in zip(*right, strict=True)):,}",
                f"{sum(a < b for a, b in zip(*right, strict=True)):,}",
            ]
        table.add_row(label, *counts)
    return table


def _answers(sides: Sequence[Side], prompting: str, label: str) -> list[Rows]:
    """The records of every cell. Raises: ConfigError where the task is unknown or the cells were asked other items."""
    for side in sides:
        labels = _labels(side, prompting)
        if label not in labels:
            raise ConfigError(
                f"the cell {side.name} was not asked the task {label!r} ({prompting}){did_you_mean(label, labels)}"
            )
    found: list[Rows] = [records.items(side.folder, prompting, label, side.name) for side in sides]
    for side, rows in zip(sides, found, strict=True):
        lacks = [key for key in NEEDED if any(key not in row for row in rows)]
        if lacks:
            raise DataError(
                f"a record of {label} of the cell {side.name} lacks {lacks[0]!r}: delete "
                f"{side.folder / 'gauntlet'} and run its study again."
            )
    items = [[(row["index"], row["cluster"], row["gold"]) for row in rows] for rows in found]
    if items[0] != items[-1]:
        raise ConfigError(
            f"{sides[0].name} and {sides[-1].name} were asked other items of {label}: compare cells of one world and one suite."
        )
    return found


def _items(sides: Sequence[Side], asked: Items, label: str) -> tuple[list[Item], str]:
    """The items to show, and the line above them. Raises: as `_answers` and `_rows` do."""
    answers = _answers(sides, asked.prompting, label)
    wanted = [place for place in range(len(answers[0])) if _is(asked.only, [bool(rows[place]["correct"]) for rows in answers])]
    shown = wanted[: asked.limit]
    rows, lack = _rows(sides[0], asked, label, [int(answers[0][place]["index"]) for place in shown])
    found = [questions.item([own[place] for own in answers], rows.get(int(answers[0][place]["index"]))) for place in shown]
    kind = "" if asked.only == "all" else f" {asked.only}"
    head = f"{label}, {asked.prompting}: {len(wanted):,} of {len(answers[0]):,} items{kind}"
    if len(shown) < len(wanted):
        head += f", the first {len(shown):,} (items.limit={len(wanted)} shows all)"
    return found, f"{head}.{lack}"


def _is(only: str, right: Sequence[bool]) -> bool:
    """Whether an item is asked for: by the first cell's answer, or by whether one of two is right and the other wrong."""
    return {"all": True, "right": right[0], "wrong": not right[0], "changed": right[0] != right[-1]}[only]


def _rows(side: Side, asked: Items, label: str, wanted: Sequence[int]) -> tuple[dict[int, dict[str, Any]], str]:
    """The rows that were asked, or none and a sentence. Raises: DataError where ``items.data`` does not hold them."""
    given = Path(asked.data) if asked.data else None
    path = questions.data_file(side.folder, side.summary["config"], asked.prompting, label, folder=given)
    if path is not None:
        return questions.data_rows(path, set(wanted)), ""
    if given is not None:
        raise DataError(f"items.data={given} does not hold the rows of {label} that {side.name} was asked: pass their folder.")
    return (
        {},
        " The rows that were asked are not where they were, so their text is missing: items.data=FOLDER names their place.",
    )


def _print(console: Console, one: Item, names: Sequence[str]) -> None:
    marks = ", ".join(f"{name} {'right' if right else 'wrong'}" for name, right in zip(names, one.right, strict=True))
    about = "".join(f", {text}" for text in (one.category, f"cluster {one.cluster}") if text)
    console.print(f"\nitem {one.index}{printable(about)}: {marks}", style="bold", soft_wrap=True)
    if one.question is not None:
        console.print(Text(printable(one.question)), soft_wrap=True)
    if one.choices:
        console.print(_choices(one, names))
        return
    for name, own in zip(names, one.wrote, strict=True):
        loss = "" if own.loss is None else f"   (the right answer has a loss of {own.loss:.3f})"
        console.print(Text(f"  {name} wrote: {printable(own.text)}{loss}"), soft_wrap=True)
    console.print(Text(f"  right: {printable(one.gold)}"), soft_wrap=True)


def _choices(one: Item, names: Sequence[str]) -> Table:
    """Choices with the loss that each cell gives them; ``<`` marks what a cell picked."""
    table = Table(box=None, pad_edge=True)
    for column in ("", *(f"loss, {name}" for name in names)):
        table.add_column(column, justify="right")
    table.add_column("choice", overflow="fold")
    for choice in one.choices:
        losses = [f"{loss:.3f} {'<' if picked else ' '}" for loss, picked in zip(choice.losses, choice.picked, strict=True)]
        table.add_row("right" if choice.gold else "", *losses, Text(printable(choice.text)))
    return table
