"""Which rows of a source a mixture takes: seeded, and nested, so that 1k lies inside 5k inside 20k."""

from __future__ import annotations

import random
from collections.abc import Sequence

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
    order = list(range(len(rows)))
    random.Random(f"subset:{source}:{seed}").shuffle(order)
    return [rows[index] for index in order[:count]]
