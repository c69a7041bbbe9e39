"""Score against samples: arms of the same sources joined by a line, one panel for each measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from limit_lab.report import figures
from limit_lab.report.arms import Arm
from limit_lab.stats import Estimate


@dataclass(frozen=True, slots=True)
class Curve:
    """Arms trained on the same sources, by their number of samples; ``settings`` tells curves of other recipes apart."""

    name: str
    points: Sequence[tuple[int, Estimate]]


def curves(arms: Sequence[Arm], values: Mapping[str, Estimate]) -> list[Curve]:
    """One curve for each set of sources and recipe; empty unless some curve has two sizes."""
    grouped: dict[str, list[tuple[int, Estimate]]] = {}
    for arm in arms:
        if arm.name in values and not arm.untouched:
            settings = arm.name.removeprefix(arm.label)
            name = " + ".join(arm.summary["samples"]) + settings
            grouped.setdefault(name, []).append((sum(arm.summary["samples"].values()), values[arm.name]))
    found = [Curve(name, sorted(points, key=lambda point: point[0])) for name, points in grouped.items()]
    return found if any(len(curve.points) > 1 for curve in found) else []


def panel(key: str, title: str, axis: str, found: Sequence[Curve], level: tuple[str, Estimate] | None) -> str:
    """The curves on a logarithmic axis of samples, with a band for a level that has no samples; empty without curves."""
    if not found:
        return ""
    points = [(curve.name, curve.points) for curve in found]
    return figures.curves(key, title, axis, points, level)


def base_level(arms: Sequence[Arm], values: Mapping[str, Estimate]) -> tuple[str, Estimate] | None:
    """The untouched base, drawn as a band."""
    return next(((arm.name, values[arm.name]) for arm in arms if arm.untouched and arm.name in values), None)
