"""Tables on the answers and their judge: components, rates, the order of cells, lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from limit_lab.report.arms import Arm, Comparison
from limit_lab.report.orders import Orders
from limit_lab.report.records import NOT_STATED
from limit_lab.report.scores import Scores
from limit_lab.report.tables import EVEN, Number, Table

COMPONENTS = {
    "correct_claims": "correct claims",
    "wrong_claims": "wrong claims",
    "on_topic": "on topic",
    "structure": "structure",
    "repetition": "repetition",
}


def component_table(pairs: Sequence[Comparison], scores: Scores) -> Table | None:
    """The judge's score of every cell, and what it saw in the answers as it recorded it; the first judge with components."""
    described = [pair for pair in pairs if pair.components]
    seen: dict[str, tuple[Number, Mapping[str, Any]]] = {}
    for pair in [pair for pair in described if pair.judge == described[0].judge]:
        own, parts = scores.pairs[pair.id], pair.components
        seen.setdefault(pair.baseline.name, (Number(own.score_baseline, 1.0, 2), parts["baseline"]))
        seen.setdefault(pair.cell.name, (Number(own.score_cell, 1.0, 2), parts["cell"]))
    if not seen:
        return None
    keys = list(dict.fromkeys(key for _, parts in seen.values() for key in parts))
    rows: list[list[str | Number]] = [
        [name, score, *(f"{parts[key]:.2f}" if key in parts else NOT_STATED for key in keys)]
        for name, (score, parts) in seen.items()
    ]
    columns = ["cell", "judge score", *(COMPONENTS.get(key, key.replace("_", " ")) for key in keys)]
    note = "Means per answer. The components carry no interval: the judge recorded only their means."
    return Table(f"What the judge {described[0].judge} found in the answers", columns, rows, note)


def phrasing_table(pairs: Sequence[Comparison], scores: Scores) -> Table:
    """Rates by judge and baseline: all prompts, by facts alone, on phrasings met and never met in training."""
    rows: list[list[str | Number]] = []
    for pair in pairs:
        own = scores.pairs[pair.id]
        counts = " / ".join(f"{count:,}" for count in pair.counts)
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


def order_table(order: Orders, pairs: Sequence[Comparison], scores: Scores) -> Table:
    """The judge's order beside the one by facts alone, and how many random weightings of its components keep it."""
    own = {p.cell.name: scores.pairs[p.id] for p in pairs if p.judge == order.judge and p.baseline.name == order.baseline}
    rows: list[list[str | Number]] = []
    for place, name in enumerate(order.full, 1):
        row: list[str | Number] = [f"{place}. {name}", EVEN, f"{order.facts.index(name) + 1}.", EVEN, NOT_STATED, NOT_STATED]
        if name in own:
            low, high = order.ranges[name]
            row[1], row[4] = Number(own[name].rate), f"{low * 100:.1f} to {high * 100:.1f}"
            row[3] = Number(facts) if (facts := own[name].facts) else NOT_STATED
            row[5] = f"{order.sides[name] * 100:.0f} %"
        row.append(f"{order.steps[place - 1] * 100:.0f} %" if place <= len(order.steps) else NOT_STATED)
        rows.append(row)
    note = (
        f"{order.same * 100:.0f} % of {order.weightings} random weightings of the judge's components give this whole order. "
        "The prompts are the same under all of them, so these shares say nothing about other prompts; the intervals do."
    )
    columns = ["order by full score", f"rate against {order.baseline}", "place by facts alone", "rate by facts alone"]
    columns += ["lowest to highest rate over the weightings", f"weightings that keep its side of {order.baseline}"]
    columns.append("weightings that keep it above the next")
    return Table(f"Does the order depend on the weights of the judge {order.judge}?", columns, rows, note)


def length_table(cells: Sequence[Arm]) -> Table | None:
    rows = []
    for cell in cells:
        answers = cell.summary["answers"]
        if answers["prompts"]:
            shares = [f"{answers[key] * 100:.1f} %" for key in ("ended_share", "hit_limit_share")]
            rows.append([cell.name, f"{answers['prompts']:,}", f"{answers['words_mean']:.1f}", *shares])
    columns = ["cell", "answers", "mean words", "ended by themselves", "hit the length limit"]
    return Table("Length of the answers", columns, rows) if rows else None
