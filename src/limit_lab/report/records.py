"""What a report reads: the cells and pairs that a study wrote, checked against their own items before anything is drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limit_lab.errors import DataError, EvalError, LimitLabError
from limit_lab.gauntlet.aggregate import weight
from limit_lab.store import read_json, read_rows
from limit_lab.suite import PROMPTING

#: Recorded scores are rounded by float32 arithmetic; anything beyond this is a disagreement.
TOLERANCE = 1e-6

Row = Mapping[str, Any]

#: What stands where nothing is known.
NOT_STATED = "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task as asked of one cell: its items in aligned sequences, and what chance scores.

    ``parts`` holds the category of every item when the task is scored as the plain mean over its categories
    (``has_categories``), and is empty when it is scored as the plain mean over its items. ``categories`` are those of the
    suite in which it counts, with ``weight``, its own ``category`` first. ``golds`` are indices of choices, texts or lists of
    accepted texts (None where an old record has none); ``choices`` counts them, 0 where nothing is chosen. ``altered`` is the
    short hash of a data file that is not the original one, empty for any other.
    """

    label: str
    type: str
    category: str | None
    baseline: float
    partner: str | None
    correct: Sequence[float]
    clusters: Sequence[str]
    groups: Sequence[str | None]
    parts: Sequence[str] = ()
    categories: Sequence[str] = ()
    weight: float = 1
    altered: str = ""
    golds: Sequence[Any] = ()
    choices: Sequence[int] = ()

    @property
    def measure(self) -> str:
        """``exact match`` when the model writes the answer, ``likelihood`` when it ranks given ones."""
        return "exact match" if self.type in ("generation", "language_modeling") else "likelihood"


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """The gauntlet of one cell under one prompting.

    ``average`` names the categories of its headline average, if any; ``share`` says how much of the published version was
    asked, where that is known.
    """

    name: str
    tasks: Mapping[str, Task]
    average: Sequence[str]
    not_asked: Sequence[str]
    share: str = ""

    def of(self, category: str) -> list[Task]:
        return [task for task in self.tasks.values() if category in task.categories]

    @property
    def altered(self) -> dict[str, str]:
        """The tasks asked on altered data, each with the short hash of its file."""
        return {label: task.altered for label, task in self.tasks.items() if task.altered}

    @property
    def categories(self) -> list[str]:
        return list(dict.fromkeys(category for task in self.tasks.values() for category in task.categories))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One fine-tuned (or untouched) model: its summary, items by prompting, answers, and held-out losses by step and source.

    ``name`` is unique in a report; cells that were made before losses were held out have none. ``harness``: the records of
    lm-evaluation-harness, one per task, where do=harness has asked any.
    """

    id: str
    label: str
    name: str
    summary: Row
    suites: Mapping[str, Suite]
    answers: Sequence[Row]
    held_out: Sequence[Row] = ()
    harness: Sequence[Row] = ()

    @property
    def untouched(self) -> bool:
        return self.summary["finetune"] is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A cell compared with a baseline by a judge, item by item."""

    id: str
    cell: Cell
    baseline: Cell
    summary: Row
    items: Sequence[Row]

    @property
    def judge(self) -> str:
        return str(self.summary["judge"]["name"])

    @property
    def prefers(self) -> bool:
        """Whether the judge states a preference; a heuristic's rate is no win rate."""
        return bool(self.summary["measure"] == "win_rate")

    @property
    def clusters(self) -> list[str]:
        return [str(item["cluster"]) for item in self.items]


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mappings as ``outer.inner`` keys with printable values."""
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = NOT_STATED if value is None else str(value)
    return found


def load(root: Path, cell_ids: Sequence[str], pair_ids: Sequence[str]) -> tuple[list[Cell], list[Pair]]:
    """Read and check the named records below ``root``.

    Raises: DataError for missing or malformed files, EvalError where items and summary disagree, LimitLabError when
    there is no cell, or a pair compares cells that are not among ``cell_ids``.
    """
    if not cell_ids:
        raise LimitLabError("a report needs at least one cell: run a study first, or name its cells.")
    folders = [root / "cells" / identity for identity in cell_ids]
    summaries = [_summary(folder, "cell") for folder in folders]
    cells = [_cell(*found) for found in zip(folders, summaries, _names(summaries), strict=True)]
    by_id = {cell.id: cell for cell in cells}
    return cells, [_pair(root / "pairs" / identity, by_id) for identity in pair_ids]


def _summary(folder: Path, kind: str) -> Row:
    summary: Row = read_json(folder / "summary.json")
    if summary.get("kind") != kind or summary.get("schema") != 1:
        raise DataError(f"{folder / 'summary.json'} is no {kind} record of schema 1: run the study again to write it anew.")
    return summary


def _names(summaries: Sequence[Row]) -> list[str]:
    """Labels, told apart by seeds and then by fingerprint where several cells carry the same one."""
    names = [str(summary["label"]) for summary in summaries]
    seeds = [f"s{summary['seeds']['subset']}.{summary['seeds']['training']}" for summary in summaries]
    for marks in (seeds, [str(summary["fingerprint"])[:6] for summary in summaries]):
        count = Counter(names)
        names = [f"{name} {mark}" if count[name] > 1 else name for name, mark in zip(names, marks, strict=True)]
    return names


def _cell(folder: Path, summary: Row, name: str) -> Cell:
    configured = summary["config"].get("gauntlet", {})
    gauntlet = summary["gauntlet"]
    suites = {
        prompting: _suite(folder, name, prompting, gauntlet["suite"], gauntlet[prompting], configured)
        for prompting in PROMPTING
        if gauntlet.get(prompting)
    }
    answers = read_rows(folder / "answers" / "answers.jsonl") if summary["answers"]["prompts"] else []
    losses = folder / "finetune" / "held_out.jsonl"
    return Cell(
        id=summary["id"],
        label=summary["label"],
        name=name,
        summary=summary,
        suites=suites,
        answers=answers,
        held_out=read_rows(losses) if losses.is_file() else [],
        harness=[read_json(path) for path in sorted(folder.glob("harness/*/results.json"))],
    )


def _suite(folder: Path, name: str, prompting: str, suite: str, scores: Row, configured: Row) -> Suite:
    """``configured``: the cell's gauntlet, which names the headline categories and the tasks that are split by category."""
    parted = {task["label"] for task in configured.get("tasks", []) if task.get("has_categories")}
    tasks = {}
    for label, recorded in scores["tasks"].items():
        rows = items(folder, prompting, label, name)
        tasks[label] = _task(label, recorded, rows, scores, configured, parted=label in parted)
        _agrees(name, f"number of items of {label} ({prompting})", len(tasks[label].correct), recorded["n"])
        _agrees(name, f"{label} ({prompting})", _rescaled(tasks[label]), recorded["rescaled"])
    found = {category for task in tasks.values() for category in task.categories}
    if found != set(scores["categories"]):
        raise EvalError(
            f"cell {name!r} ({prompting}): its tasks lie in the categories {sorted(found)}, its summary scores "
            f"{sorted(scores['categories'])}: delete {folder / 'gauntlet'} and run the study again."
        )
    categories = [category for category in configured.get("average") or scores["categories"] if category in found]
    headline = [] if scores["average"] is None else categories
    share = _share(scores)
    result = Suite(name=suite, tasks=tasks, average=headline, not_asked=scores.get("not_asked", []), share=share)
    means = {category: _category(result.of(category)) for category in found}
    for category in sorted(found):
        _agrees(name, f"category {category} ({prompting})", means[category], scores["categories"][category])
    if headline:
        _agrees(name, f"average ({prompting})", _mean([means[category] for category in headline]), scores["average"])
    return result


def items(folder: Path, prompting: str, label: str, name: str) -> list[dict[str, Any]]:
    """The records of one task of the cell ``name`` in ``folder``, item by item. Raises: DataError when they are missing."""
    path = folder / "gauntlet" / prompting / "items" / f"{label}.jsonl"
    if not path.is_file():
        raise DataError(
            f"the items of task {label!r} ({prompting}) of cell {name!r} are missing at {path}: "
            f"delete {folder / 'gauntlet'} and run the study again."
        )
    return read_rows(path)


def _task(label: str, recorded: Row, rows: Sequence[Row], scores: Row, configured: Row, *, parted: bool) -> Task:
    own = [recorded["category"], *recorded.get("also", [])]
    data = recorded.get("data") or {}  # older records tell nothing of their files
    scope = min(label, recorded.get("partner") or label)
    return Task(
        label=label,
        type=recorded["type"],
        category=recorded["category"],
        baseline=recorded["baseline"],
        partner=recorded.get("partner"),
        correct=[float(row["correct"]) for row in rows],
        clusters=[_cluster(row, scope) for row in rows],
        groups=[row.get("group") for row in rows],
        parts=[str(row["category"]) for row in rows] if parted else (),
        categories=[name for name in own if name is not None and name not in scores.get("removed", {})],
        weight=weight(configured.get("weighting", "EQUAL"), len(rows)),
        altered=str(data["sha256"])[:12] if data.get("state") == "altered" else "",
        golds=[row.get("gold") for row in rows],
        choices=[len(row["nll"]) if isinstance(row.get("nll"), list) else 0 for row in rows],
    )


def _share(scores: Row) -> str:
    """How much of the published version was asked, empty where its rows are not stated."""
    run, stated = scores.get("rows_run"), scores.get("rows_stated")
    if run is None or stated is None:
        return ""
    return (
        f"{run / stated * 100:.{0 if 100 * run > stated else 2}f} % of the rows of {scores['rows_of']} ({run:,} of {stated:,})"
    )


def _category(tasks: Sequence[Task]) -> float:
    return sum(_rescaled(task) * task.weight for task in tasks) / sum(task.weight for task in tasks)


def _cluster(row: Row, scope: str) -> str:
    """The cluster of an item; one that only has its number shares nothing with the same number of another task."""
    cluster = str(row["cluster"])
    return f"{scope} {cluster}" if cluster == str(row["index"]) else cluster


def _rescaled(task: Task) -> float:
    by_part: dict[str, list[float]] = {}
    for part, correct in zip(task.parts or [""] * len(task.correct), task.correct, strict=True):
        by_part.setdefault(part, []).append(correct)
    return (_mean([_mean(own) for own in by_part.values()]) - task.baseline) / (1 - task.baseline)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _agrees(name: str, what: str, found: float, recorded: float) -> None:
    if not abs(found - recorded) <= TOLERANCE:
        raise EvalError(
            f"cell {name!r}, {what}: its items give {found:.6f}, its summary says {recorded:.6f}: "
            f"delete the cell's gauntlet folder and run the study again."
        )


def _pair(folder: Path, cells: Mapping[str, Cell]) -> Pair:
    summary = _summary(folder, "pair")
    for role in ("cell", "baseline"):
        if summary[role] not in cells:
            raise LimitLabError(
                f"pair {summary['id']} compares cell {summary[role]}, which the report was not given: name that cell too."
            )
    items = read_rows(folder / "items.jsonl")
    rate = _mean([float(item["preference"]) for item in items])
    if not abs(rate - summary["rate"]) <= TOLERANCE:
        raise EvalError(
            f"pair {summary['id']}: its {len(items)} items give a rate of {rate:.6f}, its summary says "
            f"{summary['rate']:.6f}: delete {folder} and run the study again."
        )
    cell, baseline = cells[summary["cell"]], cells[summary["baseline"]]
    return Pair(id=summary["id"], cell=cell, baseline=baseline, summary=summary, items=items)
