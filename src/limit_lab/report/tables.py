"""Tables as plain data: a header, rows of words and estimates, and a note; the page decides how they look."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from limit_lab.report.arms import Arm, Comparison
from limit_lab.report.predicates import Finding
from limit_lab.report.records import NOT_STATED, Suite, Task
from limit_lab.report.scores import Scores
from limit_lab.stats import Estimate
from limit_lab.store import Missing

EVEN = "50 by definition"
WORDS = {"raw": "raw prompts", "raw_0_shot": "raw prompts without shots", "template": "in the template"}
#: A task in which the interval of every cell lies above this accuracy hardly tells cells apart.
CEILING = 0.95


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
    def error(self) -> str:
        return f"± {self.estimate.error * self.scale:.{self.digits}f}"

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


def typeset(text: str) -> str:
    """Hyphens before numbers as minus signs; words, dates and options keep theirs."""
    return re.sub(r"(?<![\w-])-(?=\d)", "−", text)


def claim_measured(finding: Finding) -> Number | None:
    """The number of a finding in its own unit: points, percent, or the judge's scale."""
    if finding.estimate is None:
        return None
    return Number(finding.estimate, 1.0, 2) if finding.unit == "score" else Number(finding.estimate)


def claim_unit(finding: Finding) -> str:
    """The unit behind the number of a finding, empty on the judge's own scale."""
    return {"score": "", "points": "points"}.get(finding.unit, "%")


def changed(suite: Suite, labels: Iterable[str]) -> str:
    """The mark behind a number that rests on altered data of one of these tasks."""
    return "‡" if any(label in suite.altered for label in labels) else ""


def altered(cells: Sequence[Arm], promptings: Iterable[str]) -> str:
    """The end of a note that names altered data behind the mark; empty where there is none."""
    suites = [
        suite for prompting in promptings for arm in cells for one in arm.cells.values() if (suite := one.suites.get(prompting))
    ]
    found = dict.fromkeys(f"{label} ({short})" for suite in suites for label, short in suite.altered.items())
    return f" ‡ altered data, not the original file of {', '.join(found)}." if found else ""


def overview(cells: Sequence[Arm], pairs: Sequence[Comparison], scores: Scores) -> Table:
    """Each cell once: what it was trained on, and where it stands under either paradigm."""
    against = pairs[0].baseline.label if pairs else ""
    rates = {pair.cell.name: scores.pairs[pair.id].rate for pair in pairs}
    kind = "win rate" if pairs and pairs[0].prefers else "rate (no preference judge)"
    columns = ["cell", "samples", "steps", "benchmarks, raw", "benchmarks, raw without shots", "benchmarks, template"] + (
        [f"{kind} against {against}"] if pairs else []
    )
    rows: list[list[str | Number]] = []
    for cell in cells:
        row: list[str | Number] = [cell.name, samples(cell), steps(cell)]
        row += [_average(cell, scores, prompting) for prompting in WORDS]
        if pairs:
            own = EVEN if pairs and cell.label == against else NOT_STATED
            row.append(Number(rates[cell.name]) if cell.name in rates else own)
        rows.append(row)
    kept = [i for i in range(len(columns)) if any(row[i] != NOT_STATED for row in rows)]
    shown = [[row[i] for i in kept] for row in rows]
    shares = (_shares(cells, one) for one in WORDS)
    note = " ".join(
        text for text in (_different_steps(cells), _recipe_notes(cells), *shares, altered(cells, WORDS).strip()) if text
    )
    return Table("The cells under both paradigms, in %", [columns[i] for i in kept], shown, note)


def _average(cell: Arm, scores: Scores, prompting: str) -> str | Number:
    found = scores.cells[cell.name].get(prompting)
    if found is None or found.average is None:
        return NOT_STATED
    suite = cell.suites[prompting]
    counted = [task.label for name in suite.average for task in suite.of(name)]
    return Number(found.average, mark=changed(suite, counted))


def _recipe_notes(cells: Sequence[Arm]) -> str:
    """What the recipes say of themselves, each once."""
    recipes = [cell.summary["config"].get("finetune", {}) for cell in cells if not cell.untouched]
    return " ".join(dict.fromkeys(f"{one['name']}: {one['note']}." for one in recipes if one.get("note")))


def _different_steps(cells: Sequence[Arm]) -> str:
    """A warning where cells were trained for different numbers of steps, with the extremes; else empty."""
    found = {cell.name: int(cell.summary["finetune"]["steps"]) for cell in cells if not cell.untouched}
    if len(set(found.values())) < 2:
        return ""
    least, most = min(found, key=lambda name: found[name]), max(found, key=lambda name: found[name])
    told = f"from {found[least]:,} steps ({least}) to {found[most]:,} ({most})"
    return f"Training differs in length, {told}: a difference between these cells may come from steps as well as from data."


def samples(cell: Arm) -> str:
    """What the cell was trained on; of several sources, each with its share of the loss."""
    cards = cell.summary["card"]["sources"]
    shares = [f" ({cards[source]['loss_share'] * 100:.0f} % of the loss)" for source in cards] if len(cards) > 1 else [""]
    parts = [f"{count:,} {source}" for source, count in cell.summary["samples"].items()]
    return " + ".join(map("".join, zip(parts, shares, strict=True))) if parts else "none: the untouched base"


def steps(cell: Arm) -> str:
    finetune = cell.summary["finetune"]
    return f"{finetune['steps']:,} ({finetune['epochs']:.3g} epochs)" if finetune else NOT_STATED


def category_table(cells: Sequence[Arm], scores: Scores, prompting: str) -> Table | None:
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
            if found is None:
                row.append(NOT_STATED)
                continue
            suite = cell.suites[prompting]
            mark = changed(suite, [task.label for task in suite.of(name)])
            row.append(Number(found, mark=("†" if found.low <= 0 else "") + mark))
        rows.append(row)
    outside = [name for name in names if all(name not in cell.suites[prompting].average for cell in asked)]
    note = "Rescaled: 0 is chance, 100 all correct. † not above chance: the interval reaches 0 or less."
    note += f" Not part of the average: {', '.join(outside)}." if outside else ""
    missing = sorted({label for cell in asked for label in cell.suites[prompting].not_asked})
    note += f" Not asked this way: {', '.join(missing)}." if missing else ""
    note += f" {_shares(cells, prompting)}".rstrip() + altered(asked, [prompting])
    return Table(f"Categories, {WORDS[prompting]}, in %", ["category", *(cell.name for cell in asked)], rows, note)


def _shares(cells: Sequence[Arm], prompting: str) -> str:
    """How much of a published version stands behind the scores, where that is known."""
    found = [cell.suites[prompting].share for cell in cells if prompting in cell.suites and cell.suites[prompting].share]
    return f"{WORDS[prompting].capitalize()}: {'; '.join(dict.fromkeys(found))}." if found else ""


def task_table(cells: Sequence[Arm], scores: Scores, prompting: str) -> Table:
    """Plain accuracies of every task; a dagger marks those that are not above chance."""
    asked = [cell for cell in cells if prompting in cell.suites]
    tasks = {label: task for cell in asked for label, task in cell.suites[prompting].tasks.items()}
    rows: list[list[str | Number]] = []
    for label, task in tasks.items():
        row: list[str | Number] = [
            label,
            task.category or NOT_STATED,
            task.measure,
            f"{len(task.correct):,}",
            f"{task.baseline * 100:g}",
        ]
        for cell in asked:
            found = scores.cells[cell.name][prompting].tasks.get(label)
            mark = changed(cell.suites[prompting], [label])
            row.append(Number(found, mark=("†" if found.low <= task.baseline else "") + mark) if found else NOT_STATED)
        rows.append(row)
    note = "Accuracy in %, not rescaled. † not above chance: the interval reaches chance or less."
    parted = [label for label, task in tasks.items() if task.parts]
    note += f" Means over the categories of their items: {', '.join(parted)}." if parted else ""
    note += altered(asked, [prompting])
    columns = ["task", "category", "scored by", "items", "chance", *(cell.name for cell in asked)]
    return Table(f"Tasks, {WORDS[prompting]}, in %", columns, rows, note)


def telling(cells: Sequence[Arm], scores: Scores, prompting: str) -> list[str]:
    """What the numbers under one prompting cannot tell apart: tasks at chance for every cell, tasks near all correct."""
    asked = [cell for cell in cells if prompting in cell.suites]
    tasks = {label: task for cell in asked for label, task in cell.suites[prompting].tasks.items()}
    found = {
        label: [scores.cells[cell.name][prompting].tasks[label] for cell in asked if label in cell.suites[prompting].tasks]
        for label in tasks
    }
    chance = [label for label, own in found.items() if all(one.low <= tasks[label].baseline for one in own)]
    several = [name for name in at_chance(cells, scores, prompting) if len(tasks_of(tasks, name)) > 1]
    chance += [f"the category {name} as a whole" for name in several]
    ceiling = [label for label, own in found.items() if all(one.low >= CEILING for one in own)]
    where, told = WORDS[prompting], []
    if chance:
        told.append(
            f"No cell is above chance in {', '.join(chance)} ({where}), so differences between cells there say nothing."
        )
    if ceiling:
        near = f"{CEILING * 100:g} % correct in {', '.join(ceiling)} ({where})"
        told.append(f"Every cell is clearly above {near}, which leaves no room for differences.")
    return told


def tasks_of(tasks: Mapping[str, Task], category: str) -> list[str]:
    return [label for label, task in tasks.items() if category in task.categories]


def missing_table(missing: Sequence[Missing]) -> Table | None:
    """The cells that the study has and the report has not."""
    rows = [[one.name, one.state, one.note or NOT_STATED] for one in missing]
    return Table("Cells that are not here", ["cell", "state", "why, or how far it came"], rows) if rows else None


def at_chance(cells: Sequence[Arm], scores: Scores, prompting: str) -> list[str]:
    """Categories in which no cell is above chance."""
    found = [scores.cells[cell.name][prompting].categories for cell in cells if prompting in cell.suites]
    names = dict.fromkeys(name for categories in found for name in categories)
    return [name for name in names if all(own[name].low <= 0 for own in found if name in own)]


def even(like: Estimate) -> Estimate:
    """The baseline against itself: one half by definition, without an interval."""
    return Estimate(value=0.5, low=0.5, high=0.5, n=like.n, clusters=like.clusters, error=0.0)
