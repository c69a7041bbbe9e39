"""Where every cell of a study stands, read from its folder alone: done, running, failed, stopped or waiting."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.live import Live
from rich.table import Table

from limit_lab import cell, store
from limit_lab.config import Study
from limit_lab.errors import DataError, ModelError
from limit_lab.estimate import distinct, pretraining, seconds
from limit_lab.microworld.checkpoint import failed_at, has_base, lock_of, missing

State = Literal["done", "running", "failed", "stopped", "waiting"]

#: Seconds between two looks while cells run.
PAUSE = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One cell's name, state, and what there is to say of it: the error of a failed one, the last stage of a running one."""

    name: str
    state: State
    note: str
    seconds_left: float | None


def standing(study: Study) -> Standing:
    """Read one cell's folder. A cell that was begun and that no process holds has stopped: the same study continues it."""
    left = _seconds(study)
    try:
        folder = cell.folder_of(study)
    except (DataError, ModelError):
        return _baseless(study, left)
    if cell.finished(study):
        return Standing(name=folder.name, state="done", note="", seconds_left=0.0)
    begun = sorted(folder.rglob("begun.json"), key=lambda path: path.stat().st_mtime)
    stage = str(begun[-1].parent.relative_to(folder)) if begun else ""
    if store.held(folder):
        return Standing(name=folder.name, state="running", note=stage, seconds_left=left)
    if (folder / cell.FAILED).is_file():
        error = store.read_json(folder / cell.FAILED)["error"]
        return Standing(name=folder.name, state="failed", note=str(error), seconds_left=left)
    return Standing(name=folder.name, state="stopped" if begun else "waiting", note=stage, seconds_left=left)


def _baseless(study: Study, left: float | None) -> Standing:
    """A cell that has no folder yet, because its base or its data is missing."""
    name, world, runs = study.label, study.microworld, Path(study.runs)
    if not study.model.embedded or has_base(world, runs):
        return Standing(name=name, state="waiting", note="for its base or its data", seconds_left=left)
    if store.held(lock_of(world, runs)):
        return Standing(name=name, state="waiting", note="for its base, which is being made", seconds_left=left)
    if failed_at(world, runs).is_file():
        error = store.read_json(failed_at(world, runs))["error"]
        return Standing(name=name, state="failed", note=f"its base: {error}", seconds_left=left)
    return Standing(name=name, state="waiting", note="for its base", seconds_left=left)


def show(cells: Sequence[Study]) -> None:
    """Print the table; on a terminal keep it up to date until nothing runs."""
    cells = distinct(cells)
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160)
    found = [standing(study) for study in cells]
    if not console.is_terminal:
        console.print(table(cells, found))
        return
    with Live(table(cells, found), console=console, auto_refresh=False) as live:
        while any(one.state == "running" for one in found):
            time.sleep(PAUSE)
            found = [standing(study) for study in cells]
            live.update(table(cells, found), refresh=True)


def table(cells: Sequence[Study], found: Sequence[Standing]) -> Table:
    """All cells with their states; the caption counts them and says what is left."""
    counts = Counter(one.state for one in found)
    left = [*(one.seconds_left for one in found), *(pretraining(study) for study in missing(cells))]
    unknown = ", and stages of unknown length" if None in left else ""
    minutes = sum(time or 0.0 for time in left) / 60
    said = ", ".join(f"{count} {state}" for state, count in counts.items())
    shown = Table(caption=f"{said}; ~{minutes:.1f} minutes of work left{unknown}", caption_justify="left")
    for column in ("cell", "world", "seeds", "state", "note"):
        shown.add_column(column, overflow="fold" if column in ("cell", "note") else "ellipsis")
    for study, one in zip(cells, found, strict=True):
        seeds = f"{study.seeds.subset}.{study.seeds.training}" if study.mixture.samples else ""
        shown.add_row(one.name, str(study.microworld.seed) if study.model.embedded else "", seeds, one.state, one.note)
    return shown


def _seconds(study: Study) -> float | None:
    times = seconds(study).values()
    known = [time for time in times if time is not None]
    return sum(known) if len(known) == len(times) else None
