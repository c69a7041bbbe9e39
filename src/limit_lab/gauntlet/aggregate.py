"""From records to scores: accuracy, gain over chance, categories, and the averages that a missing task forbids.

Source: llm-foundry's EvalGauntlet, baselines subtracted and scores rescaled. Where the original takes a plain bug for a
result, ``compat=strict`` does too, and without it that is an error (`limit_lab.gauntlet` lists every quirk).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from limit_lab.config import Gauntlet, Task
from limit_lab.errors import EvalError
from limit_lab.gauntlet.tasks import asked

Results = Mapping[str, Mapping[str, Any]]


def accuracy(correct: int, total: int) -> float:
    """The share of right answers, divided in float32 as the original's accumulators are, then widened."""
    return float(np.float32(correct) / np.float32(total))


def rescale(score: float, baseline: float) -> float:
    """Gain over chance, 1 for a perfect score; below chance it is negative and stays so."""
    return (score - baseline) / (1 - baseline)


def weight(weighting: str, rows: int) -> float:
    """What a task of ``rows`` rows weighs in its categories."""
    if weighting == "EQUAL":
        return 1
    return rows if weighting == "SAMPLE_SZ" else max(math.log2(rows), 1)


def task_result(
    task: Task, records: Sequence[Mapping[str, Any]], *, prompting: str, data: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Score and settings of one task. With categories the score is the plain mean of the categories' accuracies.

    ``data``: ``sha256`` and ``state`` of the task's file, as `files.stated` tells them; None where nobody looked.
    Raises: EvalError when there are no records.
    """
    if not records:
        raise EvalError(f"the task {task.label} has no records: evaluate it again.")
    by_part: dict[str, list[int]] = {}
    for record in records:
        by_part.setdefault(record["category"] if task.has_categories else "", []).append(record["correct"])
    accuracies = [accuracy(sum(by_part[part]), len(by_part[part])) for part in sorted(by_part)]
    score = sum(accuracies) / len(accuracies)
    return {
        "type": task.type,
        "category": task.category,
        "also": task.also,
        "shots": 0 if prompting == "template" else task.shots,
        "n": len(records),
        "correct": sum(record["correct"] for record in records),
        "score": score,
        "baseline": task.baseline,
        "rescaled": rescale(score, task.baseline),
        "partner": task.partner,
        "data": data,
    }


def composite(suite: Gauntlet, results: Results, *, prompting: str) -> dict[str, Any]:
    """Category means of the rescaled scores, their mean over the suite's headline categories, and its further averages.

    Ways of prompting are never mixed: a category that has no task in this one is named in ``not_asked``, and an average
    none of whose categories is asked is None. ``removed`` (``compat=strict`` alone) holds the categories that are left
    out of every average, with the tasks that have no result. ``rows_run`` counts the rows behind the scores, those of a
    task with several numbers of shots once; ``rows_stated`` those of the whole version ``rows_of``, None where unknown.
    Raises: EvalError naming every task without a result, or when no headline category is asked at all.
    """
    tasks = asked(suite, prompting)
    missing = [task.label for task in tasks if task.label not in results]
    if missing and suite.compat != "strict":
        raise EvalError(
            f"gauntlet={suite.name} has no {prompting} result for {', '.join(missing)}, so it has no average: "
            "evaluate them, or choose a suite without these tasks, which has another name."
        )
    members: dict[str, list[Task]] = {}
    for task in tasks:
        for category in task.categories:
            members.setdefault(category, []).append(task)
    removed = {name: [task.label for task in own if task.label in missing] for name, own in members.items()}
    categories = {name: _mean(suite, own, results) for name, own in members.items() if not removed[name]}
    average = _average(suite, suite.average, categories)
    if average is None:
        raise EvalError(
            f"gauntlet={suite.name} asks no task of its headline categories in {prompting} prompting: "
            "name categories in gauntlet.average, or leave this prompting out."
        )
    every = dict.fromkeys(category for task in suite.tasks for category in task.categories)
    return {
        "categories": categories,
        "average": average,
        "averages": {name: _average(suite, own, categories) for name, own in suite.averages.items()},
        "not_asked": [name for name in every if name not in members],
        "removed": {name: labels for name, labels in removed.items() if labels},
        "rows_run": _rows_run(tasks, results),
        "rows_stated": suite.whole_rows,
        "rows_of": suite.whole,
    }


def _mean(suite: Gauntlet, tasks: Sequence[Task], results: Results) -> float:
    """The weighted mean of the tasks' rescaled scores."""
    weights = [weight(suite.weighting, results[task.label]["n"]) for task in tasks]
    scores = [results[task.label]["rescaled"] for task in tasks]
    total: float = sum(one * own for one, own in zip(scores, weights, strict=True))
    return total / sum(weights)


def _average(suite: Gauntlet, names: Sequence[str], categories: Mapping[str, float]) -> float | None:
    """The mean over the named categories that there are; of none it is None, and 0 under ``compat=strict``."""
    found = [categories[name] for name in names if name in categories]
    if not found:
        return 0.0 if suite.compat == "strict" else None
    return sum(found) / len(found)


def _rows_run(tasks: Sequence[Task], results: Results) -> int:
    rows: dict[str, int] = {}
    for task in tasks:
        if task.label in results:
            rows[task.name] = max(rows.get(task.name, 0), results[task.label]["n"])
    return sum(rows.values())
