"""The loss on documents that were held out, by source: where a training stopped learning them and began to unlearn them."""

from __future__ import annotations

from collections.abc import Sequence

from limit_lab.report.arms import Arm
from limit_lab.report.tables import Table


def held_out_table(cells: Sequence[Arm]) -> Table | None:
    """First, best and last loss of every source, means over the replicates; None where nothing was held out."""
    rows = []
    for cell in cells:
        for source, losses in _losses(cell).items():
            steps = sorted(losses)
            best = min(steps, key=lambda step: losses[step])
            first, last = losses[steps[0]], losses[steps[-1]]
            numbers = [f"{first:.3f}", f"{losses[best]:.3f}", f"{best:,}", f"{last:.3f}", f"{last - losses[best]:+.3f}"]
            rows.append([cell.name, source, *numbers])
    note = "Mean loss per target token on documents that the mixture did not draw, before the first and after the last step."
    columns = ["cell", "source", "first", "best", "at step", "last", "last − best"]
    return Table("Held-out loss by source", columns, rows, note) if rows else None


def _losses(cell: Arm) -> dict[str, dict[int, float]]:
    """Mean loss over the replicates by source and step; steps that not all of them took are left out."""
    found: dict[str, dict[int, list[float]]] = {}
    for one in cell.cells.values():
        for row in one.held_out:
            found.setdefault(str(row["source"]), {}).setdefault(int(row["step"]), []).append(float(row["loss"]))
    whole = {
        source: {step: sum(own) / len(own) for step, own in steps.items() if len(own) == len(cell.cells)}
        for source, steps in found.items()
    }
    return {source: steps for source, steps in whole.items() if steps}
