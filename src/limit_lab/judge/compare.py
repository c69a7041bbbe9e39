"""Comparing the answers of a pair, prompt by prompt and generation seed by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from limit_lab.config import Judge
from limit_lab.errors import JudgeError

Row = Mapping[str, Any]

#: Measured on 13 near-parity models (AlpacaEval annotations): how often the longer answer is GPT-4's choice.
LENGTH_NOTE = "no preference judge: the longer answer wins; agreed with GPT-4 on 68 % of near-parity pairs"


class Scorer(Protocol):
    """What a profile says of two answers to one prompt."""

    measure: str
    note: str
    weights_sha256: str | None

    def versus(self, prompt: Row, cell: Row, baseline: Row, tie_margin: float) -> dict[str, Any]: ...

    def components(self) -> dict[str, dict[str, float]]: ...


def preference(cell: float, baseline: float, tie_margin: float) -> float:
    """Share of a win for the cell: 1, 0, or 0.5 when the scores differ by no more than the margin."""
    if abs(cell - baseline) <= tie_margin:
        return 0.5
    return 1.0 if cell > baseline else 0.0


class Length:
    """The longer answer wins; a test double and a baseline, never a preference judge."""

    measure = "proxy_rate"
    note = LENGTH_NOTE
    weights_sha256: str | None = None

    def versus(self, prompt: Row, cell: Row, baseline: Row, tie_margin: float) -> dict[str, Any]:
        lengths = [float(len(str(row["answer"]).split())) for row in (cell, baseline)]
        return {
            "preference": preference(lengths[0], lengths[1], tie_margin),
            "score_cell": lengths[0],
            "score_baseline": lengths[1],
        }

    def components(self) -> dict[str, dict[str, float]]:
        return {}


class World:
    """The ground truth of the embedded world, with the facts-only score and the verdicts under random weightings."""

    measure = "win_rate"
    note = (
        "ground truth of the embedded world; no negation, no paraphrase, never compared with people; random weightings keep "
        "every sign and multiply every size by a uniform number from 0 to 2"
    )

    def __init__(self, seed: int) -> None:
        from limit_lab.microworld import ground_truth, world

        self.weights_sha256: str | None = ground_truth.weights_sha256()
        self.judge = ground_truth.GroundTruth(world.World(seed))
        self.weightings = ground_truth.random_weights()
        self.sums: dict[str, dict[str, float]] = {"cell": {}, "baseline": {}}
        self.answers = 0

    def versus(self, prompt: Row, cell: Row, baseline: Row, tie_margin: float) -> dict[str, Any]:
        ours, theirs = (
            self.judge.score(prompt["topics"], str(row["answer"]), ended=bool(row["ended"])) for row in (cell, baseline)
        )
        self.answers += 1
        for side, shown in (("cell", ours), ("baseline", theirs)):
            for name, value in asdict(shown).items():
                self.sums[side][name] = self.sums[side].get(name, 0.0) + float(value)
        return {
            "preference": preference(ours.total(), theirs.total(), tie_margin),
            "score_cell": ours.total(),
            "score_baseline": theirs.total(),
            "facts_cell": ours.facts_only,
            "facts_baseline": theirs.facts_only,
            "random": [preference(ours.total(w), theirs.total(w), tie_margin) for w in self.weightings],
        }

    def components(self) -> dict[str, dict[str, float]]:
        return {side: {name: value / self.answers for name, value in sums.items()} for side, sums in self.sums.items()}


def scorer(judge: Judge, world_seed: int) -> Scorer:
    """The scorer of a profile. Raises: JudgeError for a judge that no longer exists."""
    if judge.gone is not None:
        raise JudgeError(f"judge={judge.name} cannot be called: {judge.gone}")
    if judge.profile == "length":
        return Length()
    if judge.profile == "ground_truth":
        return World(world_seed)
    raise JudgeError(f"judge={judge.name} compares nothing here: use judge=ground_truth or judge=length.")


def compare(
    cell: Sequence[Row], baseline: Sequence[Row], prompts: Sequence[Row], judge: Judge, scorer: Scorer
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The pair's summary and its items, one per prompt (generation seeds averaged).

    Raises: JudgeError when the two sets of answers do not cover the same prompts and seeds.
    """
    ours, theirs = ({(row["index"], row["seed"]): row for row in rows} for rows in (cell, baseline))
    for index, seed in sorted(ours.keys() ^ theirs.keys()):
        raise JudgeError(
            f"prompt {index} (seed {seed}) is answered by one side only: answer both cells with the same settings."
        )
    verdicts: dict[int, list[dict[str, Any]]] = {}
    for index, seed in sorted(ours):
        row = scorer.versus(prompts[index], ours[index, seed], theirs[index, seed], judge.tie_margin)
        verdicts.setdefault(index, []).append(row)
    items = [
        {"index": index, "cluster": prompts[index]["cluster"], "unseen": prompts[index]["unseen"], **_mean(rows)}
        for index, rows in verdicts.items()
    ]
    preferences = [row["preference"] for rows in verdicts.values() for row in rows]
    return {
        "judge": {
            "name": judge.name,
            "profile": judge.profile,
            "weights_sha256": scorer.weights_sha256,
            "note": scorer.note,
        },
        "measure": scorer.measure,
        "n": len(preferences),
        "wins": sum(value == 1 for value in preferences),
        "ties": sum(value == 0.5 for value in preferences),
        "losses": sum(value == 0 for value in preferences),
        "rate": sum(preferences) / len(preferences),
        "components": scorer.components(),
    }, items


def _mean(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in rows[0].items():
        if isinstance(value, list):
            out[name] = [sum(each) / len(rows) for each in zip(*(row[name] for row in rows), strict=True)]
        else:
            out[name] = sum(row[name] for row in rows) / len(rows)
    return out
