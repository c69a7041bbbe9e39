"""What a study fixes before its numbers are seen, as one fingerprint that its experiment file states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from limit_lab.config import NUMERICS, Export, Finetune, Predicate, Study, Task
from limit_lab.fingerprints import default, fingerprint, stated
from limit_lab.microworld.checkpoint import recipe
from limit_lab.model.bases import base_folder, content
from limit_lab.recipe import DISPLAY

#: Fields of a suite that count where they are not at their defaults.
ADDED_TO_SUITES = ("averages", "weighting", "compat", "shots")
#: Axes that the fixed rest is tried on: worlds and seeds.
TRIED_ON = ("microworld.seed", "seeds.")


def base(cells: Sequence[Study]) -> dict[str, Any]:
    """What the cells start from: one base by its files' hashes; for several embedded worlds, how each base is pretrained."""
    last = cells[-1]
    if last.model.embedded and len({cell.microworld.seed for cell in cells}) > 1:
        return {"pretrained": {key: value for key, value in recipe(last.microworld).items() if key != "seed"}}
    return content(base_folder(last))


def fixed(cells: Sequence[Study], base: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that could be tuned towards a result: `base`, mixtures, recipe, tasks, judge, claims.

    Seeds and the part of the embedded world that is asked stay outside: they are what the fixed rest is tried on.
    """
    last = cells[-1]
    suite, answers = last.gauntlet, last.answers
    axes = {key: values for key, values in last.study.axes.items() if not key.startswith(TRIED_ON)}
    return (
        {
            "numerics": NUMERICS,
            "base": base,
            "mixtures": {cell.mixture.name: cell.mixture.samples for cell in cells},
            "baseline": last.study.baseline,
            "recipe": {key: value for key, value in _stated(last.finetune).items() if key not in ("name", *DISPLAY)},
            "prompt": last.prompt.format,
            "tasks": [_stated(task) for task in suite.tasks],
            "average": suite.average,
            "prompting": suite.prompting,
            "decoding": [answers.limit, answers.max_new_tokens, answers.temperature, answers.top_p, answers.top_k],
            "judge": [last.judge.profile, last.judge.tie_margin, _weights(last)],
            "claims": [_stated(claim) for claim in last.study.predicates],
        }
        | ({"axes": axes} if axes else {})
        | {key: value for key, value in stated(suite).items() if key in ADDED_TO_SUITES}
        | ({"export": last.export.dtype} if last.export.dtype != Export().dtype else {})
    )


def _stated(node: Finetune | Task | Predicate) -> dict[str, Any]:
    """The fields that differ from their defaults, so that an option added later changes no fingerprint, nor one inside them."""
    return {one.name: stated(getattr(node, one.name)) for one in fields(node) if getattr(node, one.name) != default(one)}


def _weights(study: Study) -> str | None:
    if study.judge.profile != "ground_truth":
        return None
    from limit_lab.microworld.ground_truth import weights_sha256

    return weights_sha256()


def statement(cells: Sequence[Study], base: Mapping[str, Any]) -> str:
    """One sentence on whether this study is the one that was fixed beforehand."""
    stated, found = cells[-1].study.frozen, fingerprint(fixed(cells, base))
    what = "base, mixtures, recipe, tasks, decoding, judge and claims"
    if stated is None:
        return f"Nothing was fixed beforehand; {what} have the fingerprint {found} (study.frozen={found} would fix them)."
    if stated == found:
        return f"As fixed before the numbers were seen: {what} have the fingerprint {found}, which the experiment states."
    return f"Exploratory: {what} have the fingerprint {found}, and {stated} was fixed before the numbers were seen."
