"""Which rows of a task are not independent: those that ask about the same passage, or ask the same thing twice."""

from __future__ import annotations

from collections.abc import Sequence

from limit_lab.config import Task
from limit_lab.fingerprints import fingerprint
from limit_lab.gauntlet.tasks import Row, parts

#: Two questions share a passage when they begin with the same text of at least so many characters ...
PASSAGE_CHARACTERS = 120
#: ... which is at least this part of the shorter one.
PASSAGE_SHARE = 0.5


def clusters(task: Task, rows: Sequence[Row]) -> list[str]:
    """The cluster of every stripped row, the unit in which items are resampled.

    A row that names its ``entity`` belongs to it. Others belong together where their questions are equal or begin with the
    same passage; what all rows of a part (of a category, if scored by category) begin with is instruction and no passage.
    The name is a hash of the first question in code point order, so rows of two tasks that ask the same share it, and no
    others do.
    """
    found = [str(row["entity"]) if "entity" in row else "" for row in rows]
    for part in parts(task, rows):
        open_rows = [index for index in part if not found[index]]
        texts = {index: _question(rows[index]) for index in open_rows}
        for index, name in zip(open_rows, _passages([texts[index] for index in open_rows]), strict=True):
            found[index] = name
    return found


def _question(row: Row) -> str:
    """What is asked; of a schema row all contexts, in an order that its twin with the other answer shares."""
    if "context_options" in row:
        return "\n".join(sorted(row["context_options"]))
    text: str = row["query"] if "query" in row else row["context"]
    return text


def _passages(texts: Sequence[str]) -> list[str]:
    """The cluster of every text. Neighbours in code point order share the longest beginnings, so only they are compared."""
    order = sorted(range(len(texts)), key=lambda index: texts[index])
    if not order:
        return []
    head = _shared(texts[order[0]], texts[order[-1]]) if len(order) > 1 else 0
    found = [""] * len(texts)
    before = order[0]
    found[before] = fingerprint(texts[before])
    for index in order[1:]:
        together = _together(texts[before], texts[index], head)
        found[index] = found[before] if together else fingerprint(texts[index])
        before = index
    return found


def _together(one: str, other: str, head: int) -> bool:
    if one == other:
        return True
    shared, shorter = _shared(one, other) - head, min(len(one), len(other)) - head
    return shared >= PASSAGE_CHARACTERS and shared >= PASSAGE_SHARE * shorter


def _shared(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low
