"""How many facts a sample of a source holds, and from which row on a larger sample only repeats them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from limit_lab.mixture.sources import Row


def fact_counts(taken: Sequence[Row], available: Sequence[Row]) -> dict[str, Any]:
    """Counts for the card of a source, from the rows taken of it in the order drawn, and all rows it has.

    ``distinct_facts`` and ``distinct_templates`` are counted over ``taken``, ``source_facts`` over ``available``.
    ``last_new_fact`` is the 1-based number of the row in ``taken`` at which the last new fact appears; the
    ``repeated_rows`` after it bring none. ``repetition``: ``taken`` holds every fact of the source and goes on after
    that row, so every nested sample larger than ``last_new_fact`` is repetition. A row cut short (``truncated``) counts with
    all its facts. All but ``repetition``, which is then false, are None for a source whose facts are not known.
    """
    every = {fact for row in available for fact in row.facts}
    if not every:
        unknown = ("distinct_facts", "source_facts", "distinct_templates", "last_new_fact", "repeated_rows")
        return {**dict.fromkeys(unknown), "repetition": False}
    seen: set[str] = set()
    last = 0
    for number, row in enumerate(taken, 1):
        if not seen.issuperset(row.facts):
            seen.update(row.facts)
            last = number
    return {
        "distinct_facts": len(seen),
        "source_facts": len(every),
        "distinct_templates": len({row.template for row in taken}),
        "last_new_fact": last or None,
        "repeated_rows": len(taken) - last,
        "repetition": seen == every and len(taken) > last,
    }
