"""The page: records in, one self-contained HTML file out, beside it its numbers, its figures and a short form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from limit_lab.config import Predicate
from limit_lab.report import answer, cards, figures, judge_tables, markdown, origin, partners, svg, tables
from limit_lab.report.orders import Orders, orders
from limit_lab.report.predicates import Finding, findings
from limit_lab.report.records import Cell, Pair, load
from limit_lab.report.samples import samples
from limit_lab.report.scores import Scores, measure
from limit_lab.stats import METHOD
from limit_lab.store import SCHEMA, write_json, write_text

PROMPTING = tables.WORDS
PLANE = "Both paradigms at once"
QUESTION = "How little instruction data is enough, and of which kind?"


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
    """Write the page from the records below ``root``, and return its path, ``out/index.html``.

    Beside it: ``report.json`` (every number), ``report.md`` (the short form), ``paradigms.svg`` and, where cells have both
    an average and a rate, ``plane.svg``.

    Raises: DataError for missing records, EvalError where items and summaries disagree, LimitLabError for a pair whose
    cells are not among ``cell_ids``.
    """
    cells, pairs = load(root, cell_ids, pair_ids)
    scores = measure(cells, pairs)
    found = findings(predicates, cells, pairs)
    ranked = orders(pairs)
    context = {
        "question": QUESTION,
        "about": _about(name, cells),
        "name": name,
        "answer": answer.sentences(cells, pairs, scores, found),
        "command": command,
        "frozen": frozen,
        "method": METHOD,
        "close": round(answer.CLOSE * 100),
        "pretraining": origin.flat(pretraining or {}),
        "findings": [(finding, tables.claim_measured(finding), tables.claim_unit(finding)) for finding in found],
        "flat": _flat(scores),
        **_paradigms(cells, pairs, scores),
        **_judging(cells, pairs, scores, ranked),
        **_origins(cells),
        "shown": samples(cells),
        "cards": [table for table in (cards.totals_table(cells), cards.sources_table(cells)) if table],
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
    shown = _figures(context, out)
    write_text(out / "report.md", _short(context, found, shown))
    write_text(out / "index.html", _render(context))
    return out / "index.html"


def _about(name: str, cells: Sequence[Cell]) -> str:
    """What was studied, asked of which items, and when."""
    items = ", ".join(sorted({origin.items(cell) for cell in cells}))
    count = f"{len(cells)} {'cell' if len(cells) == 1 else 'cells'}"
    return f"Study {name}: {count} on {items}, recorded {origin.written(cells)}."


def _figures(context: dict[str, Any], out: Path) -> list[tuple[str, str]]:
    """Write the page's two main figures as files of their own; return their titles and names."""
    drawn = {"paradigms.svg": ("The two paradigms side by side", context["panels"])}
    if context["plane"]:
        drawn["plane.svg"] = (PLANE, [(PLANE, context["plane"])])
    else:
        (out / "plane.svg").unlink(missing_ok=True)
    for file, (title, panels) in drawn.items():
        write_text(out / file, svg.standalone(title, panels))
    return [(title, file) for file, (title, _) in drawn.items()]


def _short(context: dict[str, Any], found: Sequence[Finding], shown: Sequence[tuple[str, str]]) -> str:
    notes = [*context["telling"], f"Intervals: {context['method']}."]
    return markdown.render(
        title=QUESTION,
        about=context["about"],
        answer=context["answer"],
        found=found,
        figures=shown,
        tables=[context["overview"]],
        notes=notes,
        command=context["command"],
    )


def _flat(scores: Scores) -> bool:
    """Whether some interval has no width."""
    every = [one for suites in scores.cells.values() for suite in suites.values() for one in suite.tasks.values()]
    return any(one.low == one.high for one in every)


def _tables(context: dict[str, Any]) -> list[tables.Table]:
    """Every table of the page, in its order."""
    categories = [table for part in context["categories"] for table in (part["table"], part["tasks"])]
    differing = [context["differing"]] if context["differing"] else []
    return [context["overview"], *context["partners"], *categories, *context["judge_tables"], *context["cards"], *differing]


def _pair_numbers(pair: Pair, scores: Scores) -> dict[str, Any]:
    kind = pair.summary["measure"]
    named = {"cell": pair.cell.name, "baseline": pair.baseline.name, "judge": pair.summary["judge"], "measure": kind}
    return {**named, "scores": scores.pairs[pair.id]}


def _paradigms(cells: Sequence[Cell], pairs: Sequence[Pair], scores: Scores) -> dict[str, Any]:
    """Figures and tables of the two paradigms, the plane between them, and the categories."""
    look = figures.marks([cell.name for cell in cells], [cell.name for cell in cells if cell.untouched])
    judged = answer.same_judge(pairs)
    asked = [prompting for prompting in PROMPTING if any(prompting in cell.suites for cell in cells)]
    return {
        "legend": look,
        "panels": [_average_panel(cells, scores, prompting, look) for prompting in asked] + _rate_panels(pairs, scores, look),
        "overview": tables.overview(cells, judged, scores),
        "plane": _plane(cells, judged, scores, look),
        "categories": [_categories(cells, scores, prompting, look) for prompting in asked],
        "partners": [table for prompting in asked if (table := partners.partner_table(cells, scores, prompting))],
        "telling": [sentence for prompting in asked for sentence in tables.telling(cells, scores, prompting)],
    }


def _average_panel(cells: Sequence[Cell], scores: Scores, prompting: str, look: dict[str, figures.Mark]) -> tuple[str, str]:
    title = f"Benchmarks, {PROMPTING[prompting]}"
    dots = []
    for cell in cells:
        found = scores.cells[cell.name].get(prompting)
        if found and found.average:
            dots.append(figures.Dot(cell.name, found.average))
    return title, figures.intervals(f"average-{prompting}", title, "average in %\nchance is 0", dots, look)


def _rate_panels(pairs: Sequence[Pair], scores: Scores, look: dict[str, figures.Mark]) -> list[tuple[str, str]]:
    """One panel for each judge and baseline."""
    grouped: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        grouped.setdefault((pair.judge, pair.baseline.name), []).append(pair)
    panels = []
    for number, ((judge, baseline), own) in enumerate(grouped.items()):
        title = f"{judge}: {_rate_name(own[0])} against {baseline}"
        proxy = "" if own[0].prefers else "\nno preference judge"
        rates = {pair.cell.name: scores.pairs[pair.id].rate for pair in own}
        rates[baseline] = tables.even(next(iter(rates.values())))
        dots = [figures.Dot(name, rates[name]) for name in look if name in rates]
        axis = f"{_rate_name(own[0])} in %{proxy}\neven is 50 (dashed)"
        panels.append((title, figures.intervals(f"rate-{number}", title, axis, dots, look, line=0.5)))
    return panels


def _rate_name(pair: Pair) -> str:
    return "win rate" if pair.prefers else "proxy rate"


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
    proxy = "" if pairs[0].prefers else "\n(no preference judge)"
    rate = f"{_rate_name(pairs[0])} against {pairs[0].baseline.name}, in %{proxy}"
    named = ("benchmark average, raw prompts, in %", rate)
    return figures.plane("plane", PLANE, named, points, look)


def _categories(cells: Sequence[Cell], scores: Scores, prompting: str, look: dict[str, figures.Mark]) -> dict[str, Any]:
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


def _judging(cells: Sequence[Cell], pairs: Sequence[Pair], scores: Scores, ranked: Sequence[Orders]) -> dict[str, Any]:
    judges = {pair.judge: {"prefers": pair.prefers, **pair.summary["judge"]} for pair in pairs}
    found = [judge_tables.phrasing_table(pairs, scores) if pairs else None, judge_tables.component_table(pairs, scores)]
    found += [judge_tables.order_table(order, pairs, scores) for order in ranked] + [judge_tables.length_table(cells)]
    return {"judges": judges, "judge_tables": [table for table in found if table is not None]}


def _origins(cells: Sequence[Cell]) -> dict[str, Any]:
    return {
        "commands": {cell.name: cell.summary["command"] for cell in cells},
        "shared": origin.shared(cells),
        "differing": origin.differing(cells),
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
    environment.filters["typeset"] = tables.typeset
    environment.filters["themed"] = svg.themed
    return environment.get_template("page.html.j2").render(context)


def printable(text: str) -> str:
    """Untrusted text with control characters shown as their pictures, since HTML allows none but tab and line ends."""
    return "".join(chr(0x2400 + ord(sign)) if ord(sign) < 32 and sign not in "\t\n" else sign for sign in text)
