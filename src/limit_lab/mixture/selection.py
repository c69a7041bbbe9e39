"""Which rows of a source a mixture takes, and which it holds out: seeded, and nested, so that 1k lies inside 5k inside 20k."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import islice

from limit_lab.errors import DataError
from limit_lab.mixture.sources import Row


def draw(rows: Sequence[Row], count: int, *, source: str, seed: int) -> list[Row]:
    """The first ``count`` rows of one permutation that depends on source and seed alone, never on ``count``.

    Raises: DataError when the source holds fewer rows.
    """
    if count > len(rows):
        raise DataError(
            f"mixture.samples.{source}={count} asks for more than the {len(rows)} usable rows of {source!r}: "
            f"ask for {len(rows)} or fewer."
        )
    return [rows[index] for index in _order(rows, source, seed)[:count]]


def held_out(rows: Sequence[Row], count: int, *, drawn: int, source: str, seed: int) -> list[Row]:
    """Up to ``count`` rows that a draw of ``drawn`` leaves, from the other end of its permutation: the same for most draws.

    A row that repeats prompt and response of a drawn one is passed over.
    """
    order = _order(rows, source, seed)
    known = {(rows[index].prompt, rows[index].response) for index in order[:drawn]}
    rest = (rows[index] for index in reversed(order[drawn:]))
    return list(islice((row for row in rest if (row.prompt, row.response) not in known), count))


def _order(rows: Sequence[Row], source: str, seed: int) -> list[int]:
    order = list(range(len(rows)))
    random.Random(f"subset:{source}:{seed}").shuffle(order)
    return order
