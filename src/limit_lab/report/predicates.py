"""Verdicts on the claims that a study fixed before its numbers: yes, no, or not determined with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from limit_lab.config import Predicate
from limit_lab.report.arms import Arm, Comparison
from limit_lab.report.scores import average, judge_score, rate
from limit_lab.report.spread import Spread, fixed
from limit_lab.stats import Estimate, Verdict, above

Unit = Literal["points", "rate", "share", "score"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One claim, what was measured for it, the rule it was held against, and the verdict."""

    claim: str
    measured: str
    unit: Unit
    estimate: Estimate | None
    threshold: float | None
    rule: str
    verdict: Verdict
    reason: str


class _NotDeterminedError(Exception):
    """The records cannot say; the message is the reason."""


def findings(predicates: Sequence[Predicate], cells: Sequence[Arm], pairs: Sequence[Comparison]) -> list[Finding]:
    """Judge every predicate by its fixed rule. Arms are found by name or label; what is absent or ambiguous: not determined."""
    return [_finding(predicate, cells, pairs) for predicate in predicates]


def _finding(predicate: Predicate, cells: Sequence[Arm], pairs: Sequence[Comparison]) -> Finding:
    estimate, unit, measured, threshold = None, _unit(predicate), _measured(predicate), None
    reason = ""
    try:
        if predicate.kind == "keeps":
            estimate, threshold = _kept(predicate, cells, pairs), predicate.share
        else:
            margin = predicate.margin if predicate.kind == "better" else -predicate.margin
            direct = _direct(predicate, cells, pairs) if predicate.measure == "win_rate" else None
            if direct is not None:
                estimate, threshold, unit = direct.estimate(), 0.5 + margin, "rate"
                measured = f"rate of {predicate.left} against {predicate.right}"
            else:
                left, right = (_of(label, predicate, cells, pairs) for label in (predicate.left, predicate.right))
                estimate, threshold = (left - right).estimate(), margin
    except _NotDeterminedError as error:
        reason = str(error)
    return Finding(
        claim=predicate.claim,
        measured=measured,
        unit=unit,
        estimate=estimate,
        threshold=threshold,
        rule=_rule(predicate, threshold, unit),
        verdict="not determined" if estimate is None or threshold is None else above(estimate, threshold),
        reason=reason,
    )


def _unit(predicate: Predicate) -> Unit:
    if predicate.kind == "keeps":
        return "share"
    return "score" if predicate.measure == "judge_score" else "points"


def _measured(predicate: Predicate) -> str:
    what = {"gauntlet": "benchmark average, raw prompts", "win_rate": "win rate", "judge_score": "judge score"}[
        predicate.measure
    ]
    if predicate.kind == "keeps":
        return f"{what}: share of the gain of {predicate.right} over {predicate.over} that {predicate.left} keeps"
    return f"{what}: {predicate.left} minus {predicate.right}"


def _rule(predicate: Predicate, threshold: float | None, unit: Unit) -> str:
    if predicate.kind == "keeps":
        return f"at least {predicate.share * 100:g} %"
    if threshold is None:
        threshold = predicate.margin if predicate.kind == "better" else -predicate.margin
    number = f"{threshold:+g}" if unit == "score" else f"{threshold * 100:{'' if unit == 'rate' else '+'}g}"
    return f"above {number if threshold else '0'}{' %' if unit == 'rate' else ' points' if unit == 'points' else ''}"


def _kept(predicate: Predicate, cells: Sequence[Arm], pairs: Sequence[Comparison]) -> Estimate:
    """Share of a gain that is kept; a draw without a gain counts as nothing kept."""
    labels = (predicate.left, predicate.right, str(predicate.over))
    left, right, over = (_of(label, predicate, cells, pairs) for label in labels)
    gain = right - over
    own = gain.estimate()
    if above(own, 0.0) != "yes":
        scale, digits = (1.0, 2) if predicate.measure == "judge_score" else (100.0, 1)
        raise _NotDeterminedError(
            f"{predicate.right} itself has no clear gain over {predicate.over}: {own.text(scale, digits)}"
        )
    return (left - over).share_of(gain)


def _of(label: str, predicate: Predicate, cells: Sequence[Arm], pairs: Sequence[Comparison]) -> Spread:
    """The predicate's measure of one cell: its raw average, its rate against the common baseline, or its judge score."""
    cell = _cell(label, cells)
    if predicate.measure == "gauntlet":
        _same_suite(predicate, cells)
        return average(cell, "raw")
    usable = _preferring(pairs)
    if predicate.measure == "judge_score":
        for pair in usable:
            for role, own in (("cell", pair.cell), ("baseline", pair.baseline)):
                if own is cell:
                    return judge_score(pair, role)
        raise _NotDeterminedError(f"no judge has scored the answers of {label}")
    baseline = usable[0].baseline
    if cell is baseline:
        return fixed(0.5, list(cell.cells))
    for pair in usable:
        if pair.cell is cell and pair.baseline is baseline:
            return rate(pair)
    raise _NotDeterminedError(f"{label} has not been compared with {baseline.name}")


def _direct(predicate: Predicate, cells: Sequence[Arm], pairs: Sequence[Comparison]) -> Spread | None:
    """The rate of left against right when the two were compared themselves, whichever of them was the baseline."""
    left, right = _cell(predicate.left, cells), _cell(predicate.right, cells)
    for pair in _preferring(pairs):
        if pair.cell is left and pair.baseline is right:
            return rate(pair)
        if pair.cell is right and pair.baseline is left:
            return fixed(1.0, list(pair.pairs)) - rate(pair)
    return None


def _cell(label: str, cells: Sequence[Arm]) -> Arm:
    """The arm with this name, such as ``lima, weight=document`` of a grid with axes, or the only one of this mixture."""
    found = [cell for cell in cells if cell.name == label] or [cell for cell in cells if cell.label == label]
    if len(found) != 1:
        several = f"{len(found)} kinds of cells are named {label}: {'; '.join(cell.name for cell in found)}"
        raise _NotDeterminedError(several if found else f"there is no cell {label}")
    return found[0]


def _preferring(pairs: Sequence[Comparison]) -> list[Comparison]:
    """The pairs of the first judge that states preferences."""
    usable = [pair for pair in pairs if pair.prefers]
    if not usable:
        judges = ", ".join(sorted({pair.judge for pair in pairs}))
        raise _NotDeterminedError(f"{judges} is no preference judge" if judges else "no judge has compared any cells")
    return [pair for pair in usable if pair.judge == usable[0].judge]


def _same_suite(predicate: Predicate, cells: Sequence[Arm]) -> None:
    """Averages compare only over the same questions; every embedded world has its own."""
    labels = [label for label in (predicate.left, predicate.right, predicate.over) if label]
    found = [(key.world, cell.suites.get("raw")) for label in labels for key, cell in _cell(label, cells).cells.items()]
    if any(suite is None or not suite.average for _, suite in found):
        raise _NotDeterminedError("a cell was not asked the benchmarks with raw prompts")
    asked = {(world, s.name, *((t.label, *t.clusters) for t in s.tasks.values())) for world, s in found if s}
    if len(asked) > len({world for world, _ in found}):
        raise _NotDeterminedError("the cells were asked different questions")
