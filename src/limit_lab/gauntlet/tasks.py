"""The rows of a task: read, checked field by field, stripped, and split into categories."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from limit_lab.config import Gauntlet, Task
from limit_lab.errors import DataError, EvalError
from limit_lab.gauntlet.files import remedy
from limit_lab.store import read_rows
from limit_lab.suite import asked as asked

Row = dict[str, Any]

#: What every row of a task type must carry. Further keys (entity, group, ...) are kept for the records.
FIELDS: dict[str, dict[str, str]] = {
    "language_modeling": {"context": "text", "continuation": "text"},
    "multiple_choice": {"query": "text", "choices": "a list of texts", "gold": "the index of a choice"},
    "schema": {"context_options": "a list of texts", "continuation": "text", "gold": "the index of an option"},
    "generation": {"context": "text", "answer": "text"},
}
OPTIONAL = {"aliases": "a list of texts", "chain_of_thought": "text"}


def require_files(suite: Gauntlet, tasks: Sequence[Task], data: Path) -> list[Task]:
    """The tasks whose files are there: all of them, or under ``compat=strict`` what is left, as in the original.

    Raises: EvalError naming every task whose file is absent, with the command that fetches it, before anything is scored.
    """
    absent = {task.label: task.file for task in tasks if not (data / task.file).is_file()}
    if absent and (suite.compat != "strict" or len(absent) == len(tasks)):
        named = ", ".join(f"{label} ({file})" for label, file in absent.items())
        raise EvalError(
            f"gauntlet={suite.name} has no data for {named} in {data}: {remedy(suite, data, list(absent.values()))}, "
            "or choose a suite without these tasks, which has another name."
        )
    return [task for task in tasks if (data / task.file).is_file()]


def read(task: Task, data: Path) -> list[Row]:
    """The rows as they stand in the file, the first ``task.rows`` of them if that is set; these are also the few-shot pool.

    Raises: DataError naming file, line and field of the first row that does not fit the task's type.
    """
    path = data / task.file
    rows = read_rows(path)
    wanted = len(rows) if task.rows is None else task.rows
    if not rows or len(rows) < wanted:
        raise DataError(f"{path} has {len(rows)} rows, and the task {task.label} needs {max(wanted, 1)}: use a longer file.")
    rows = rows[:wanted]
    for line, row in enumerate(rows, 1):
        wrong = _wrong_field(task, row, with_thought="chain_of_thought" in rows[0])
        if wrong:
            raise DataError(f"{path} line {line}: {wrong} in a row of the {task.type} task {task.label}.")
    return rows


def strip(rows: Sequence[Row]) -> list[Row]:
    """Rows whose top-level texts lose the blanks around them; texts inside lists keep theirs, as in llm-foundry."""
    return [{key: value.strip() if isinstance(value, str) else value for key, value in row.items()} for row in rows]


def parts(task: Task, rows: Sequence[Row]) -> list[list[int]]:
    """Row indices of each separately sampled and scored part: one part, or one per category in code point order."""
    if not task.has_categories:
        return [list(range(len(rows)))]
    by_category: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        by_category.setdefault(row["category"], []).append(index)
    return [by_category[name] for name in sorted(by_category)]


def _wrong_field(task: Task, row: Row, *, with_thought: bool) -> str | None:
    """What is wrong with a row, or None."""
    needed = FIELDS[task.type] | ({"category": "text"} if task.has_categories else {})
    if task.type == "generation":
        needed = needed | {field: kind for field, kind in OPTIONAL.items() if field in row}
        if ("chain_of_thought" in row) != with_thought:
            return "the field 'chain_of_thought' must be in every row or in none, and it is not"
    for field, kind in needed.items():
        if field not in row:
            return f"the field {field!r} is missing"
        if not _is(kind, row[field], row):
            return f"the field {field!r} must be {kind}, not {row[field]!r:.60}"
    return next((f"the field {field!r} holds an empty text" for field in needed if _empty(row[field])), None)


def _empty(value: object) -> bool:
    """Whether a text is empty once it is stripped, or one of a list is empty as it stands, which is never stripped."""
    return not value.strip() if isinstance(value, str) else isinstance(value, list) and "" in value


def _is(kind: str, value: object, row: Row) -> bool:
    if kind == "text":
        return isinstance(value, str)
    if kind == "a list of texts":
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    options = row["choices" if kind == "the index of a choice" else "context_options"]
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(options)
