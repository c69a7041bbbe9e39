"""Configuration and records as plain values, and the short hash by which equal ones are known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any

#: Marks a field that was added when records existed already: at its default it is left out of identities and records.
ADDED = {"added": True}


def plain(value: Any) -> Any:
    """Dataclasses, tuples and mappings as plain JSON values."""
    if value is None or isinstance(value, str | int | float):  # most of a configuration, which grids compare by the hundred
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {name: plain(getattr(value, name)) for name in _names(type(value))}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


@cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(one.name for one in fields(kind))


def stated(value: Any) -> Any:
    """`plain` without the fields marked as `ADDED` that stand at their defaults."""
    if is_dataclass(value) and not isinstance(value, type):
        pairs = [(one, getattr(value, one.name)) for one in fields(value)]
        return {one.name: stated(own) for one, own in pairs if not (one.metadata.get("added") and own == default(one))}
    if isinstance(value, Mapping):
        return {str(key): stated(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [stated(item) for item in value]
    return value


def unstated(kind: type) -> dict[str, Any]:
    """What `stated` leaves out of a record of the dataclass ``kind``: its added fields with their defaults, as plain values."""
    return {one.name: plain(default(one)) for one in fields(kind) if one.metadata.get("added")}


def default(one: Field[Any]) -> Any:
    """The value of a field that nobody gave one."""
    return one.default if one.default_factory is MISSING else one.default_factory()


def fingerprint(value: Any) -> str:
    """First 12 hex digits of the SHA-256 of the canonical JSON of ``value``; equal values give equal fingerprints."""
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
