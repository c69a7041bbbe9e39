"""Which cells a study holds: enumerated here, by composing the same overrides once for each mixture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from limit_lab.compose import compose
from limit_lab.config import Mixture, Study
from limit_lab.errors import ConfigError
from limit_lab.overrides import parse


def cells(study: Study, overrides: Sequence[str], user: Path | None = None) -> list[Study]:
    """Every cell of ``study``, which was composed from ``overrides`` (and the groups in ``user``): the configured one last.

    Before it stand ``study.study.mixtures`` in their order, and first the baseline if it is not among them. Cells with the
    same mixture are one cell. Raises: ConfigError when a mixture has no group file, or does not compose to itself.
    """
    names = list(study.study.mixtures)
    if study.study.baseline is not None and study.study.baseline not in names:
        names.insert(0, study.study.baseline)
    kept = _without_mixture(overrides)
    found: list[Study] = []
    for name in names:
        cell = compose([*kept, f"mixture={name}"], user)
        _same_as_group(name, cell.mixture, overlaid=any(text.startswith("+") for text in kept), user=user)
        if cell.mixture not in [study.mixture, *(other.mixture for other in found)]:
            found.append(cell)
    return [*found, study]


def _without_mixture(overrides: Sequence[str]) -> list[str]:
    """The overrides but for the choice of a mixture and the keys inside it."""
    keys = [override.key_or_group for override in parse(overrides)]
    return [text for text, key in zip(overrides, keys, strict=True) if key != "mixture" and not key.startswith("mixture.")]


def _same_as_group(name: str, mixture: Mixture, *, overlaid: bool, user: Path | None) -> None:
    """An overlay that sets mixture values itself would change every cell of the study unseen. Raises: ConfigError."""
    if mixture.name != name:
        raise ConfigError(
            f"mixture={name} composes as {mixture.name!r}: its file must say name: {name}, and an experiment chooses a "
            f"mixture with 'override /mixture: {mixture.name}' instead of setting its values."
        )
    if overlaid and mixture != _group(name, user):
        raise ConfigError(
            f"the experiment sets values of mixture, which would change the cell mixture={name} too: write them in a file "
            "of their own, mixture/<name>.yaml, and choose it with 'override /mixture: <name>'."
        )


def _group(name: str, user: Path | None) -> Mixture:
    """The mixture as its group file says it, whatever the overlay and the other groups say."""
    from omegaconf import OmegaConf

    from limit_lab.compose import compose_node

    node = OmegaConf.to_object(compose_node([f"mixture={name}"], user).mixture)
    assert isinstance(node, Mixture)
    return node
