"""One name for equal samples: a mixture written out or changed is called as the group file that holds the same samples.

Cells are named after their mixture, so ``lima:1000``, ``mixture=lima`` and ``mixture.samples.lima=1000`` reach one folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from limit_lab.config import Mixture, Predicate, Study, spelled, written


def options(directories: Sequence[Path]) -> dict[str, Mixture]:
    """The mixtures whose group files hold nothing but a name and samples, by name; the first folder's come first."""
    found: dict[str, Mixture] = {}
    for directory in directories:
        for path in sorted(directory.glob("mixture/*.yaml")):
            try:
                text = path.read_text(encoding="utf-8")
                content = yaml.safe_load(text)
            except (yaml.YAMLError, UnicodeDecodeError):  # composing says what is wrong, where the file is used
                continue
            if "@package" not in text and _plain(content) and content["name"] == path.stem:
                found.setdefault(path.stem, Mixture(**content))
    return found


def _plain(content: Any) -> bool:
    if not isinstance(content, dict) or not {"name", "samples"} <= content.keys() <= {"name", "samples", "selection"}:
        return False
    samples = content["samples"]
    counted = isinstance(samples, dict) and all(type(count) is int and count > 0 for count in samples.values())
    return counted and content.get("selection", "random") == "random"


def renamed(study: Study, known: Mapping[str, Mixture], own: Sequence[str]) -> Study:
    """``study`` with one name for equal samples, in its list of mixtures, its baseline and its claims.

    Its own mixture is renamed too where the overrides ``own`` change its samples and give it no name.
    """
    order, cells = list(study.data.sources), study.study
    texts = {text: spelt for text in (*cells.mixtures, cells.baseline or "") if (spelt := spelled(text)) is not None}
    same = {text: _same(spelt.samples, known, order) for text, spelt in texts.items()}
    new = {text: one.name if one.name in known else _text(one) for text, one in same.items()}
    names = {spelt.name: same[text].name for text, spelt in texts.items()}
    if any(text != other for text, other in new.items()):
        listed = [new.get(text, text) for text in cells.mixtures]
        baseline = new.get(cells.baseline or "", cells.baseline)
        claims = [_claim(claim, names) for claim in cells.predicates]
        study = replace(study, study=replace(cells, mixtures=listed, baseline=baseline, predicates=claims))
    keys = [text.lstrip("+~").partition("=")[0] for text in own]
    if any(key.startswith("mixture.samples") for key in keys) and "mixture.name" not in keys:
        study = replace(study, mixture=_same(study.mixture.samples, known, order))
    return study


def _same(samples: Mapping[str, int], known: Mapping[str, Mixture], order: Sequence[str]) -> Mixture:
    """The known mixture of these samples, else one named after them in the order in which the data lists its sources."""
    for one in known.values():
        if one.samples == samples:
            return one
    ordered = {source: samples[source] for source in (*order, *samples) if source in samples}
    return Mixture(name=written(ordered), samples=ordered)


def _text(mixture: Mixture) -> str:
    return "+".join(f"{source}:{count}" for source, count in mixture.samples.items())


def _claim(claim: Predicate, names: Mapping[str, str]) -> Predicate:
    over = claim.over if claim.over is None else names.get(claim.over, claim.over)
    return replace(claim, left=names.get(claim.left, claim.left), right=names.get(claim.right, claim.right), over=over)
