"""The page: records in, one self-contained HTML file out, beside it its numbers, its figures and a short form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from limit_lab.config import Predicate
from limit_lab.report import answer, cards, markdown, origin, sections, svg, tables
from limit_lab.report.arms import Arm, Comparison, arms, comparisons
from limit_lab.report.harness import harness_table
from limit_lab.report.held_out import held_out_table
from limit_lab.report.orders import orders
from limit_lab.report.predicates import Finding, findings
from limit_lab.report.questions import printable
from limit_lab.report.records import Cell, load
from limit_lab.report.samples import samples
from limit_lab.report.scores import Scores, measure
from limit_lab.report.shown_items import shown_items
from limit_lab.report.suite_table import suite_tables
from limit_lab.stats import METHODS
from limit_lab.store import SCHEMA, Missing, write_json, write_text

#: More missing cells than this are named on the page only.
FEW = 12
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
    baseline: str | None = None,
    frozen: str = "",
    missing: Sequence[Missing] = (),
) -> Path:
    """Write the page from the records below ``root``, and return its path, ``out/index.html``.

    Cells that differ in world and seeds only are one arm. Pairs against other cells than ``baseline`` (a label; None: all
    count alike) appear in the win matrix only. Beside the page: ``report.json`` (every number), ``report.md`` (the short
    form), ``paradigms.svg`` and, where there is something to draw, ``plane.svg``, ``curves.svg`` and ``matrices.svg``.

    Raises: DataError for missing records, EvalError where items and summaries disagree, LimitLabError for a pair whose
    cells are not among ``cell_ids``.
    """
    records, judged = load(root, cell_ids, pair_ids)
    cells = arms(records)
    every = comparisons(judged, cells)
    pairs = [pair for pair in every if baseline is None or pair.baseline.label == baseline]
    scores = measure(cells, pairs)
    found = findings(predicates, cells, every)
    ranked = orders(pairs)
    basis = answer.basis(cells)
    context = {
        "question": QUESTION,
        "about": _about(name, records),
        "name": name,
        "answer": answer.sentences(cells, pairs, scores, found, missing),
        "command": command,
        "frozen": frozen,
        "method": METHODS[basis],
        "reading": answer.READING[basis],
        "close": round(answer.CLOSE * 100),
        "findings": [(finding, tables.claim_measured(finding), tables.claim_unit(finding)) for finding in found],
        "flat": _flat(scores),
        "missing": tables.missing_table(missing),
        "suite_tables": suite_tables(cells),
        **sections.paradigms(cells, pairs, scores),
        **sections.against_one_another(cells, answer.same_judge(pairs), every, scores),
        "harness": harness_table(cells),
        **sections.judging(cells, pairs, scores, ranked),
        **sections.origins(records),
        "shown": samples(cells),
        "shown_items": shown_items(root, cells, scores, baseline),
        "cards": [table for table in (cards.totals_table(cells), cards.sources_table(cells), held_out_table(cells)) if table],
    }
    numbers = {
        "schema": SCHEMA,
        "kind": "report",
        **{key: context[key] for key in ("name", "command", "frozen", "answer", "method")},
        "predicates": found,
        "missing": missing,
        "cells": {cell.name: _arm_numbers(cell, scores) for cell in cells},
        "pairs": {pair.id: _pair_numbers(pair, scores) for pair in pairs},
        "orders": ranked,
        "at_chance": {one: tables.at_chance(cells, scores, one) for one in sections.asked(cells)},
        "tables": _tables(context),
    }
    write_json(out / "report.json", numbers)
    shown = _figures(context, out)
    write_text(out / "report.md", _short(context, found, shown))
    write_text(out / "index.html", _render(context))
    return out / "index.html"


def _about(name: str, cells: Sequence[Cell]) -> str:
    """What was studied, asked of which items, and when."""
    count = f"{len(cells)} {'cell' if len(cells) == 1 else 'cells'}"
    unverified = "".join(f", from {model}" for model in origin.unverified(cells))
    return (
        f"Study {name}: {count}{unverified} on {origin.items(cells)}{origin.altered(cells)}, recorded {origin.written(cells)}."
    )


def _figures(context: dict[str, Any], out: Path) -> list[tuple[str, str]]:
    """Write the page's main figures as files of their own; return their titles and names."""
    drawn = {
        "paradigms.svg": ("The two paradigms side by side", context["panels"]),
        "plane.svg": (sections.PLANE, [(sections.PLANE, context["plane"])] if context["plane"] else []),
        "curves.svg": ("Score against samples", context["curves"]),
        "matrices.svg": ("Every cell against every other", context["matrices"]),
    }
    for file, (title, panels) in drawn.items():
        if panels:
            write_text(out / file, svg.standalone(title, panels))
        else:
            (out / file).unlink(missing_ok=True)
    return [(title, file) for file, (title, panels) in drawn.items() if panels]


def _short(context: dict[str, Any], found: Sequence[Finding], shown: Sequence[tuple[str, str]]) -> str:
    few = [context["missing"]] if context["missing"] and len(context["missing"].rows) <= FEW else []
    notes = [*context["telling"], f"Behind ± the standard error, in brackets the interval: {context['method']}."]
    return markdown.render(
        title=QUESTION,
        about=context["about"],
        answer=context["answer"],
        found=found,
        figures=shown,
        tables=[context["overview"], *context["differences"][:1], *few],
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
    single = [table for table in (context["harness"], context["missing"], context["differing"]) if table]
    contrasts = [*context["differences"], *context["matrix_tables"], *context["replicates"]]
    judge, suites = context["judge_tables"], [table for _, table in context["suite_tables"]]
    return [context["overview"], *contrasts, *context["partners"], *categories, *suites, *judge, *context["cards"], *single]


def _arm_numbers(arm: Arm, scores: Scores) -> dict[str, Any]:
    """The estimates of an arm; ``id`` is that of its first cell, ``replicates`` names the others."""
    ids = {key.text or "only": cell.id for key, cell in arm.cells.items()}
    return {"id": arm.first.id, "label": arm.label, "replicates": ids, "scores": scores.cells[arm.name]}


def _pair_numbers(pair: Comparison, scores: Scores) -> dict[str, Any]:
    kind = pair.first.summary["measure"]
    named = {"cell": pair.cell.name, "baseline": pair.baseline.name, "judge": pair.first.summary["judge"], "measure": kind}
    return {**named, "scores": scores.pairs[pair.id]}


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
