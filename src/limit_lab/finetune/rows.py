"""Rows that a run appends step by step, and that a resumed run cuts back to its checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from limit_lab import store


def read(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a jsonl file, none without one; a line cut by a kill is left out."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]


def append(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add rows at the end of the file. Raises: DataError when the disk refuses."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with store.writing(path), path.open("a", encoding="utf-8") as file:
        file.write(text)


def cut(path: Path, step: int) -> None:
    """Drop the rows of steps after ``step``, which a resumed run takes again."""
    if path.is_file():
        store.write_rows(path, [row for row in read(path) if row["step"] <= step])
