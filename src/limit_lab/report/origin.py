"""Where the numbers came from: shown once where cells agree, side by side where they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from limit_lab.report.records import Cell
from limit_lab.report.tables import NOT_STATED, Table

#: Configuration of the hardware that is outside every fingerprint and may still move a number.
HARDWARE = ("name", "accelerator", "devices", "nodes", "strategy", "micro_batch")


def shared(cells: Sequence[Cell]) -> dict[str, str]:
    """What all cells have in common."""
    facts = [_facts(cell) for cell in cells]
    return {key: value for key, value in facts[0].items() if all(own.get(key) == value for own in facts)}


def differing(cells: Sequence[Cell]) -> Table | None:
    """What differs between cells, one row each; None where nothing does."""
    common, facts = shared(cells), [_facts(cell) for cell in cells]
    keys = [key for key in dict.fromkeys(key for own in facts for key in own) if key not in common]
    if not keys:
        return None
    rows = [[key, *(own.get(key, NOT_STATED) for own in facts)] for key in keys]
    note = "Compared cells were made under different conditions; a difference between them may come from these."
    return Table("Made under different conditions", ["", *(cell.name for cell in cells)], rows, note)


def written(cells: Sequence[Cell]) -> str:
    """First and last time a cell was recorded."""
    times = sorted(str(cell.summary["provenance"].get("written", "")) for cell in cells)
    zone = " UTC" if all(time.endswith("+00:00") for time in times) else ""
    first, last = (time[:16].replace("T", " ") for time in (times[0], times[-1]))
    if first == last:
        return first + zone
    return f"{first} to {last.removeprefix(first[:11])}{zone}"


def items(cell: Cell) -> str:
    """The suite that a cell was asked, with part and world where the embedded world wrote it."""
    config = cell.summary["config"]
    suite, world = str(cell.summary["gauntlet"]["suite"]), config.get("microworld")
    if not world or config.get("gauntlet", {}).get("data") is not None:
        return suite
    return f"{suite} ({world['part']} part of world {world['seed']})"


def provisional(cells: Sequence[Cell]) -> bool:
    """Whether items are those that may be looked at while tasks and recipe are chosen."""
    return any("(development part" in items(cell) for cell in cells)


def dirty(cells: Sequence[Cell]) -> list[str]:
    """Cells whose code had uncommitted changes, so that their commit does not tell what ran."""
    return [cell.name for cell in cells if str(cell.summary["provenance"].get("git", "")).endswith("+dirty")]


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mappings as ``outer.inner`` keys with printable values."""
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = NOT_STATED if value is None else str(value)
    return found


def _facts(cell: Cell) -> dict[str, str]:
    provenance = {key: value for key, value in cell.summary["provenance"].items() if key not in ("written", "versions")}
    versions = cell.summary["provenance"].get("versions", {})
    hardware = cell.summary["config"].get("hardware") or {}
    chosen = {f"hardware.{key}": hardware[key] for key in HARDWARE if key in hardware}
    return flat({"model": cell.summary["model"], "items": items(cell), **provenance, **versions, **chosen})
