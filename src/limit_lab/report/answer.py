"""The opening sentences of a report, written from its numbers: they say "close" and "not determined" where that is so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from limit_lab.report.arms import Arm, Comparison
from limit_lab.report.origin import provisional
from limit_lab.report.predicates import Finding
from limit_lab.report.scores import Scores, average
from limit_lab.stats import Basis, Estimate, Verdict
from limit_lab.store import Missing

#: What an interval answers and what it leaves out.
READING: dict[Basis, str] = {
    "items": (
        "They answer: had other items of the same kind been asked, how far would the number move? They do not cover another "
        "world or test set, another pretraining run, another draw of training rows or another training seed. Differences are "
        "taken within the same resampled entities, so they may be clear even where two intervals overlap."
    ),
    "seeds": (
        "They answer: had other items been asked and other seeds been drawn, how far would the number move? They do not cover "
        "another world or test set or another pretraining run. Differences are taken seed against seed, so they may be clear "
        "even where two intervals overlap. What has one seed only rests on its items alone."
    ),
    "worlds": (
        "They answer: in another world, with its own facts, pretraining, training rows, seeds and items, how far would the "
        "number move? They do not cover another kind of world, model size or recipe. Differences are taken world against world "
        "and seed against seed, so they may be clear even where two intervals overlap. What has one world only rests on its "
        "items alone."
    ),
}

#: Rates nearer to one half than this are called close.
CLOSE = 0.10


def sentences(
    cells: Sequence[Arm], pairs: Sequence[Comparison], scores: Scores, found: Sequence[Finding], missing: Sequence[Missing]
) -> list[str]:
    """A few sentences: claims, benchmarks, template, judge, mixtures, what is missing, and what the intervals leave out."""
    judged = same_judge(pairs)
    parts = [
        _claims(found) + _provisional(cells, found),
        _benchmarks(cells),
        _template(cells),
        _judge(cells, judged, scores),
        _mixtures(cells, judged, scores),
    ]
    if missing:
        states = Counter(one.state for one in missing)
        told = listed([f"{count} {state}" for state, count in states.items()])
        parts.append(f"The study is not complete: of its cells {told}; they are named on the page and counted nowhere.")
    parts.append(covered(cells))
    return [part for part in parts if part]


def basis(cells: Sequence[Arm]) -> Basis:
    """What the intervals of the arm with the most replicates rest on."""
    worlds, seeds = _counts(cells)
    return "worlds" if worlds > 1 else "seeds" if seeds > 1 else "items"


def _counts(cells: Sequence[Arm]) -> tuple[int, int]:
    """The most worlds of an arm, and the most seeds that it has in one world."""
    worlds = [Counter(key.world for key in arm.cells) for arm in cells]
    return max(map(len, worlds)), max(max(own.values()) for own in worlds)


def covered(cells: Sequence[Arm]) -> str:
    """What the intervals of these arms cover, and what they leave out."""
    worlds, seeds = _counts(cells)
    if worlds > 1:
        own = f"{seeds} training seeds each" if seeds > 1 else "one training seed each"
        return f"Intervals cover the choice of world: {worlds} of them, each with its own facts, pretraining and items, {own}."
    if seeds > 1:
        return f"Intervals cover the choice of items and of seeds ({seeds}), not a second world or pretraining run."
    return "All intervals cover the choice of items only, not a second world, pretraining run or training seed."


def same_judge(pairs: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons that one figure may show together: one judge, one baseline's label; preference judges come first."""
    ordered = sorted(pairs, key=lambda pair: not pair.prefers)
    return [p for p in ordered if p.judge == ordered[0].judge and p.baseline.label == ordered[0].baseline.label]


def standing(rate: Estimate) -> str:
    """Where a rate lies against one half, by its interval and the fixed width of ``CLOSE``."""
    if rate.low <= 0.5 <= rate.high:
        return "not determined: 50 lies inside the interval"
    side = "above" if rate.value > 0.5 else "below"
    return f"close to even, but {side} it" if abs(rate.value - 0.5) < CLOSE else f"clearly {side} even"


def _claims(found: Sequence[Finding]) -> str:
    if not found:
        return "No claim was fixed before this study, so the page describes what was measured and tests nothing."
    count = Counter(finding.verdict for finding in found)
    words: dict[Verdict, str] = {"yes": "held", "no": "did not hold", "not determined": "could not be determined"}
    parts = [f"{count[verdict]} {word}{_named(found, verdict)}" for verdict, word in words.items() if count[verdict]]
    claims = "the one claim" if len(found) == 1 else f"the {len(found)} claims"
    return f"Of {claims} fixed before the numbers, {listed(parts)}."


def _named(found: Sequence[Finding], verdict: Verdict) -> str:
    """The claims that did not simply hold, in quotes."""
    claims = [f"“{finding.claim}”" for finding in found if finding.verdict == verdict]
    return "" if verdict == "yes" else f" ({', '.join(claims)})"


def _provisional(cells: Sequence[Arm], found: Sequence[Finding]) -> str:
    if not provisional([arm.first for arm in cells]):
        return ""
    text = " The items are the development part, which may be looked at while tasks and recipe are chosen"
    return text + (": these verdicts are provisional." if found else ".")


def _benchmarks(cells: Sequence[Arm]) -> str:
    """Who leads, by how much over the next and over the untouched base; empty with fewer than two averages."""
    ranked = _ranked(cells, "raw")
    if len(ranked) < 2:
        return ""
    leader, second = ranked[0], ranked[1]
    ahead = _lead(leader, second)
    text = f"On the benchmarks, asked with raw prompts, {leader.name} scores {average(leader, 'raw').estimate().text()} of 100"
    text += f", {ahead.text()} points ahead of {second.name}"
    text += "" if ahead.low > 0 else ", so which of the two leads is not determined"
    for cell in ranked[2:]:
        if cell.untouched:
            text += f"; over the untouched base it gains {_lead(leader, cell).text()}"
    return text + "."


def _template(cells: Sequence[Arm]) -> str:
    """Said only where the other way of asking names another leader."""
    raw, template = _ranked(cells, "raw"), _ranked(cells, "template")
    if len(template) < 2 or len(raw) < 2 or template[0] is raw[0]:
        return ""
    best = average(template[0], "template").estimate()
    return f"Asked inside the instruction template, a separate measure, {template[0].name} scores highest with {best.text()}."


def _judge(cells: Sequence[Arm], pairs: Sequence[Comparison], scores: Scores) -> str:
    """Whom the judge prefers to whom, how near the best cell comes, and whether the benchmarks say otherwise."""
    if not pairs:
        return "No judge has compared any answers yet."
    baseline, best = pairs[0].baseline, _best(pairs, scores)
    rate = scores.pairs[best.id].rate
    if not best.prefers:
        return (
            f"The heuristic {best.judge} is no preference judge: its rate of {rate.text()} % for {best.cell.name} against "
            f"{baseline.name} is a proxy and does not say which answers are better."
        )
    baselines = dict.fromkeys(pair.baseline.name for pair in pairs)
    parts = [part for name in baselines for part in _preferences([p for p in pairs if p.baseline.name == name], scores)]
    text = f"The judge {best.judge} {'; it '.join(parts)}"
    if len(best.cell.summary["samples"]) < 2:  # a mixture has a sentence of its own
        text += f"; {best.cell.name} has the highest win rate, {rate.text()} %, {standing(rate)}"
    return text + "." + _conflict(cells, best, rate)


def _preferences(pairs: Sequence[Comparison], scores: Scores) -> list[str]:
    """Who is preferred to whom in comparisons with one baseline."""
    baseline = pairs[0].baseline.name
    below = [pair.cell.name for pair in pairs if scores.pairs[pair.id].rate.high < 0.5]
    above = [pair.cell.name for pair in pairs if scores.pairs[pair.id].rate.low > 0.5]
    even = [pair.cell.name for pair in pairs if pair.cell.name not in (*below, *above)]
    parts = [f"prefers {listed(above)} to {baseline}"] if above else []
    parts += [f"prefers {baseline} to {listed(below)}"] if below else []
    return [*parts, *(f"does not settle which of {baseline} and {name} is preferred" for name in even)]


def _conflict(cells: Sequence[Arm], best: Comparison, rate: Estimate) -> str:
    """The distance on the benchmarks of the cell that the judge clearly prefers, when it is clearly not their leader."""
    ranked = _ranked(cells, "raw")
    preferred = best.cell if rate.low > 0.5 else best.baseline if rate.high < 0.5 else None
    if preferred is None or preferred not in ranked:
        return ""
    behind = _lead(ranked[0], preferred)
    if behind.low <= 0:
        return ""
    distance = f"{behind.text()} points behind {ranked[0].name}"
    return f" The two paradigms disagree: on the benchmarks {preferred.name} lies {distance}."


def _mixtures(cells: Sequence[Arm], pairs: Sequence[Comparison], scores: Scores) -> str:
    """How the cell made of several sources fares under both paradigms; of several such cells, the most preferred."""
    mixed = [pair for pair in pairs if len(pair.cell.summary["samples"]) > 1 and pair.prefers]
    ranked = _ranked(cells, "raw")
    if not mixed or not ranked:
        return ""
    best = _best(mixed, scores)
    if best.cell not in ranked:
        return ""
    cell, leader, rate = best.cell, ranked[0], scores.pairs[best.id].rate
    text = f"The mixture {cell.name} leads the benchmarks"
    if cell is not leader:
        behind = _lead(leader, cell)
        text = f"The mixture {cell.name} lies {behind.text()} points behind {leader.name} on the benchmarks"
        text += "" if behind.low > 0 else ", which does not determine the order,"
    where = standing(rate).removeprefix("not determined: ")
    return f"{text} and wins {rate.text()} % against {best.baseline.name}: {where}."


def _best(pairs: Sequence[Comparison], scores: Scores) -> Comparison:
    return max(pairs, key=lambda pair: scores.pairs[pair.id].rate.value)


def _lead(one: Arm, other: Arm) -> Estimate:
    return (average(one, "raw") - average(other, "raw")).estimate()


def _ranked(cells: Sequence[Arm], prompting: str) -> list[Arm]:
    have = [cell for cell in cells if prompting in cell.suites and cell.suites[prompting].average]
    return sorted(have, key=lambda cell: -average(cell, prompting).estimate().value)


def listed(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
