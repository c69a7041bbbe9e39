"""do=diff: what differs between two cells, section by section; reads only."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from limit_lab.config import Study
from limit_lab.diff import scores, values
from limit_lab.diff.chosen import Chosen, both
from limit_lab.diff.values import Section


def show(study: Study) -> None:
    """Print what differs between ``diff.left`` and ``diff.right``. Raises: what `chosen.both` raises, before it prints."""
    left, right = both(study)
    found = sections(left, right)
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)
    for section in found:
        if section.rows:
            console.print(section.title, style="bold", soft_wrap=True)
            console.print(_table(section))
        else:
            console.print(f"{section.title}: {section.alike}", soft_wrap=True)
        for note in section.notes:
            console.print(f"  {note}", soft_wrap=True)


def sections(left: Chosen, right: Chosen) -> list[Section]:
    """Everything that is compared, in the order in which it is shown."""
    return [
        values.head(left, right),
        *values.config(left, right),
        values.identity(left, right),
        values.card(left, right),
        values.environment(left, right),
        values.training(left, right),
        *scores.suites(left, right),
        scores.answers(left, right),
        scores.pair(left, right),
    ]


def _table(section: Section) -> Table:
    shown = Table()
    for column in section.columns:
        shown.add_column(column, overflow="fold")
    for row in section.rows:
        shown.add_row(*(Text(entry) for entry in row))
    return shown
