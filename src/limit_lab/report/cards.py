"""Tables on what cells were trained on: totals, and each source with its shares, facts and repetition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from limit_lab.report.arms import Arm
from limit_lab.report.records import NOT_STATED
from limit_lab.report.tables import Table, steps


def totals_table(cells: Sequence[Arm]) -> Table:
    """What every cell was trained on and for how long; the untouched base has a row of dashes."""
    keys = list(dict.fromkeys(key for cell in cells for key in cell.summary["card"] if key != "sources"))
    rows = []
    for cell in cells:
        data, finetune = cell.summary["card"], cell.summary["finetune"]
        loss = f"{finetune['first_loss']:.2f} → {finetune['last_loss']:.2f}" if finetune else NOT_STATED
        rows.append([cell.name, *(_plain(data.get(key)) for key in keys), steps(cell), loss])
    return Table("Totals", ["cell", *(key.replace("_", " ") for key in keys), "steps", "loss, first → last step"], rows)


def sources_table(cells: Sequence[Arm]) -> Table | None:
    """One row for each source of each cell: what was kept and lost, its shares, and how varied it is."""
    rows = [
        [
            cell.name,
            name,
            f"{own['kept']:,} of {own['available']:,}",
            f"{own['dropped']:,} / {own['truncated']:,}",
            f"{own['tokens']:,}",
            *(f"{own[key] * 100:.1f} %" for key in ("document_share", "token_share", "loss_share")),
            _facts(own),
            _plain(own.get("distinct_templates")),
            _repetition(own),
            _plain(own.get("licence")),
        ]
        for cell in cells
        for name, own in cell.summary["card"]["sources"].items()
    ]
    columns = ["cell", "source", "kept", "dropped / truncated", "tokens", "of documents", "of tokens", "of the loss"]
    columns += ["distinct facts", "distinct templates", "repetition", "licence"]
    note = "Kept: samples drawn, of those the source offers. Of the loss: what its tokens weigh in it."
    if any(row[columns.index("repetition")] not in ("no", NOT_STATED) for row in rows):
        note += " Repetition: from this row on, a sample that already holds every fact of its source brings no new one."
    return Table("Sources", columns, rows, note) if rows else None


def _facts(card: Mapping[str, Any]) -> str:
    found, every = card.get("distinct_facts"), card.get("source_facts")
    return _plain(found) if every is None else f"{found:,} of {every:,}"


def _repetition(card: Mapping[str, Any]) -> str:
    if card.get("last_new_fact") is None:
        return NOT_STATED
    if not card["repetition"]:
        return "no"
    return f"from row {card['last_new_fact'] + 1:,} on ({card['repeated_rows']:,} rows)"


def _plain(value: Any) -> str:
    if value is None:
        return NOT_STATED
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
