"""The cells of do=diff and do=items: found by what the user wrote; those of do=diff are read whole before they are compared."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from limit_lab import cell, store
from limit_lab.config import Study
from limit_lab.errors import ConfigError, DataError, EvalError, did_you_mean
from limit_lab.report import records
from limit_lab.suite import PROMPTING

#: The entries of a cell's summary that are compared. ``identity`` is missing where an older version wrote it.
ENTRIES = (
    *("id", "label", "fingerprint", "model", "samples", "seeds", "command", "config"),
    *("card", "finetune", "gauntlet", "answers", "provenance"),
)
#: The stages whose files are read.
STAGES = ("finetune", *(f"gauntlet/{prompting}" for prompting in PROMPTING), "answers")
#: How many of the latest cells a refusal names.
LATEST = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """One of the two cells: where it lies, and what it recorded."""

    folder: Path
    cell: records.Cell


def both(study: Study) -> tuple[Chosen, Chosen]:
    """Find and read ``diff.left`` and ``diff.right``.

    Raises: ConfigError when one is not given, unknown or ambiguous, or both are the same cell; DataError and EvalError for
    a cell that is not finished or whose files are damaged.
    """
    runs, given = Path(study.runs), {"diff.left": study.diff.left, "diff.right": study.diff.right}
    missing = [key for key, text in given.items() if not text]
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} not given: name a cell by its id, the beginning of "
            f"one, or its folder; {_latest(runs / 'cells')}"
        )
    left, right = (_finished(_folder(key, str(text), runs / "cells")) for key, text in given.items())
    if left.resolve() == right.resolve():
        raise ConfigError(
            f"diff.left={study.diff.left} and diff.right={study.diff.right} are the same cell, {left}: name another one."
        )
    return _read(left), _read(right)


def place(runs: Path, key: str, text: str | None) -> Path:
    """The folder of the finished cell that ``text`` names. Raises: ConfigError, DataError as `both` does."""
    if not text:
        raise ConfigError(
            f"{key} is not given: name a cell by its id, the beginning of one, or its folder; {_latest(runs / 'cells')}"
        )
    return _finished(_folder(key, text, runs / "cells"))


def _folder(key: str, text: str, cells: Path) -> Path:
    """The folder that ``text`` names: an id in ``cells``, the beginning of one, or a path."""
    names = sorted(path.name for path in cells.glob("[!.]*") if path.is_dir())
    begun = [name for name in names if name.startswith(text)]
    found = [name for name in begun if text in (name, _mixture(name))] or begun
    if len(found) > 1:
        raise ConfigError(f"{key}={text} is the beginning of {_listed(found)}: add what tells them apart.")
    if found:
        return cells / found[0]
    if Path(text).is_dir():
        return Path(text)
    if "/" in text:
        raise ConfigError(f"{key}={text} is no folder: name the folder of a cell, or its id below {cells}.")
    if not names:
        raise ConfigError(f"{key}={text}: {_latest(cells)}")
    raise ConfigError(f"{key}={text} is no cell in {cells}{did_you_mean(text, [*names, *map(_mixture, names)])}")


def _mixture(name: str) -> str:
    """The part of a cell's id before its fingerprint."""
    return re.sub(r"(-[\d.]+[kMB]?(ep|step|tok))?-[0-9a-f]{12}(-development)?$", "", name)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:LATEST]) + (f" and {len(names) - LATEST} more" if len(names) > LATEST else "")


def _latest(cells: Path) -> str:
    summaries = sorted(cells.glob("*/summary.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    if not summaries:
        return f"{cells} holds no finished cell: run a study first, or set runs=FOLDER to where one ran."
    return f"the latest in {cells}: {', '.join(path.parent.name for path in summaries[:LATEST])}."


def _finished(folder: Path) -> Path:
    if (folder / "summary.json").is_file():
        return folder
    if (folder / cell.FAILED).is_file():
        error = store.read_json(folder / cell.FAILED)["error"]
        raise DataError(f"the cell {folder} is not finished, it failed ({error}): mend that and run its study again.")
    if any((folder / stage / "begun.json").is_file() for stage in STAGES):
        raise DataError(f"the cell {folder} is not finished: run its study again, which continues where it stopped.")
    raise DataError(f"{folder} holds no summary.json and no stage: name the folder of a cell, such as runs/cells/<id>.")


def _read(folder: Path) -> Chosen:
    """Raises: DataError naming the file that is missing, cut or of another kind; EvalError where items and scores disagree."""
    path = folder / "summary.json"
    summary = store.read_json(path)
    lacks = [entry for entry in ENTRIES if not isinstance(summary, dict) or entry not in summary]
    if lacks:
        raise DataError(f"{path} is no cell's summary, it lacks {', '.join(lacks)}: delete it and run its study again.")
    for stage in STAGES:
        store.whole(folder / stage)
    try:
        # an absolute path takes the place of everything that load puts before it
        (found,), _ = records.load(folder.parent.parent, [str(folder.resolve())], [])
    except EvalError as error:
        raise EvalError(f"{folder / 'gauntlet'}: {error}") from error
    except KeyError as error:
        raise DataError(f"a record below {folder} lacks {error}: delete that folder and run its study again.") from error
    return Chosen(folder=folder, cell=found)
