"""What an answer scores that never looks at the question, counted in the items themselves."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from limit_lab.report.records import Task


@dataclass(frozen=True, slots=True)
class Chance:
    """Accuracies on a task's scale: of a choice drawn evenly (None where nothing is chosen), of one answer given always."""

    drawn: float | None
    same: float


def chance(task: Task) -> Chance | None:
    """What the task's items give away; None where its records do not say what is right.

    ``drawn`` is the mean of 1 / choices. ``same`` is what the answer scores that is right most often: an index of a choice,
    or a text; of several accepted texts any. A task with categories is scored as the mean over them, here too.
    """
    if not task.golds or any(gold is None for gold in task.golds):
        return None
    weights = item_weights(task.parts or [""] * len(task.golds))
    right: defaultdict[Hashable, float] = defaultdict(float)
    for gold, weight in zip(task.golds, weights, strict=True):
        for answer in set(gold) if isinstance(gold, list | tuple) else {gold}:
            right[answer] += weight
    drawn = None
    if all(task.choices):
        drawn = sum(weight / count for count, weight in zip(task.choices, weights, strict=True))
    return Chance(drawn=drawn, same=max(right.values()))


def item_weights(parts: Sequence[str]) -> list[float]:
    """What each item counts in a task's score, which is the plain mean over its parts: they sum to 1."""
    sizes = Counter(parts)
    return [1 / (len(sizes) * sizes[part]) for part in parts]
