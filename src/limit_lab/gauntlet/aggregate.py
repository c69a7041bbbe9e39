"""From records to scores: accuracy, gain over chance, categories, and the average that a missing task forbids.

Source: llm-foundry's EvalGauntlet with equal weights, baselines subtracted and scores rescaled. Unlike it, a missing task
is an error: the original drops its whole category and averages the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from limit_lab.config import Gauntlet, Task
from limit_lab.errors import EvalError
from limit_lab.gauntlet.tasks import asked


def accuracy(correct: int, total: int) -> float:
    """The share of right answers, divided in float32 as the original's accumulators are, then widened."""
    return float(np.float32(correct) / np.float32(total))


def rescale(score: float, baseline: float) -> float:
    """Gain over chance, 1 for a perfect score; below chance it is negative and stays so."""
    return (score - baseline) / (1 - baseline)


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
        "shots": task.shots if prompting == "raw" else 0,
        "n": len(records),
        "correct": sum(record["correct"] for record in records),
        "score": score,
        "baseline": task.baseline,
        "rescaled": rescale(score, task.baseline),
        "partner": task.partner,
        "data": data,
    }


def composite(suite: Gauntlet, results: Mapping[str, Mapping[str, Any]], *, prompting: str) -> dict[str, Any]:
    """Category means of the rescaled scores, and their mean over the suite's headline categories.

    The two prompting modes are never mixed: a category that has no task in this mode is named in ``not_asked``.
    Raises: EvalError naming every task without a result, or when no headline category is asked at all.
    """
    tasks = asked(suite, prompting)
    missing = [task.label for task in tasks if task.label not in results]
    if missing:
        raise EvalError(
            f"gauntlet={suite.name} has no {prompting} result for {', '.join(missing)}, so it has no average: "
            "evaluate them, or choose a suite without these tasks, which has another name."
        )
    members: dict[str, list[float]] = {}
    for task in tasks:
        members.setdefault(task.category, []).append(results[task.label]["rescaled"])
    categories = {name: sum(scores) / len(scores) for name, scores in members.items()}
    headline = [categories[name] for name in suite.average if name in categories]
    if not headline:
        raise EvalError(
            f"gauntlet={suite.name} asks no task of its headline categories in {prompting} prompting: "
            "name categories in gauntlet.average, or leave this prompting out."
        )
    every = dict.fromkeys(task.category for task in suite.tasks)
    return {
        "categories": categories,
        "average": sum(headline) / len(headline),
        "not_asked": [name for name in every if name not in categories],
    }
