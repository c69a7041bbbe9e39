"""The page: records in, one self-contained HTML file and report.json out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from limit_lab.config import Predicate
from limit_lab.report import answer, figures, judge_tables, origin, tables
from limit_lab.report.orders import Orders, orders
from limit_lab.report.predicates import Finding, findings
from limit_lab.report.records import Cell, Pair, load
from limit_lab.report.samples import samples
from limit_lab.report.scores import Scores, measure
from limit_lab.stats import METHOD
from limit_lab.store import SCHEMA, write_json, write_text

PROMPTING = {"raw": "raw prompts", "template": "in the template"}


def write(
    root: Path,
    cell_ids: list[str],
    pair_ids: list[str],
    *,
    name: str,
    predicates: list[Predicate],
    command: str,
    out: Path,
    frozen: str = "",
    pretraining: dict[str, Any] | None = None,
) -> Path:
    """Write ``out/index.html`` and ``out/report.json`` from the records below ``root``; return the page's path.

    Raises: DataError for missing records, EvalError where items and summaries disagree, LimitLabError for a pair whose
    cells are not among ``cell_ids``.
    """
    cells, pairs = load(root, cell_ids, pair_ids)
    scores = measure(cells, pairs)
    found = findings(predicates, cells, pairs)
    ranked = orders(pairs)
    context = {
        "name": name,
        "answer": answer.sentences(cells, pairs, scores, found),
        "command": command,
        "frozen": frozen,
        "method": METHOD,
        "close": round(answer.CLOSE * 100),
        "pretraining": origin.flat(pretraining or {}),
        **_claims(found),
        **_paradigms(cells, pairs, scores),
        **_judging(cells, pairs, scores, ranked),
        **_origins(cells),
        "shown": samples(cells),
        "cards": [table for table in (tables.totals_table(cells), tables.sources_table(cells)) if table],
    }
    numbers = {
        "schema": SCHEMA,
        "kind": "report",
        **{key: context[key] for key in ("name", "command", "frozen", "answer", "method", "pretraining")},
        "predicates": found,
        "cells": {cell.name: {"id": cell.id, "label": cell.label, "scores": scores.cells[cell.name]} for cell in cells},
        "pairs": {pair.id: _pair_numbers(pair, scores) for pair in pairs},
        "orders": ranked,
        "at_chance": {prompting: tables.at_chance(cells, scores, prompting) for prompting in PROMPTING},
        "tables": _tables(context),
    }
    write_json(out / "report.json", numbers)
    write_text(out / "index.html", _render(context))
    return out / "index.html"


def _tables(context: dict[str, Any]) -> list[tables.Table]:
    """Every table of the page, in its order."""
    categories = [part["table"] for part in context["categories"]]
    partners = [table for part in context["categories"] for table in part["partners"]]
    differing = [context["differing"]] if context["differing"] else []
    return [context["overview"], *categories, *partners, *context["judge_tables"], *context["cards"], *differing]


def _pair_numbers(pair: Pair, scores: Scores) -> dict[str, Any]:
    kind = pair.summary["measure"]
    named = {"cell": pair.cell.name, "baseline": pair.baseline.name, "judge": pair.summary["judge"], "measure": kind}
    return {**named, "scores": scores.pairs[pair.id]}


def _claims(found: Sequence[Finding]) -> dict[str, Any]:
    return {"findings": [(finding, tables.claim_measured(finding)) for finding in found]}


def _paradigms(cells: Sequence[Cell], pairs: Sequence[Pair], scores: Scores) -> dict[str, Any]:
    """Figures and tables of the two paradigms, the plane between them, and the categories."""
    look = figures.marks([cell.name for cell in cells], [cell.name for cell in cells if cell.untouched])
    judged = answer.same_judge(pairs)
    asked = [prompting for prompting in PROMPTING if any(prompting in cell.suites for cell in cells)]
    return {
        "legend": look,
        "suites": sorted({suite.name for cell in cells for suite in cell.suites.values()}),
        "panels": [_average_panel(cells, scores, prompting, look) for prompting in asked] + _rate_panels(pairs, scores, look),
        "overview": tables.overview(cells, judged, scores),
        "plane": _plane(cells, judged, scores, look),
        "categories": [_categories(cells, scores, prompting, look) for prompting in asked],
        "at_chance": {PROMPTING[prompting]: tables.at_chance(cells, scores, prompting) for prompting in asked},
    }


def _average_panel(cells: Sequence[Cell], scores: Scores, prompting: str, look: dict[str, figures.Mark]) -> tuple[str, str]:
    title = f"Benchmarks, {PROMPTING[prompting]}"
    dots = []
    for cell in cells:
        found = scores.cells[cell.name].get(prompting)
        if found and found.average:
            dots.append(figures.Dot(cell.name, found.average))
    return title, figures.intervals(f"average-{prompting}", title, "average in %, chance is 0", dots, look)


def _rate_panels(pairs: Sequence[Pair], scores: Scores, look: dict[str, figures.Mark]) -> list[tuple[str, str]]:
    """One panel for each judge and baseline."""
    grouped: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        grouped.setdefault((pair.judge, pair.baseline.name), []).append(pair)
    panels = []
    for number, ((judge, baseline), own) in enumerate(grouped.items()):
        title = f"{judge}: {_rate_name(own[0])} against {baseline}"
        rates = {pair.cell.name: scores.pairs[pair.id].rate for pair in own}
        rates[baseline] = tables.even(next(iter(rates.values())))
        dots = [figures.Dot(name, rates[name]) for name in look if name in rates]
        axis = f"{'win' if own[0].prefers else 'proxy'} rate in %, even is 50 (dashed)"
        panels.append((title, figures.intervals(f"rate-{number}", title, axis, dots, look, line=0.5)))
    return panels


def _rate_name(pair: Pair) -> str:
    return "win rate" if pair.prefers else "proxy rate (no preference judge)"


def _plane(cells: Sequence[Cell], pairs: Sequence[Pair], scores: Scores, look: dict[str, figures.Mark]) -> str:
    """Empty when fewer than two cells have both an average and a rate."""
    if not pairs:
        return ""
    rates = {pair.cell.name: scores.pairs[pair.id].rate for pair in pairs}
    rates[pairs[0].baseline.name] = tables.even(next(iter(rates.values())))
    points = {}
    for cell in cells:
        raw = scores.cells[cell.name].get("raw")
        if raw and raw.average and cell.name in rates:
            points[cell.name] = (raw.average, rates[cell.name])
    if len(points) < 2:
        return ""
    named = ("benchmark average, raw prompts, in %", f"{_rate_name(pairs[0])} against {pairs[0].baseline.name}, in %")
    return figures.plane("plane", "Both paradigms at once", named, points, look)


def _categories(cells: Sequence[Cell], scores: Scores, prompting: str, look: dict[str, figures.Mark]) -> dict[str, Any]:
    asked = [cell for cell in cells if prompting in cell.suites]
    rows: dict[str, list[figures.Dot]] = {}
    for cell in asked:
        for category, estimate in scores.cells[cell.name][prompting].categories.items():
            rows.setdefault(category, []).append(figures.Dot(cell.name, estimate))
    title = f"Categories, {PROMPTING[prompting]}"
    return {
        "title": title,
        "figure": figures.categories(f"categories-{prompting}", title, rows, look),
        "table": tables.category_table(asked, scores, prompting),
        "partners": tables.partner_tables(asked, scores, prompting),
    }


def _judging(cells: Sequence[Cell], pairs: Sequence[Pair], scores: Scores, ranked: Sequence[Orders]) -> dict[str, Any]:
    judges = {pair.judge: {"prefers": pair.prefers, **pair.summary["judge"]} for pair in pairs}
    found = [judge_tables.phrasing_table(pairs, scores) if pairs else None, judge_tables.component_table(pairs)]
    found += [judge_tables.order_table(order) for order in ranked] + [judge_tables.length_table(cells)]
    return {"judges": judges, "judge_tables": [table for table in found if table is not None]}


def _origins(cells: Sequence[Cell]) -> dict[str, Any]:
    return {
        "commands": {cell.name: cell.summary["command"] for cell in cells},
        "shared": origin.shared(cells),
        "differing": origin.differing(cells),
        "written": origin.written(cells),
        "dirty": origin.dirty(cells),
    }


def _render(context: dict[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("limit_lab.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["number"] = lambda value: isinstance(value, tables.Number)
    environment.filters["printable"] = printable
    environment.filters["typeset"] = lambda text: re.sub(r"(?<![\w-])-(?=\d)", "−", text)
    return environment.get_template("page.html.j2").render(context)


def printable(text: str) -> str:
    """Untrusted text with control characters shown as their pictures, since HTML allows none but tab and line ends."""
    return "".join(chr(0x2400 + ord(sign)) if ord(sign) < 32 and sign not in "\t\n" else sign for sign in text)
