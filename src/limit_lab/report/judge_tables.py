"""Tables on the answers and their judge: components, rates, the order of cells, lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from limit_lab.report.orders import Orders
from limit_lab.report.records import Cell, Pair
from limit_lab.report.scores import Scores
from limit_lab.report.tables import NOT_STATED, Number, Table

COMPONENTS = {
    "correct_claims": "correct claims",
    "wrong_claims": "wrong claims",
    "on_topic": "on topic",
    "structure": "structure",
    "repetition": "repetition",
}


def component_table(pairs: Sequence[Pair]) -> Table | None:
    """What the judge saw in the answers of every cell, as it recorded it."""
    seen: dict[str, Mapping[str, Any]] = {}
    for pair in pairs:
        parts = pair.summary.get("components") or {}
        for role, cell in (("baseline", pair.baseline), ("cell", pair.cell)):
            if parts.get(role):
                seen.setdefault(cell.name, parts[role])
    if not seen:
        return None
    keys = list(dict.fromkeys(key for parts in seen.values() for key in parts))
    rows = [[name, *(f"{parts[key]:.2f}" if key in parts else NOT_STATED for key in keys)] for name, parts in seen.items()]
    columns = ["cell", *(COMPONENTS.get(key, key.replace("_", " ")) for key in keys)]
    return Table("What the judge found in the answers", columns, rows, "Means per answer, as the judge recorded them.")


def phrasing_table(pairs: Sequence[Pair], scores: Scores) -> Table:
    """Rates by judge and baseline: all prompts, by facts alone, on phrasings met and never met in training."""
    rows: list[list[str | Number]] = []
    for pair in pairs:
        own = scores.pairs[pair.id]
        counts = f"{pair.summary['wins']} / {pair.summary['ties']} / {pair.summary['losses']}"
        numbers = [Number(value) if value else NOT_STATED for value in (own.rate, own.facts, own.seen, own.unseen)]
        what = "win rate" if pair.prefers else "no preference judge"
        rows.append([f"{pair.cell.name} against {pair.baseline.name}", f"{pair.judge} ({what})", counts, *numbers])
    columns = [
        "pair",
        "judge",
        "won / tied / lost",
        "rate",
        "by facts alone",
        "phrasings trained on",
        "phrasings never trained on",
    ]
    kept = [i for i in range(len(columns)) if i < 4 or any(row[i] != NOT_STATED for row in rows)]
    note = "In %, ties as halves; even is 50."
    note += " By facts alone: correct minus wrong claims, no style." if 4 in kept else ""
    return Table("Pairs", [columns[i] for i in kept], [[row[i] for i in kept] for row in rows], note)


def order_table(order: Orders) -> Table:
    """Neighbours in the judge's order, and how many random weightings of its components keep each couple so."""
    rows: list[list[str | Number]] = []
    for place, name in enumerate(order.full, 1):
        following = f"{order.steps[place - 1] * 100:.0f} %" if place <= len(order.steps) else NOT_STATED
        side = f"{order.sides[name] * 100:.0f} %" if name in order.sides else NOT_STATED
        rows.append([f"{place}. {name}", f"{order.facts.index(name) + 1}", following, side])
    note = (
        f"{order.same * 100:.0f} % of {order.weightings} random weightings of the judge's components give this whole order."
        f" {order.baseline} is the baseline and stands at 50."
    )
    columns = ["order by full score", "place by facts alone", "weightings that keep it above the next"]
    columns.append(f"weightings that keep it on its side of {order.baseline}")
    return Table(f"Does the order depend on the weights of the judge {order.judge}?", columns, rows, note)


def length_table(cells: Sequence[Cell]) -> Table | None:
    rows = []
    for cell in cells:
        answers = cell.summary["answers"]
        if answers["prompts"]:
            shares = [f"{answers[key] * 100:.1f} %" for key in ("ended_share", "hit_limit_share")]
            rows.append([cell.name, f"{answers['prompts']:,}", f"{answers['words_mean']:.1f}", *shares])
    columns = ["cell", "answers", "mean words", "ended by themselves", "hit the length limit"]
    return Table("Length of the answers", columns, rows) if rows else None
