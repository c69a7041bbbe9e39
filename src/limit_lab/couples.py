"""Which cells of a study are compared with which: always at one point of a grid."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from limit_lab.config import Study
from limit_lab.fingerprints import fingerprint, plain


def couples(cells: Sequence[Study]) -> list[tuple[Study, Study]]:
    """What is compared at each point of the study (same world, seeds, model and recipe): a cell and what it stands against.

    Every cell with the baseline first; with ``study.pairs=all`` then every other couple, the later against the earlier.
    """
    points: dict[str, list[Study]] = {}
    for cell in cells:
        points.setdefault(fingerprint({key: value for key, value in plain(cell).items() if key != "mixture"}), []).append(cell)
    first: list[tuple[Study, Study]] = []
    further: list[tuple[Study, Study]] = []
    for own in points.values():
        baseline = next((one for one in own if one.mixture.name == one.study.baseline_name), None)
        others = [one for one in own if one is not baseline]
        first += [(one, baseline) for one in others] if baseline is not None else []
        if own[0].study.pairs == "all":
            further += [(later, earlier) for earlier, later in itertools.combinations(others, 2)]
    return first + further
