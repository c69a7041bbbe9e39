"""Which cells a study holds: mixtures times axes, enumerated here by composing once for each mixture and choice of groups."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from limit_lab import mixtures
from limit_lab.compose import compose, compose_node, directories, typed
from limit_lab.config import Mixture, Study, spelled
from limit_lab.errors import ConfigError
from limit_lab.fingerprints import fingerprint
from limit_lab.overrides import candidates, find, groups, parse, suggest


def cells(study: Study, overrides: Sequence[str], user: Path | None = None) -> list[Study]:
    """Every cell of ``study``, which was composed from ``overrides`` (and the groups in ``user``): the configured one last.

    At each point of ``study.axes`` (one point if there are none) stand ``study.study.mixtures`` in their order, before them
    the baseline if it is not among them, then the configured mixture, each once for every point of ``finetune.export_at``.
    Equal cells are one cell, and equal samples have one name (`limit_lab.mixtures`).
    Raises: ConfigError when a mixture has no group file or does not compose to itself, for an axis that is no key of the
    configuration or has no values, and for a value that the key cannot have.
    """
    options = mixtures.options(directories(user))
    kept, own = _without_mixture(overrides)
    study = mixtures.renamed(study, options, own)
    names = list(study.study.mixtures)
    if study.study.baseline is not None and study.study.baseline not in names:
        names.insert(0, study.study.baseline)
    axes = _axes(study, overrides, user)
    chosen = {key: values for key, values in axes.items() if key in groups(directories(user))}
    plain = {key: values for key, values in axes.items() if key not in chosen}
    found: list[Study] = []
    for choice in _points(chosen):
        given = [*kept, *(f"{key}={value}" for key, value in choice.items())]
        untouched, alone = _untouched(given, user)
        untouched = mixtures.renamed(untouched, options, [])
        row = [_of_mixture(name, given, untouched, options if alone else {}, user) for name in names]
        row.append(mixtures.renamed(compose([*given, *own], user), options, own) if chosen else study)
        for point in _points(plain):
            found += [one for cell in row for one in _exports(_at(cell, point))]
    last = {fingerprint(cell): at for at, cell in enumerate(found)}
    return [cell for at, cell in enumerate(found) if last[fingerprint(cell)] == at]


def _exports(study: Study) -> list[Study]:
    """A cell for each point at which the training is exported, the last one being ``study`` itself."""
    points, recipe = study.finetune.export_at, study.finetune
    earlier = [replace(study, finetune=replace(recipe, export_at=points[:end])) for end in range(1, len(points))]
    return [*earlier, study]


def shrunk(study: Study, overrides: Sequence[str]) -> list[str]:
    """A sentence for every override that takes the place of an axis."""
    given = _given(overrides)
    return [
        f"{given[key]} takes the place of the axis {key}: {values}." for key, values in study.study.axes.items() if key in given
    ]


def _given(overrides: Sequence[str]) -> dict[str, str]:
    return {override.key_or_group: text for text, override in zip(overrides, parse(overrides), strict=True)}


def _axes(study: Study, overrides: Sequence[str], user: Path | None) -> dict[str, list[Any]]:
    """The axes that no override has fixed."""
    given = _given(overrides)
    for key, values in study.study.axes.items():
        if key == "mixture" or key.startswith("mixture."):
            raise ConfigError(
                f"the axis {key} is what study.mixtures lists: write the mixtures there, such as lima:1000+instruct:5000."
            )
        if find(key) is None and key not in groups(directories(user)):
            raise ConfigError(f"the axis {key!r} is no key of the configuration{suggest(key, candidates(directories(user)))}")
        if not values:
            raise ConfigError(f"the axis {key} has no values, so the grid has no cells: give it one or more.")
    return {key: list(values) for key, values in study.study.axes.items() if key not in given}


def _points(axes: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def _at(study: Study, point: Mapping[str, Any]) -> Study:
    for key, value in point.items():
        study = _with(study, key.split("."), value, key)
    return study


def _with(node: Any, path: list[str], value: Any, key: str) -> Any:
    """A copy of ``node`` with the value at the dotted path; its rules are checked again."""
    held = getattr(node, path[0])
    if len(path) > 1:
        return replace(node, **{path[0]: _with(held, path[1:], value, key)})
    if held is not None and not isinstance(value, (int, float) if isinstance(held, float) else type(held)):
        raise ConfigError(f"the axis {key} holds {value!r}, which is no {type(held).__name__}: correct the grid's file.")
    return replace(node, **{path[0]: value})


def _of_mixture(name: str, given: Sequence[str], untouched: Study, options: Mapping[str, Mixture], user: Path | None) -> Study:
    """One cell of the study: ``untouched`` with a mixture written out or known, or composed with a mixture's group file."""
    if (spelt := spelled(name)) is not None:
        return replace(untouched, mixture=spelt)
    if name in options:
        return replace(untouched, mixture=options[name])
    cell = mixtures.renamed(compose([*given, f"mixture={name}"], user), options, [])
    if cell.mixture.name != name:
        raise ConfigError(
            f"mixture={name} composes as {cell.mixture.name!r}: its file must say name: {name}, and an experiment chooses a "
            f"mixture with 'override /mixture: {cell.mixture.name}' instead of setting its values."
        )
    return cell


def _untouched(given: Sequence[str], user: Path | None) -> tuple[Study, bool]:
    """The cell without samples, and whether nothing else in its configuration follows the mixture.

    Raises: ConfigError when an overlay sets mixture values, which would reach every cell.
    """
    node = compose_node([*given, "mixture=none"], user)
    cell = typed(node)
    if cell.mixture != Mixture(name="none"):
        raise ConfigError(
            "the experiment sets values of mixture, which would change every cell of the study: write them in a file of their "
            "own, mixture/<name>.yaml, and choose it with 'override /mixture: <name>'."
        )
    return cell, not re.search(r"\$\{[^}]*mixture", str(OmegaConf.to_container(node, resolve=False)))


def _without_mixture(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """The overrides but for the choice of a mixture and the keys inside it, and those."""
    keys = [override.key_or_group for override in parse(overrides)]
    mine = [key == "mixture" or key.startswith("mixture.") for key in keys]
    kept = [text for text, own in zip(overrides, mine, strict=True) if not own]
    return kept, [text for text, own in zip(overrides, mine, strict=True) if own]
