"""What lm-evaluation-harness says of the cells: a table of its own, whose numbers enter nothing else on the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from limit_lab.report.arms import Arm
from limit_lab.report.tables import Table, minus

COLUMNS = ("cell", "task", "version", "shots", "metric", "n", "value ± standard error")
NOTE = (
    "Prompts, scores and standard errors over items are those of lm-evaluation-harness {versions}, in float32. They are not "
    "rescaled for chance, cannot be compared with the benchmarks above, and are part of no average and no claim here."
)


def harness_table(cells: Sequence[Arm]) -> Table | None:
    """A row for every metric of every task and cell, replicates apart; None where do=harness has asked nothing."""
    rows, versions = [], set()
    for arm in cells:
        for key, one in arm.cells.items():
            name = arm.name if len(arm.cells) == 1 else f"{arm.name}, {key.text}"
            for record in one.harness:
                versions.add(str(record["lm_eval"]))
                rows += [[name, *_row(record, row)] for row in record["rows"]]
    note = NOTE.format(versions=" and ".join(sorted(versions)))
    return Table("lm-evaluation-harness, a suite of its own", COLUMNS, rows, note) if rows else None


def _row(record: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    task = row["task"] if record["limit"] is None else f"{row['task']}, first {record['limit']:,} rows"
    error = "" if row["stderr"] is None else f" ± {row['stderr']:.2g}"
    return [task, row["version"], str(row["shots"]), row["metric"], f"{row['n']:,}", minus(f"{row['value']:.4g}{error}")]
