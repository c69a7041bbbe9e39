"""Tables as plain data: a header, rows of words and estimates, and a note; the page decides how they look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from limit_lab.report.predicates import Finding
from limit_lab.report.records import Cell, Pair, Task
from limit_lab.report.scores import Scores
from limit_lab.stats import Estimate

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
    kept = [i for i in range(len(columns)) if any(row[i] != NOT_STATED for row in rows)]
    return Table("The cells under both paradigms, in %", [columns[i] for i in kept], [[row[i] for i in kept] for row in rows])


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
    words = "raw prompts" if prompting == "raw" else "in the template"
    return Table(f"Categories, {words}, in %", ["category", *(cell.name for cell in asked)], rows, note)


def at_chance(cells: Sequence[Cell], scores: Scores, prompting: str) -> list[str]:
    """Categories in which no cell is above chance."""
    found = [scores.cells[cell.name][prompting].categories for cell in cells if prompting in cell.suites]
    names = dict.fromkeys(name for categories in found for name in categories)
    return [name for name in names if all(own[name].low <= 0 for own in found if name in own)]


def partner_tables(cells: Sequence[Cell], scores: Scores, prompting: str) -> list[Table]:
    """Exact match beside likelihood on the same questions, by group where items carry one; plain accuracies."""
    return [_partner_table(cells, scores, prompting, *couple) for couple in _partners(cells, prompting)]


def _partner_table(cells: Sequence[Cell], scores: Scores, prompting: str, exact: Task, likely: Task) -> Table:
    groups = sorted({group for group in [*exact.groups, *likely.groups] if group})
    columns = ["cell"]
    for measure in ("exact match", "likelihood"):
        columns += [f"{measure}, {group}" for group in groups] or [measure]
    rows: list[list[str | Number]] = []
    for cell in cells:
        found = scores.cells[cell.name].get(prompting)
        if found is None:
            continue
        row: list[str | Number] = [cell.name]
        for label in (exact.label, likely.label):
            own = found.groups.get(label, {})
            values = [own.get(group) for group in groups] or [found.tasks.get(label)]
            row += [Number(value) if value else NOT_STATED for value in values]
        rows.append(row)
    chance = f"chance is {exact.baseline * 100:g} for exact match and {likely.baseline * 100:g} for likelihood"
    note = f"Accuracy in %, not rescaled; {chance}."
    if groups == ["elicitation", "injection"]:
        note += " Elicitation: facts met in pretraining. Injection: facts met only in fine-tuning."
    words = "raw prompts" if prompting == "raw" else "in the template"
    return Table(f"{exact.label} and {likely.label}: the same questions written out and ranked, {words}", columns, rows, note)


def _partners(cells: Sequence[Cell], prompting: str) -> list[tuple[Task, Task]]:
    """Couples of tasks that ask the same questions by exact match and by likelihood, each couple once."""
    found: dict[frozenset[str], tuple[Task, Task]] = {}
    for cell in cells:
        tasks = cell.suites[prompting].tasks if prompting in cell.suites else {}
        for task in tasks.values():
            other = tasks.get(task.partner) if task.partner else None
            if other is not None and other.measure != task.measure:
                couple = (task, other) if task.measure == "exact match" else (other, task)
                found.setdefault(frozenset((task.label, other.label)), couple)
    return list(found.values())


def totals_table(cells: Sequence[Cell]) -> Table:
    """What every cell was trained on and for how long; the untouched base has a row of dashes."""
    keys = list(dict.fromkeys(key for cell in cells for key in cell.summary["card"] if key != "sources"))
    rows = []
    for cell in cells:
        data, finetune = cell.summary["card"], cell.summary["finetune"]
        loss = f"{finetune['first_loss']:.2f} → {finetune['last_loss']:.2f}" if finetune else NOT_STATED
        rows.append([cell.name, *(_plain(data.get(key)) for key in keys), steps(cell), loss])
    return Table("Totals", ["cell", *(key.replace("_", " ") for key in keys), "steps", "loss, first → last step"], rows)


def sources_table(cells: Sequence[Cell]) -> Table | None:
    """One row for each source of each cell: what was kept and lost, its shares, and how varied it is."""
    rows = [
        [
            cell.name,
            name,
            f"{own['kept']:,} of {own['available']:,}",
            f"{own['dropped']:,} / {own['truncated']:,}",
            f"{own['tokens']:,}",
            *(f"{own[key] * 100:.1f} %" for key in ("document_share", "token_share", "loss_share")),
            _plain(own.get("distinct_facts")),
            _plain(own.get("distinct_templates")),
            {True: "repeats", False: "no", None: NOT_STATED}[own.get("repetition")],
            _plain(own.get("licence")),
        ]
        for cell in cells
        for name, own in cell.summary["card"]["sources"].items()
    ]
    columns = ["cell", "source", "kept", "dropped / truncated", "tokens", "of documents", "of tokens", "of the loss"]
    columns += ["distinct facts", "distinct templates", "repetition", "licence"]
    note = "Kept: samples drawn, of those the source offers. Of the loss: share of the tokens that are trained on."
    return Table("Sources", columns, rows, note) if rows else None


def _plain(value: Any) -> str:
    if value is None:
        return NOT_STATED
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def even(like: Estimate) -> Estimate:
    """The baseline against itself: one half by definition, without an interval."""
    return Estimate(value=0.5, low=0.5, high=0.5, n=like.n, clusters=like.clusters)
