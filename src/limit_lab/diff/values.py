"""What differs between two nested values, and the sections of do=diff that are made of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from limit_lab import store
from limit_lab.cell import BESIDE
from limit_lab.diff.chosen import Chosen
from limit_lab.recipe import DISPLAY
from limit_lab.report.origin import HARDWARE

NOT_STATED = "–"

#: Configuration that no fingerprint of a cell or pair holds; of models and sources the content counts.
OUTSIDE = (
    *(
        "do",
        "runs",
        "debug",
        "hardware",
        "tracking",
        "launch",
        "report",
        "diff",
        "items",
        "study",
        "model",
        "data",
        "mixture.name",
    ),
    *("finetune.name", *(f"finetune.{key}" for key in DISPLAY)),
    *(f"gauntlet.{key}" for key in BESIDE),
    *("answers.name", "answers.prompts", "answers.batch"),
)


@dataclass(frozen=True, slots=True)
class Change:
    """One value that differs, under its dotted path; None where a side does not state it."""

    key: str
    left: Any
    right: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the answer: a table, or the sentence ``alike`` where its rows are none; ``notes`` follow either."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]] = ()
    alike: str = "no difference"
    notes: Sequence[str] = ()


def changes(left: Any, right: Any, path: str = "") -> Iterator[Change]:
    """Every leaf that differs, in left's order; an absent value equals None, and a mapping that only one side has is a leaf.

    Lists of mappings are aligned by their labels.
    """
    left, right = _opened(left), _opened(right)
    if not (isinstance(left, Mapping) and isinstance(right, Mapping)):
        if left != right:
            yield Change(path, left, right)
        return
    for key in dict.fromkeys([*left, *right]):
        yield from changes(left.get(key), right.get(key), f"{path}.{key}" if path else str(key))


def _opened(value: Any) -> Any:
    if not (isinstance(value, list) and value and all(isinstance(item, Mapping) and "label" in item for item in value)):
        return value
    return {item["label"]: item for item in value}


def rows(found: Iterable[Change], *, differences: bool = False) -> list[list[str]]:
    """Changes as rows of a table: key, left, right, and the difference of two numbers if asked for."""
    return [
        [change.key, *texts(change.left, change.right), *([difference(change.left, change.right)] if differences else [])]
        for change in found
    ]


def texts(left: Any, right: Any) -> tuple[str, str]:
    """Both values in short, in full where the short forms are the same."""
    short = _text(left), _text(right)
    return short if short[0] != short[1] else (repr(left), repr(right))


def _text(value: Any) -> str:
    if value is None:
        return NOT_STATED
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value):
        return value[:12]
    if isinstance(value, Mapping) or (isinstance(value, list) and any(isinstance(item, Mapping) for item in value)):
        return f"{len(value)} value{'' if len(value) == 1 else 's'}" if value else "none"
    return repr(value) if isinstance(value, str) and value != value.strip() else str(value)


def difference(left: Any, right: Any) -> str:
    """``right - left`` of two numbers with its sign, empty for anything else."""
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in (left, right)):
        return ""
    return f"{right - left:+,}" if isinstance(left, int) and isinstance(right, int) else f"{right - left:+.4g}"


def head(left: Chosen, right: Chosen) -> Section:
    """Which two cells these are."""
    pair = [left.cell.summary, right.cell.summary]
    names = [["cell", left.cell.id, right.cell.id], ["folder", str(left.folder), str(right.folder)]]
    models = ["model", *(str(one["model"]) for one in pair)]
    written = ["recorded", *(str(one["provenance"].get("written", NOT_STATED)) for one in pair)]
    return Section(
        title="cells",
        columns=("", "left", "right"),
        rows=[*names, models, written, ["command", *(str(one["command"]) for one in pair)]],
    )


def config(left: Chosen, right: Chosen) -> list[Section]:
    """The composed configurations: what some fingerprint holds, and apart from it what none does."""
    found = list(changes(left.cell.summary["config"], right.cell.summary["config"]))
    columns = ("key", "left", "right")
    apart = "config outside every fingerprint (paths, hardware, tracking, display; of models and data the content counts)"
    return [
        Section(title="config", columns=columns, rows=rows(one for one in found if not outside(one.key))),
        Section(title=apart, columns=columns, rows=rows(one for one in found if outside(one.key))),
    ]


def outside(key: str) -> bool:
    """Whether a key of the configuration is part of no fingerprint."""
    return any(key == node or key.startswith(f"{node}.") for node in OUTSIDE)


def identity(left: Chosen, right: Chosen) -> Section:
    """The parts of the two fingerprints, which say why these are different cells."""
    columns = ("part", "left", "right")
    older = [side for side, one in (("left", left), ("right", right)) if "identity" not in one.cell.summary]
    if older:
        said = f"not recorded in {' and '.join(older)} by the version that made it; its study run again records it"
        return Section(title="identity", columns=columns, alike=said)
    found = list(changes(left.cell.summary["identity"], right.cell.summary["identity"]))
    parts = dict.fromkeys(change.key.partition(".")[0] for change in found)
    same = left.cell.summary["fingerprint"] == right.cell.summary["fingerprint"]
    why = f"Different cells for their {', '.join(parts)}." if not same else "Equal fingerprints: one cell, made or asked twice."
    return Section(title="identity", columns=columns, rows=rows(found), notes=[why])


def card(left: Chosen, right: Chosen) -> Section:
    """What was trained on, in total and by source."""
    cards = [one.cell.summary["card"] for one in (left, right)]
    names = dict.fromkeys(name for card in cards for name in card["sources"])
    mine, theirs = (card | {"sources": {name: card["sources"].get(name, {}) for name in names}} for card in cards)
    found = changes(mine, theirs)
    return Section(title="card", columns=("", "left", "right", "right − left"), rows=rows(found, differences=True))


def environment(left: Chosen, right: Chosen) -> Section:
    """Code, versions and machine; a commit does not tell what ran where changes were not committed."""
    facts: list[dict[str, Any]] = []
    sides: list[str] = []
    for side, one in (("left", left), ("right", right)):
        record, hardware = one.cell.summary["provenance"], one.cell.summary["config"].get("hardware", {})
        kept = {key: value for key, value in record.items() if key != "written"}
        facts.append(kept | {f"hardware.{key}": hardware.get(key) for key in (*HARDWARE, "threads")})
        sides += [side] if str(record.get("git", "")).endswith("+dirty") else []
    dirty = [f"Uncommitted changes in {' and '.join(sides)}: the commit does not tell what ran."] if sides else []
    return Section(title="environment", columns=("", "left", "right"), rows=rows(changes(facts[0], facts[1])), notes=dirty)


def training(left: Chosen, right: Chosen) -> Section:
    """Length, time and losses of the two trainings, and the first step at which their losses differ."""
    pair = left.cell.summary["finetune"], right.cell.summary["finetune"]
    columns = ("", "left", "right", "right − left")
    if pair == (None, None):
        return Section(title="training", columns=columns, alike="no difference, neither cell was trained")
    found = rows(changes(pair[0] or {}, pair[1] or {}), differences=True)
    return Section(title="training", columns=columns, rows=found, notes=_losses(left, right) if None not in pair else ())


def _losses(left: Chosen, right: Chosen) -> list[str]:
    paths = [one.folder / "finetune" / "metrics.jsonl" for one in (left, right)]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        return [f"Losses by step cannot be compared: {' and '.join(map(str, missing))} is not there."]
    mine, theirs = ([(row["step"], row["loss"]) for row in store.read_rows(path)] for path in paths)
    common = list(zip(mine, theirs, strict=False))
    apart = [(a, b) for a, b in common if a != b]
    longer = ""
    if len(mine) != len(theirs):
        longer = f"; {'left' if len(mine) > len(theirs) else 'right'} goes on to step {max(len(mine), len(theirs)):,}"
    if not apart:
        return [f"Losses equal to the last bit over {len(common):,} steps{longer}."]
    (step, one), (_, other) = apart[0]
    widest = max(abs(b[1] - a[1]) for a, b in apart)
    where = f"first at step {step:,} of {len(common):,}: {one!r} and {other!r}"
    return [f"Losses differ {where}; by at most {widest:.3g} from there on{longer}."]
