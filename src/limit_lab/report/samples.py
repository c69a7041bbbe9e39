"""Answers side by side: a few prompts chosen by their position, never by what was answered."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from limit_lab.report.arms import Arm
from limit_lab.report.records import Row

PROMPTS = 4
#: Runs of the same line from this length on are shown once, with their number.
RUN = 3


@dataclass(frozen=True, slots=True)
class Shown:
    """One prompt and what every cell answered, as (cell, answer, whether it ended by itself)."""

    prompt: str
    unseen: bool
    answers: Sequence[tuple[str, str, bool]]


def samples(cells: Sequence[Arm]) -> list[Shown]:
    """Prompts that all answering cells share, evenly spaced; half in phrasings never trained on, if there are any."""
    answering = {cell.name: _first_seed(cell.answers) for cell in cells if cell.answers}
    if not answering:
        return []
    first, *others = answering.values()
    shared = [i for i, row in first.items() if all(i in other and other[i]["prompt"] == row["prompt"] for other in others)]
    unseen = [i for i in shared if first[i].get("unseen")]
    seen = [i for i in shared if i not in set(unseen)]
    half = min(PROMPTS // 2, len(unseen))
    chosen = spaced(seen, PROMPTS - half) + spaced(unseen, half)
    return [
        Shown(
            str(first[i]["prompt"]),
            bool(first[i].get("unseen")),
            [(name, folded(str(rows[i]["answer"])), bool(rows[i]["ended"])) for name, rows in answering.items()],
        )
        for i in chosen
    ]


def folded(text: str) -> str:
    """The text with every long run of one line shown once, followed by how often it stood there."""
    lines: list[str] = []
    for line, run in itertools.groupby(text.split("\n")):
        count = len(list(run))
        lines += [f"{line} ⟨this line {count} times⟩"] if line.strip() and count >= RUN else [line] * count
    return "\n".join(lines)


def _first_seed(rows: Sequence[Row]) -> dict[int, Row]:
    seed = min(row["seed"] for row in rows)
    return {row["index"]: row for row in sorted(rows, key=lambda row: int(row["index"])) if row["seed"] == seed}


def spaced(values: Sequence[int], count: int) -> list[int]:
    """``count`` of the values, evenly spaced; all where there are no more."""
    if len(values) <= count:
        return list(values)
    return [values[(2 * place + 1) * len(values) // (2 * count)] for place in range(count)]
