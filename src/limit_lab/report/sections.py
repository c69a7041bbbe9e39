"""The sections of the page as data: figures and tables of the two paradigms, of arms against one another, and origins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from limit_lab.report import answer, contrasts, curves, figures, judge_tables, origin, partners, tables
from limit_lab.report.arms import Arm, Comparison
from limit_lab.report.orders import Orders
from limit_lab.report.records import Cell
from limit_lab.report.scores import Scores
from limit_lab.stats import Estimate

PROMPTING = tables.WORDS
PLANE = "Both paradigms at once"


def asked(cells: Sequence[Arm]) -> list[str]:
    """The ways of prompting in which any cell was asked."""
    return [prompting for prompting in PROMPTING if any(prompting in cell.suites for cell in cells)]


def paradigms(cells: Sequence[Arm], pairs: Sequence[Comparison], scores: Scores) -> dict[str, Any]:
    """Figures and tables of the two paradigms, the plane between them, and the categories."""
    look = figures.marks([cell.name for cell in cells], [cell.name for cell in cells if cell.untouched])
    judged = answer.same_judge(pairs)
    ways = asked(cells)
    return {
        "legend": look,
        "panels": [_average_panel(cells, scores, prompting, look) for prompting in ways] + _rate_panels(pairs, scores, look),
        "overview": tables.overview(cells, judged, scores),
        "plane": _plane(cells, judged, scores, look),
        "categories": [_categories(cells, scores, prompting, look) for prompting in ways],
        "partners": [table for prompting in ways if (table := partners.partner_table(cells, scores, prompting))],
        "telling": [sentence for prompting in ways for sentence in tables.telling(cells, scores, prompting)],
    }


def _average_panel(cells: Sequence[Arm], scores: Scores, prompting: str, look: dict[str, figures.Mark]) -> tuple[str, str]:
    title = f"Benchmarks, {PROMPTING[prompting]}"
    dots = []
    for cell in cells:
        found = scores.cells[cell.name].get(prompting)
        if found and found.average:
            dots.append(figures.Dot(cell.name, found.average))
    return title, figures.intervals(f"average-{prompting}", title, "average in %\nchance is 0", dots, look)


def _rate_panels(pairs: Sequence[Comparison], scores: Scores, look: dict[str, figures.Mark]) -> list[tuple[str, str]]:
    """One panel for each judge and baseline."""
    grouped: dict[tuple[str, str], list[Comparison]] = {}
    for pair in pairs:
        grouped.setdefault((pair.judge, pair.baseline.label), []).append(pair)
    panels = []
    for number, ((judge, baseline), own) in enumerate(grouped.items()):
        title = f"{judge}: {_rate_name(own[0])} against {baseline}"
        proxy = "" if own[0].prefers else "\nno preference judge"
        rates = {pair.cell.name: scores.pairs[pair.id].rate for pair in own}
        rates |= {pair.baseline.name: tables.even(rates[pair.cell.name]) for pair in own}
        dots = [figures.Dot(name, rates[name]) for name in look if name in rates]
        axis = f"{_rate_name(own[0])} in %{proxy}\neven is 50 (dashed)"
        panels.append((title, figures.intervals(f"rate-{number}", title, axis, dots, look, line=0.5)))
    return panels


def _rate_name(pair: Comparison) -> str:
    return "win rate" if pair.prefers else "proxy rate"


def _plane(cells: Sequence[Arm], pairs: Sequence[Comparison], scores: Scores, look: dict[str, figures.Mark]) -> str:
    """Empty when fewer than two cells have both an average and a rate."""
    if not pairs:
        return ""
    rates = {pair.cell.name: scores.pairs[pair.id].rate for pair in pairs}
    rates |= {pair.baseline.name: tables.even(rates[pair.cell.name]) for pair in pairs}
    points = {}
    for cell in cells:
        raw = scores.cells[cell.name].get("raw")
        if raw and raw.average and cell.name in rates:
            points[cell.name] = (raw.average, rates[cell.name])
    if len(points) < 2:
        return ""
    proxy = "" if pairs[0].prefers else "\n(no preference judge)"
    rate = f"{_rate_name(pairs[0])} against {pairs[0].baseline.label}, in %{proxy}"
    named = ("benchmark average, raw prompts, in %", rate)
    return figures.plane("plane", PLANE, named, points, look)


def _categories(cells: Sequence[Arm], scores: Scores, prompting: str, look: dict[str, figures.Mark]) -> dict[str, Any]:
    asked = [cell for cell in cells if prompting in cell.suites]
    rows: dict[str, list[figures.Dot]] = {}
    for cell in asked:
        counted = cell.suites[prompting].average
        for category, estimate in scores.cells[cell.name][prompting].categories.items():
            row = category if category in counted else f"{category} (outside the average)"
            rows.setdefault(row, []).append(figures.Dot(cell.name, estimate))
    title = f"Categories, {PROMPTING[prompting]}"
    return {
        "title": title,
        "where": PROMPTING[prompting],
        "figure": figures.categories(f"categories-{prompting}", title, rows, look),
        "table": tables.category_table(asked, scores, prompting),
        "tasks": tables.task_table(asked, scores, prompting),
    }


def judging(cells: Sequence[Arm], pairs: Sequence[Comparison], scores: Scores, ranked: Sequence[Orders]) -> dict[str, Any]:
    judges = {pair.judge: {"prefers": pair.prefers, **pair.first.summary["judge"]} for pair in pairs}
    found = [judge_tables.phrasing_table(pairs, scores) if pairs else None, judge_tables.component_table(pairs, scores)]
    found += [judge_tables.order_table(order, pairs, scores) for order in ranked] + [judge_tables.length_table(cells)]
    return {"judges": judges, "judge_tables": [table for table in found if table is not None]}


def origins(cells: Sequence[Cell]) -> dict[str, Any]:
    return {
        "commands": {cell.name: cell.summary["command"] for cell in cells},
        "shared": origin.shared(cells),
        "differing": origin.differing(cells),
        "dirty": origin.dirty(cells),
    }


def against_one_another(
    cells: Sequence[Arm], judged: Sequence[Comparison], every: Sequence[Comparison], scores: Scores
) -> dict[str, Any]:
    """Curves, win matrices, differences from the base, single replicates; ``judged`` have the study's baseline."""
    ways = asked(cells)
    judge, benchmarks = contrasts.judge_matrix(every), contrasts.benchmark_matrix(cells, "raw")
    names = [cell.name for cell in cells]
    drawn, listed = [], []
    for key, caption, values, even in (
        ("matrix-judge", "Judge: the row wins against the column, in %", judge, 0.5),
        ("matrix-benchmarks", "Benchmarks, raw prompts: row minus column, in points", benchmarks, 0.0),
    ):
        own = [name for name in names if any(name in couple for couple in values)]
        if len(own) > 2 and len(values) > 2 * (len(own) - 1):  # more than one of them against each of the others
            drawn.append((caption, figures.matrix(key, caption, own, values, even)))
            note = tables.altered(cells, ["raw"]).strip() if values is benchmarks else ""
            listed.append(contrasts.matrix_table(caption, own, values, note))
    differences = [table for prompting in ways if (table := contrasts.differences_table(cells, prompting))]
    singles = [table for prompting in ways if (table := contrasts.replicates_table(cells, judged, prompting))]
    return {
        "curves": _curves(cells, judged, scores, ways),
        "matrices": drawn,
        "matrix_tables": listed,
        "differences": differences,
        "replicates": singles,
    }


def _curves(cells: Sequence[Arm], judged: Sequence[Comparison], scores: Scores, asked: Sequence[str]) -> list[tuple[str, str]]:
    measures: list[tuple[str, str, str, Mapping[str, Estimate]]] = []
    for prompting in asked:
        found = {name: own[prompting].average for name, own in scores.cells.items() if prompting in own}
        averages = {name: one for name, one in found.items() if one is not None}
        measures.append((f"curve-{prompting}", f"Benchmarks, {PROMPTING[prompting]}", "average in %, chance is 0", averages))
    if judged:
        rates = {pair.cell.name: scores.pairs[pair.id].rate for pair in judged}
        rates |= {pair.baseline.name: tables.even(rates[pair.cell.name]) for pair in judged}
        title = f"{judged[0].judge}: {_rate_name(judged[0])} against {judged[0].baseline.label}"
        measures.append(("curve-rate", title, f"{_rate_name(judged[0])} in %, even is 50", rates))
    panels = []
    for key, title, axis, values in measures:
        drawn = curves.panel(key, title, axis, curves.curves(cells, values), curves.base_level(cells, values))
        panels += [(title, drawn)] if drawn else []
    return panels
