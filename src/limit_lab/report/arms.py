"""Arms: cells that differ only in their replicate (the embedded world with its base, and the seeds), read as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from limit_lab.config import Export, Finetune
from limit_lab.fingerprints import fingerprint, unstated
from limit_lab.report.records import NOT_STATED, Cell, Pair, Row, Suite, flat

#: What tells arms of one label apart, most telling first.
TELLING = ("finetune", "export.dtype", "model", "prompt", "gauntlet.name", "answers", "microworld.part", "microworld.pretrain")

#: The setting that says where a cell's training was exported, and what to call one without.
EXPORT, AT_THE_END = "finetune.export", "at the end"

#: Settings that make no arm: told as `EXPORT`, or no result depends on them.
UNTOLD = ("finetune.export_at", "model.licence")


class Replicate(NamedTuple):
    """Which repetition a cell is: its embedded world (-1 without one), and its seeds (-1 for the untouched base)."""

    world: int
    subset: int
    training: int

    @property
    def text(self) -> str:
        world = f"world {self.world}" if self.world >= 0 else ""
        seeds = f"seeds {self.subset}.{self.training}" if self.training >= 0 else ""
        return ", ".join(part for part in (world, seeds) if part)

    def meets(self, other: Replicate) -> bool:
        """Whether the two may be compared: one world, and the same seeds unless one of them has none."""
        return self.world == other.world and (self[1:] == other[1:] or -1 in (self.training, other.training))


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One point of a study in all its replicates; ``name`` is unique in a report. Counts and texts are the first one's."""

    name: str
    cells: Mapping[Replicate, Cell]

    @property
    def first(self) -> Cell:
        return next(iter(self.cells.values()))

    @property
    def label(self) -> str:
        return self.first.label

    @property
    def untouched(self) -> bool:
        return self.first.untouched

    @property
    def suites(self) -> Mapping[str, Suite]:
        return self.first.suites

    @property
    def summary(self) -> Row:
        return self.first.summary

    @property
    def answers(self) -> Sequence[Row]:
        return self.first.answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """An arm against a baseline arm by one judge: a pair for every replicate that both have; items stand one after another."""

    cell: Arm
    baseline: Arm
    pairs: Mapping[Replicate, Pair]

    @property
    def first(self) -> Pair:
        return next(iter(self.pairs.values()))

    @property
    def id(self) -> str:
        return self.first.id if len(self.pairs) == 1 else f"{self.cell.name} against {self.baseline.name} by {self.judge}"

    @property
    def judge(self) -> str:
        return self.first.judge

    @property
    def prefers(self) -> bool:
        return self.first.prefers

    @property
    def items(self) -> list[Row]:
        return [item for pair in self.pairs.values() for item in pair.items]

    @property
    def counts(self) -> tuple[int, int, int]:
        """Prompts won, tied and lost, over all replicates."""
        won, tied, lost = (sum(int(pair.summary[key]) for pair in self.pairs.values()) for key in ("wins", "ties", "losses"))
        return won, tied, lost

    @property
    def components(self) -> Mapping[str, Mapping[str, float]]:
        """What the judge saw in the answers of either side: means over the replicates; empty when it recorded nothing."""
        seen = [pair.summary.get("components") or {} for pair in self.pairs.values()]
        return {
            side: {name: sum(one[side][name] for one in seen) / len(seen) for name in parts} for side, parts in seen[0].items()
        }


def replicate(cell: Cell) -> Replicate:
    """The replicate that a cell is, from its recorded configuration and seeds."""
    world = int(cell.summary["config"]["microworld"]["seed"]) if _of_a_world(cell) else -1
    if cell.untouched:
        return Replicate(world, -1, -1)
    return Replicate(world, int(cell.summary["seeds"]["subset"]), int(cell.summary["seeds"]["training"]))


def arms(cells: Sequence[Cell]) -> list[Arm]:
    """Cells grouped into arms, in order of first appearance; other suites, recipes, data or numerics are other arms."""
    grouped: dict[str, dict[Replicate, Cell]] = {}
    for cell in cells:
        kind, key = _kind(cell), replicate(cell)
        if key in grouped.get(kind, {}):  # the same world and seeds on another base, such as a rebuilt one: no replicate of it
            kind = fingerprint([kind, cell.summary["identity"]])
        grouped.setdefault(kind, {})[key] = cell
    found = [dict(sorted(own.items())) for own in grouped.values()]
    return [Arm(name=name, cells=own) for name, own in zip(_names(found), found, strict=True)]


def comparisons(pairs: Sequence[Pair], found: Sequence[Arm]) -> list[Comparison]:
    """Pairs grouped by their arms and judge, in order of first appearance."""
    place = {cell.id: arm for arm in found for cell in arm.cells.values()}
    grouped: dict[tuple[str, str, str], dict[Replicate, Pair]] = {}
    for pair in pairs:
        key = (place[pair.cell.id].name, place[pair.baseline.id].name, pair.judge)
        # the untouched base has no seeds of its own: the other side says which replicate this is
        grouped.setdefault(key, {})[max(replicate(pair.cell), replicate(pair.baseline))] = pair
    by_name = {arm.name: arm for arm in found}
    return [
        Comparison(cell=by_name[cell], baseline=by_name[baseline], pairs=dict(sorted(own.items())))
        for (cell, baseline, _), own in grouped.items()
    ]


def _of_a_world(cell: Cell) -> bool:
    config = cell.summary["config"]
    sources = config.get("data", {}).get("sources", {})
    return bool(config.get("model", {}).get("embedded")) or any(one["kind"] == "microworld" for one in sources.values())


def _kind(cell: Cell) -> str:
    """Fingerprint of everything but the replicate: a world brings its own base, rows and questions."""
    config, identity = cell.summary["config"], dict(cell.summary["identity"])
    identity.pop("seeds", None)
    if _of_a_world(cell):
        identity.pop("sources", None)
        if config.get("model", {}).get("embedded"):
            identity["base"] = "embedded"
    world = {name: value for name, value in config.get("microworld", {}).items() if name != "seed"}
    altered = [suite.altered for suite in cell.suites.values() if suite.altered]
    return fingerprint([cell.label, cell.summary["asked"], identity, world, *altered])


def _names(found: Sequence[Mapping[Replicate, Cell]]) -> list[str]:
    """Labels; those that several arms share with what differs behind them, at last their fingerprints."""
    firsts = [next(iter(own.values())) for own in found]
    labels = [cell.label for cell in firsts]
    shared = [label for label, count in Counter(labels).items() if count > 1]
    told = {label: _differing([cell for cell in firsts if cell.label == label]) for label in shared}
    names = [", ".join([cell.label, *_values(cell, told.get(cell.label, []))]) for cell in firsts]
    count = Counter(names)
    return [
        f"{name} {cell.summary['fingerprint'][:6]}" if count[name] > 1 else name
        for name, cell in zip(names, firsts, strict=True)
    ]


def _settings(cell: Cell) -> dict[str, str]:
    config = cell.summary["config"]
    points = config.get("finetune", {}).get("export_at", [])
    exported = {EXPORT: points[-1]} if points else {}  # those before it are other cells of the same training
    left_out = flat(unstated(Finetune), "finetune.") if config.get("finetune") else {}
    left_out |= {"export.dtype": Export().dtype}
    found = {key: value for key, value in (left_out | flat(config)).items() if key not in UNTOLD}
    named = {"model.name": str(cell.summary["model"])}  # with the mark of an unverified copy
    return {"numerics": str(cell.summary["identity"].get("numerics"))} | exported | found | named


def _differing(cells: Sequence[Cell]) -> list[str]:
    """Settings in which arms of one label differ; one that a record does not know, of older code, tells nothing."""
    settings = [_settings(cell) for cell in cells]
    every = dict.fromkeys(key for own in settings for key in own)
    known = [key for key in every if key == EXPORT or all(key in own for own in settings)]
    keys = [key for key in known if key == "numerics" or key.startswith(TELLING)]
    return [key for key in keys if len({own.get(key) for own in settings}) > 1]


def _values(cell: Cell, keys: Sequence[str]) -> list[Any]:
    """What to call the settings of one cell: the name of a group says it all, else ``key=value``."""
    settings = _settings(cell)
    named = [key for key in keys if key.endswith(".name") or key == EXPORT]
    groups = {key.split(".")[0] for key in named if key != EXPORT}
    rest = [key for key in keys if key not in named and key.split(".")[0] not in groups]
    return [settings.get(key, AT_THE_END) for key in named] + [
        f"{key.split('.')[-1]}={settings.get(key, NOT_STATED)}" for key in rest
    ]
