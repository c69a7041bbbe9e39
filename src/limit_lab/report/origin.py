"""Where the numbers came from: shown once where cells agree, side by side where they differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from limit_lab.report.records import NOT_STATED, Cell, flat
from limit_lab.report.tables import Table

#: More cells than this have no column each.
COLUMNS = 9
#: Configuration of the hardware that is outside every fingerprint and may still move a number.
HARDWARE = ("name", "accelerator", "devices", "nodes", "strategy", "micro_batch")


def shared(cells: Sequence[Cell]) -> dict[str, str]:
    """What all cells have in common."""
    facts = [_facts(cell) for cell in cells]
    common = {key: value for key, value in facts[0].items() if all(own.get(key) == value for own in facts)}
    return {"items": items(cells), **common}


def differing(cells: Sequence[Cell]) -> Table | None:
    """What differs between cells, one row each; None where nothing does. Of many cells, how many share each value."""
    common, facts = shared(cells), [_facts(cell) for cell in cells]
    keys = [key for key in dict.fromkeys(key for own in facts for key in own) if key not in common]
    if not keys:
        return None
    note = "Compared cells were made under different conditions; a difference between them may come from these."
    if len(cells) <= COLUMNS:
        rows = [[key, *(own.get(key, NOT_STATED) for own in facts)] for key in keys]
        return Table("Made under different conditions", ["", *(cell.name for cell in cells)], rows, note)
    counted = {key: Counter(own.get(key, NOT_STATED) for own in facts) for key in keys}
    told = [[key, "; ".join(f"{value} ({count} cells)" for value, count in counted[key].items())] for key in keys]
    return Table("Made under different conditions", ["", "values, and how many cells share each"], told, note)


def written(cells: Sequence[Cell]) -> str:
    """First and last time a cell was recorded."""
    times = sorted(str(cell.summary["provenance"].get("written", "")) for cell in cells)
    zone = " UTC" if all(time.endswith("+00:00") for time in times) else ""
    first, last = (time[:16].replace("T", " ") for time in (times[0], times[-1]))
    if first == last:
        return first + zone
    return f"{first} to {last.removeprefix(first[:11])}{zone}"


def items(cells: Sequence[Cell]) -> str:
    """The suites that cells were asked, with part and worlds where the embedded world wrote them."""
    suites: dict[str, set[int]] = {}
    for cell in cells:
        suite, part, world = _asked(cell)
        suites.setdefault(f"{suite} ({part} part of" if part else suite, set()).add(world)
    return ", ".join(f"{text} {_worlds(sorted(own))})" if "(" in text else text for text, own in sorted(suites.items()))


def _asked(cell: Cell) -> tuple[str, str, int]:
    """Suite, and part and seed of the embedded world that wrote it (no part and -1 where none did)."""
    config = cell.summary["config"]
    suite, world = str(cell.summary["gauntlet"]["suite"]), config.get("microworld")
    if not world or config.get("gauntlet", {}).get("data") is not None:
        return suite, "", -1
    return suite, str(world["part"]), int(world["seed"])


def _worlds(seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return f"world {seeds[0]}"
    return f"worlds {', '.join(map(str, seeds[:-1]))} and {seeds[-1]}"


def provisional(cells: Sequence[Cell]) -> bool:
    """Whether items are those that may be looked at while tasks and recipe are chosen."""
    return any(_asked(cell)[1] == "development" for cell in cells)


def unverified(cells: Sequence[Cell]) -> list[str]:
    """The models, with their mark, whose weights go under a published name though no published hash vouches for them."""
    return list(dict.fromkeys(str(cell.summary["model"]) for cell in cells if cell.summary.get("verified") is False))


def altered(cells: Sequence[Cell]) -> str:
    """The tasks whose data is not the original file, to stand behind the suite's name; empty where all is."""
    suites = [suite for cell in cells for suite in cell.suites.values()]
    found = dict.fromkeys(f"{label} {short}" for suite in suites for label, short in suite.altered.items())
    return f" (altered data: {', '.join(found)})" if found else ""


def dirty(cells: Sequence[Cell]) -> list[str]:
    """Cells whose code had uncommitted changes, so that their commit does not tell what ran."""
    return [cell.name for cell in cells if str(cell.summary["provenance"].get("git", "")).endswith("+dirty")]


def _facts(cell: Cell) -> dict[str, str]:
    provenance = {key: value for key, value in cell.summary["provenance"].items() if key not in ("written", "versions")}
    versions = cell.summary["provenance"].get("versions", {})
    hardware = cell.summary["config"].get("hardware") or {}
    chosen = {f"hardware.{key}": hardware[key] for key in HARDWARE if key in hardware}
    suite, part, _ = _asked(cell)  # another world is another replicate, not another condition
    asked = {"suite": suite, "part": part or None}
    return flat({"model": cell.summary["model"], **asked, **provenance, **versions, **chosen})
