"""What stands on the command line, checked before Hydra sees it: groups, options and keys, with suggestions.

Hydra alone lets ``+`` and ``++`` create any key (``+mixture.lma=3`` runs the default study), so every form is walked along
the schema here, and the same walk names the unknown keys of a YAML file.
"""

from __future__ import annotations

import itertools
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, QuotedString, ValueType
from hydra.errors import HydraException
from omegaconf import OmegaConf

from limit_lab.config import Study
from limit_lab.errors import ConfigError, did_you_mean

#: Groups that no defaults list holds: they are added with ``+``.
ADDED = ("experiment", "grid")


def parse(overrides: Sequence[str]) -> list[Override]:
    """Hydra's own reading of the overrides. Raises: ConfigError for one that does not follow its grammar."""
    parsed = []
    for override in overrides:
        try:
            parsed += OverridesParser.create().parse_overrides([override])
        except HydraException as error:
            raise ConfigError(f"{override!r} is no override: write key=value, and quote a value with special signs.") from error
    return parsed


def groups(directories: Iterable[Path]) -> dict[str, list[str]]:
    """Every config group with its options, in the order of `Study`, added groups last."""
    found: dict[str, set[str]] = {name: set() for name in ADDED}
    for directory in directories:
        for path in directory.glob("*/*.yaml"):
            found.setdefault(path.parent.name, set()).add(path.stem)
    order = {name: position for position, name in enumerate(typing.get_type_hints(Study))}
    return {name: sorted(found[name]) for name in sorted(found, key=lambda name: (order.get(name, len(order)), name))}


def child(kind: Any, key: str) -> Any | None:
    """The type of ``key`` inside a value of type ``kind``, or None when it cannot have such a key."""
    kind = _required(kind)
    if is_dataclass(kind):
        return typing.get_type_hints(kind).get(key)
    if typing.get_origin(kind) is dict:
        return typing.get_args(kind)[1]
    if typing.get_origin(kind) is list and key.isdigit():
        return typing.get_args(kind)[0]
    return None


def find(key: str) -> Any | None:
    """The type at a dotted path of `Study`, or None when the schema has no such path."""
    kind: Any = Study
    for part in key.split(".") if key else ():
        kind = child(kind, part)
    return kind


def unknown(value: Any, kind: Any, path: str) -> Iterator[str]:
    """Dotted paths inside the plain ``value`` that a value of type ``kind`` cannot have."""
    if isinstance(value, Mapping):
        pairs: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list):
        pairs = enumerate(value)
    else:
        return
    for key, inner in pairs:
        here = f"{path}.{key}" if path else str(key)
        found = child(kind, str(key))
        if found is not None:
            yield from unknown(inner, found, here)
        elif isinstance(value, Mapping):
            yield here


def check(overrides: Sequence[str], directories: Sequence[Path]) -> None:
    """Raises: ConfigError with one sentence for each override that names an unknown group, option or key."""
    known = groups(directories)
    problems = [sentence for override in parse(overrides) for sentence in _problems(override, known, directories)]
    if problems:
        raise ConfigError("\n".join(problems))


def expand(overrides: Sequence[str], directories: Sequence[Path]) -> list[list[str]]:
    """The override lists of ``-m``: the product of every sweep, the rightmost one running fastest.

    Raises: ConfigError for an interval, which has no list of values.
    """
    known = groups(directories)
    axes = []
    for text, override in zip(overrides, parse(overrides), strict=True):
        value: Any = override._value
        if not override.is_sweep_override():
            axes.append([text])
        elif isinstance(value, Glob):
            axes.append([f"{override.get_key_element()}={name}" for name in value.filter(known.get(override.key_or_group, []))])
        elif override.is_discrete_sweep():
            axes.append([f"{override.get_key_element()}={item}" for item in override.sweep_string_iterator()])
        else:
            raise ConfigError(f"{text}: an interval has no list of values; write them out, such as key=1,2,3.")
    return [list(cell) for cell in itertools.product(*axes)]


def suggest(key: str, candidates: Iterable[str]) -> str:
    """``"; did you mean 'a.b'?"`` by the last part of the dotted path; else the keys of the node it was looked for in."""
    names = sorted(set(candidates))
    root, tail = key.partition(".")[0], key.rpartition(".")[2]

    def score(name: str) -> float:
        near = SequenceMatcher(None, tail, name.rpartition(".")[2]).ratio()
        if name.endswith("." + key):
            return near + 0.1
        if root == key or name.partition(".")[0] != root:
            return near - 0.1 * min(1, name.count("."))
        return near + (0.06 if name.rpartition(".")[0] == key.rpartition(".")[0] else 0)

    ranked = sorted(names, key=score, reverse=True)
    close = [name for name in ranked[:2] if score(name) >= max(0.6, score(ranked[0]) - 0.05)]
    if close:
        return "; did you mean " + " or ".join(f"'{name}'" for name in close) + "?"
    prefix = next((part for part in _parents(key) if any(name.startswith(part + ".") for name in names)), "")
    depth = prefix.count(".") + 1 if prefix else 0
    below = [name for name in names if name.count(".") == depth and name.startswith(prefix + "." if prefix else "")]
    return did_you_mean(key, below)


def candidates(directories: Iterable[Path]) -> set[str]:
    """Every dotted path that may be meant: the schema's, those of the group files, the added groups."""
    names = {*ADDED, *_schema(Study, "")}
    for directory in directories:
        for path in directory.glob("*/*.yaml"):
            if child(Study, path.parent.name) is not None:
                names.update(_paths(OmegaConf.to_container(OmegaConf.load(path), resolve=False), path.parent.name))
    return {name for name in names if name in ADDED or "*" in name or find(name) is not None}


def _problems(override: Override, known: Mapping[str, list[str]], directories: Sequence[Path]) -> Iterator[str]:
    text, key, value = override.input_line or "", override.key_or_group, override._value
    if key == "hydra" or override.is_hydra_override():
        yield f"{text}: limit_lab composes with Hydra but runs no Hydra job; leave it out, and use --config-dir or -m."
    elif override.package is not None:
        yield f"{text}: packages are not used here; write {key}=..."
    elif key in known:
        yield from _group_problems(override, known[key])
    else:
        kind = find(key)
        paths = [key] if kind is None else list(unknown(_plain(value), kind, key))
        for path in paths:
            yield f"{text}: the configuration has no key '{path}'{suggest(path, candidates(directories))}"
        if not paths and override.is_delete() and typing.get_origin(_required(find(key.rpartition(".")[0]))) is not dict:
            yield f"{text}: only an entry of a dictionary can be removed, such as ~mixture.samples.lima."


def _group_problems(override: Override, options: list[str]) -> Iterator[str]:
    text, key = override.input_line or "", override.key_or_group
    if override.is_delete():
        yield f"{text}: a group cannot be removed; leave the override out or choose an option of {key}."
        return
    if isinstance(override._value, Mapping):
        yield f"{text}: {key} is a group; choose one of its options and set single keys with {key}.<key>=..."
        return
    added = child(Study, key) is None
    plus = override.is_add() or override.is_force_add()
    if added and not plus:
        yield f"{text}: an option of {key} is added to the defaults; write +{text}."
        return
    if plus and not added:
        yield f"{text}: {key} has its default already and is replaced, not added; write {text.lstrip('+')}."
        return
    if override.value_type == ValueType.GLOB_CHOICE_SWEEP:
        return
    chosen = override.sweep_iterator() if override.is_sweep_override() else _plain(override._value)
    for option in chosen if isinstance(chosen, list | Iterator) else [chosen]:
        name = "null" if option is None else str(_plain(option))
        if name not in options:
            yield f"{text}: {key} has no option '{name}'{did_you_mean(name, options)}"


def _parents(key: str) -> Iterator[str]:
    while "." in key:
        key = key.rpartition(".")[0]
        yield key


def _plain(value: Any) -> Any:
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value


def _required(kind: Any) -> Any:
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return next(option for option in typing.get_args(kind) if option is not types.NoneType)
    return kind


def _schema(kind: Any, prefix: str) -> Iterator[str]:
    if is_dataclass(kind):
        for name, inner in typing.get_type_hints(kind).items():
            yield prefix + name
            inner = _required(inner)
            many = typing.get_origin(inner) in (list, dict)
            yield from _schema(typing.get_args(inner)[-1] if many else inner, f"{prefix}{name}.{'*.' if many else ''}")


def _paths(value: Any, prefix: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield f"{prefix}.{key}"
            yield from _paths(inner, f"{prefix}.{key}")
