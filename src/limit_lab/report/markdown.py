"""The short form of the page, for a README: the answer, the claims and the overview, each number with its interval."""

from __future__ import annotations

import re
from collections.abc import Sequence

from limit_lab.report.predicates import Finding
from limit_lab.report.records import NOT_STATED
from limit_lab.report.tables import Number, Table, claim_measured, claim_unit, typeset

#: What could open a tag, a cell, emphasis, code or the target of a link; underscores inside a word are plain text already.
SPECIAL = re.compile(r"[\\`*|<>&]|(?<=\])\(|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def render(
    *,
    title: str,
    about: str,
    answer: Sequence[str],
    found: Sequence[Finding],
    figures: Sequence[tuple[str, str]],
    tables: Sequence[Table],
    notes: Sequence[str],
    command: str,
) -> str:
    """Markdown of the report; ``figures`` are (alternative text, file beside this one)."""
    parts = [f"# {words(title)}", words(about), *(words(sentence) for sentence in answer)]
    if found:
        parts += ["## Claims fixed before the numbers", _grid(claims(found))]
    parts.append("## The two paradigms")
    parts += [f"![{words(text)}]({file})" for text, file in figures]
    for table in tables:
        parts += [f"**{words(table.caption)}**", _grid([table.columns, *table.rows])]
        parts += [words(table.note)] if table.note else []
    parts += [*(words(note) for note in notes), f"Made by\n\n    {_line(command)}"]
    return "\n\n".join(parts) + "\n"


def claims(found: Sequence[Finding]) -> list[list[str | Number]]:
    """The claims with their verdicts as rows, the first of them the header."""
    rows: list[list[str | Number]] = [
        ["claim", "verdict", "measured, ± standard error, 95 % interval", "holds if", "what is measured"]
    ]
    for finding in found:
        number = claim_measured(finding)
        measured = f"{number.value} {number.error} {number.interval} {claim_unit(finding)}".strip() if number else NOT_STATED
        verdict = f"{finding.verdict}: {finding.reason}" if finding.reason else finding.verdict
        rows.append([finding.claim, verdict, measured, finding.rule, finding.measured])
    return rows


def words(text: str) -> str:
    """One line of text that markdown shows as it stands, with minus signs before numbers."""
    return SPECIAL.sub(_escaped, typeset(_line(text)))


def _escaped(found: re.Match[str]) -> str:
    return {"<": "&lt;", ">": "&gt;", "&": "&amp;"}.get(found[0], "\\" + found[0])


def _line(text: str) -> str:
    return " ".join(text.split())


def _grid(rows: Sequence[Sequence[str | Number]]) -> str:
    """A header and its rows as a table."""
    lines = ["| " + " | ".join(_entry(value) for value in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _entry(value: str | Number) -> str:
    return words(f"{value.value}{value.mark} {value.error} {value.interval}" if isinstance(value, Number) else value)
