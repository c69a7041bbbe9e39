"""Tables as plain data: a header, rows of words and estimates, and a note; the page decides how they look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from limit_lab.report.orders import Orders
from limit_lab.report.predicates import Finding
from limit_lab.report.records import Cell, Pair, Task
from limit_lab.report.scores import Scores
from limit_lab.stats import Estimate

COMPONENTS = {
    "correct_claims": "correct claims",
    "wrong_claims": "wrong claims",
    "on_topic": "on topic",
    "structure": "structure",
    "repetition": "repetition",
}
NOT_STATED = "–"


@dataclass(frozen=True, slots=True)
class Number:
    """An estimate and how to write it; ``mark`` stands behind it and is explained in the table's note."""

    estimate: Estimate
    scale: float = 100.0
    digits: int = 1
    mark: str = ""

    @property
    def value(self) -> str:
        return minus(f"{self.estimate.value * self.scale:.{self.digits}f}")

    @property
    def interval(self) -> str:
        low, high = (f"{end * self.scale:.{self.digits}f}" for end in (self.estimate.low, self.estimate.high))
        return minus(f"[{low}, {high}]")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows are aligned with the columns; the first entry of a row names it."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Number]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """One cell's training data: its totals and one row for each source."""

    name: str
    totals: Mapping[str, str]
    sources: Table | None = field(default=None)


def minus(text: str) -> str:
    return text.replace("-", "−")


def claim_measured(finding: Finding) -> Number | None:
    """The number of a finding in its own unit: points, percent, or the judge's scale."""
    if finding.estimate is None:
        return None
    return Number(finding.estimate, 1.0, 2) if finding.unit == "score" else Number(finding.estimate)


def overview(cells: Sequence[Cell], pairs: Sequence[Pair], scores: Scores) -> Table:
    """Each cell once: what it was trained on, and where it stands under either paradigm."""
    against = pairs[0].baseline.name if pairs else ""
    rates = {pair.cell.name: scores.pairs[pair.id].rate for pair in pairs}
    kind = "win rate" if pairs and pairs[0].prefers else "rate (no preference judge)"
    columns = ["cell", "samples", "steps", "benchmarks, raw", "benchmarks, template"] + (
        [f"{kind} against {against}"] if pairs else []
    )
    rows: list[list[str | Number]] = []
    for cell in cells:
        averages = [scores.cells[cell.name].get(prompting) for prompting in ("raw", "template")]
        row: list[str | Number] = [cell.name, samples(cell), steps(cell)]
        row += [Number(found.average) if found and found.average else NOT_STATED for found in averages]
        if pairs:
            own = "50 by definition" if cell.name == against else NOT_STATED
            row.append(Number(rates[cell.name]) if cell.name in rates else own)
        rows.append(row)
    return Table("The cells under both paradigms, in %", columns, rows)


def samples(cell: Cell) -> str:
    parts = [f"{count:,} {source}" for source, count in cell.summary["samples"].items()]
    return " + ".join(parts) or "none: the untouched base"


def steps(cell: Cell) -> str:
    finetune = cell.summary["finetune"]
    return f"{finetune['steps']:,} ({finetune['epochs']:g} epochs)" if finetune else NOT_STATED


def category_table(cells: Sequence[Cell], scores: Scores, prompting: str) -> Table | None:
    """Rescaled category scores; a dagger marks those that are not above chance."""
    asked = [cell for cell in cells if prompting in cell.suites]
    if not asked:
        return None
    names = list(dict.fromkeys(name for cell in asked for name in cell.suites[prompting].categories))
    rows: list[list[str | Number]] = []
    for name in names:
        row: list[str | Number] = [name]
        for cell in asked:
            found = scores.cells[cell.name][prompting].categories.get(name)
            row.append(Number(found, mark="†" if found.low <= 0 else "") if found else NOT_STATED)
        rows.append(row)
    outside = [name for name in names if all(name not in cell.suites[prompting].average for cell in asked)]
    note = "Rescaled: 0 is chance, 100 all correct. † not above chance: the interval reaches 0 or less."
    note += f" Not part of the average: {', '.join(outside)}." if outside else ""
    missing = sorted({label for cell in asked for label in cell.suites[prompting].not_asked})
    note += f" Not asked this way: {', '.join(missing)}." if missing else ""
    words = "raw prompts" if prompting == "raw" else "inside the instruction template"
    return Table(f"Categories, {words}, in %", ["category", *(cell.name for cell in asked)], rows, note)


def at_chance(cells: Sequence[Cell], scores: Scores, prompting: str) -> list[str]:
    """Categories in which no cell is above chance."""
    found = [scores.cells[cell.name][prompting].categories for cell in cells if prompting in cell.suites]
    names = dict.fromkeys(name for categories in found for name in categories)
    return [name for name in names if all(own[name].low <= 0 for own in found if name in own)]


def partner_table(cells: Sequence[Cell], scores: Scores, prompting: str) -> Table | None:
    """Exact match beside likelihood on the same questions, by group where items carry one; plain accuracies."""
    couples = [couple for couple in _partners(cells, prompting) if couple[0].measure != couple[1].measure]
    if not couples:
        return None
    rows: list[list[str | Number]] = []
    groups: dict[tuple[str, str], list[str]] = {}
    for one, other in couples:
        exact, likely = (one, other) if one.measure == "exact match" else (other, one)
        groups[exact.label, likely.label] = sorted({g for g in [*exact.groups, *likely.groups] if g}) or [""]
    columns = ["cell"]
    for (exact, likely), names in groups.items():
        for label, measure in ((exact, "exact match"), (likely, "likelihood")):
            columns += [f"{label}: {measure}{', ' + name if name else ''}" for name in names]
    for cell in cells:
        found = scores.cells[cell.name].get(prompting)
        if found is None:
            continue
        row: list[str | Number] = [cell.name]
        for labels, names in groups.items():
            for label in labels:
                values = [found.groups.get(label, {}).get(name) if name else found.tasks.get(label) for name in names]
                row += [Number(value) if value else NOT_STATED for value in values]
        rows.append(row)
    note = "Accuracy in %, not rescaled."
    if any(names != [""] for names in groups.values()):
        note += " Elicitation: facts met in pretraining. Injection: facts met only in fine-tuning."
    words = "raw prompts" if prompting == "raw" else "inside the template"
    return Table(f"The same questions, written out and ranked, {words}", columns, rows, note)


def _partners(cells: Sequence[Cell], prompting: str) -> list[tuple[Task, Task]]:
    """Couples of tasks that ask the same questions, each couple once."""
    found: dict[frozenset[str], tuple[Task, Task]] = {}
    for cell in cells:
        tasks = cell.suites[prompting].tasks if prompting in cell.suites else {}
        for task in tasks.values():
            if task.partner in tasks:
                found.setdefault(frozenset((task.label, task.partner)), (task, tasks[task.partner]))
    return list(found.values())


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
    rows: list[list[str | Number]] = [
        [
            f"{place}. {name}",
            f"{order.facts.index(name) + 1}",
            "" if place > len(order.steps) else f"{order.steps[place - 1] * 100:.0f} %",
        ]
        for place, name in enumerate(order.full, 1)
    ]
    note = (
        f"{order.same * 100:.0f} % of {order.weightings} random weightings of the judge's components give this whole order. "
        f"{order.baseline} is the baseline and stands at 50."
    )
    columns = ["order by full score", "place by facts alone", "weightings that keep it above the next"]
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


def card(cell: Cell) -> Card:
    """The data card of one cell."""
    data = cell.summary["card"]
    if not data["documents"]:
        return Card(cell.name, {"documents": "none: the untouched base"})
    totals = {key.replace("_", " "): _plain(value) for key, value in data.items() if key != "sources"}
    finetune = cell.summary["finetune"] or {}
    if finetune:
        totals["steps"] = steps(cell)
        totals["loss, first to last step"] = f"{finetune['first_loss']:.2f} → {finetune['last_loss']:.2f}"
    rows = [
        [
            name,
            f"{own['kept']:,} of {own['available']:,}",
            f"{own['dropped']:,}",
            f"{own['truncated']:,}",
            f"{own['tokens']:,}",
            *(f"{own[key] * 100:.1f} %" for key in ("document_share", "token_share", "loss_share")),
            _plain(own.get("distinct_facts")),
            _plain(own.get("distinct_templates")),
            "repeats" if own.get("repetition") else "no",
            _plain(own.get("licence")),
        ]
        for name, own in data["sources"].items()
    ]
    columns = ["source", "kept", "dropped", "truncated", "tokens", "of documents", "of tokens", "of the loss"]
    columns += ["distinct facts", "distinct templates", "repetition", "licence"]
    return Card(cell.name, totals, Table("Sources", columns, rows))


def _plain(value: Any) -> str:
    if value is None:
        return NOT_STATED
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
