"""Reading the rows of a source: embedded, or a jsonl file in one of the layouts the field uses."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from limit_lab.config import Data, Source
from limit_lab.errors import DataError, did_you_mean
from limit_lab.fingerprints import fingerprint
from limit_lab.prompt import instruction_of
from limit_lab.store import read_rows, sha256


@dataclass(frozen=True, slots=True)
class Row:
    """One sample of a source; ``index`` is its place there, ``facts`` and ``template`` are known for embedded rows only."""

    index: int
    prompt: str
    response: str
    facts: tuple[str, ...] = ()
    template: str | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """All usable rows of a source, the hash of what they came from, and how many were left out for which reason."""

    rows: list[Row]
    sha256: str
    left_out: dict[str, int] = field(default_factory=dict)


def read(name: str, data: Data, *, world_seed: int) -> Rows:
    """All rows of the source ``name``.

    Raises: DataError when the source is unknown, its file is missing, or a row fits no known layout.
    """
    source = _source(name, data)
    return _embedded(name, world_seed) if source.kind == "microworld" else _file(name, _local(name, source, data))


def content(name: str, data: Data, *, world_seed: int) -> str:
    """SHA-256 of what the rows of a source come from, without reading them. Raises: DataError as `read` does."""
    source = _source(name, data)
    return _world_content(name, world_seed) if source.kind == "microworld" else sha256(_local(name, source, data))


def path_of(source: Source, data: Data) -> Path:
    """Where a file source lies. Raises: DataError for a relative file without data.dir."""
    path = Path(source.file or "")
    if path.is_absolute():
        return path
    if data.dir is None:
        raise DataError(f"the source file {source.file} is relative, and data.dir is not set: add data.dir=FOLDER.")
    return Path(data.dir) / path


def count(name: str, data: Data) -> int:
    """How many usable rows a source has; those of a local file are read. Raises: DataError as `read` does."""
    source = _source(name, data)
    if source.kind != "microworld":
        return len(_file(name, _local(name, source, data)).rows)
    from limit_lab.microworld.samples import AVAILABLE

    if name not in AVAILABLE:
        raise DataError(f"source {name!r} is not one of the micro-world's{did_you_mean(name, AVAILABLE)}")
    return AVAILABLE[name]


def _source(name: str, data: Data) -> Source:
    if name not in data.sources:
        raise DataError(f"source {name!r} is unknown in data={data.name}{did_you_mean(name, data.sources)}")
    return data.sources[name]


def _local(name: str, source: Source, data: Data) -> Path:
    if source.kind == "hub":
        raise DataError(
            f"source {name!r} lies on the Hub ({source.hub}): save it as jsonl and set "
            f"data.sources.{name}.kind=file data.sources.{name}.file=rows.jsonl."
        )
    path = path_of(source, data)
    if not path.is_file():
        raise DataError(
            f"source {name!r}: {path} does not exist: check data.sources.{name}.file, or data.dir if it is relative."
        )
    return path


def _world_content(name: str, seed: int) -> str:
    from limit_lab.microworld.world import VERSION

    return fingerprint({"world": seed, "version": VERSION, "source": name})


@lru_cache(maxsize=8)  # seconds for 60,000 rows, and every cell of a study asks twice
def _embedded(name: str, seed: int) -> Rows:
    from limit_lab.microworld import samples
    from limit_lab.microworld.world import World

    made = samples.rows(name, World(seed), samples.AVAILABLE.get(name, 0))
    rows = [
        Row(index=index, prompt=row["prompt"], response=row["response"], facts=tuple(row["facts"]), template=row["template"])
        for index, row in enumerate(made)
    ]
    return Rows(rows=rows, sha256=_world_content(name, seed))


def _file(name: str, path: Path) -> Rows:
    rows, left_out = [], {"multi-turn": 0, "no response": 0}
    for index, raw in enumerate(read_rows(path)):
        turns = _turns(raw, f"{path} line {index + 1}")
        if len(turns) > 2:
            left_out["multi-turn"] += 1
        elif len(turns) < 2 or not turns[1].strip():
            left_out["no response"] += 1
        else:
            rows.append(Row(index=index, prompt=instruction_of(turns[0]), response=turns[1].strip()))
    if not rows:
        raise DataError(f"source {name!r}: {path} holds no row with a prompt and a response: check its columns.")
    return Rows(rows=rows, sha256=sha256(path), left_out={reason: count for reason, count in left_out.items() if count})


def _turns(raw: dict[str, Any], place: str) -> list[str]:
    """The turns of a row as {prompt, response}, {instruction, output} (Alpaca) or {conversations: [...]} (LIMA)."""
    if isinstance(raw.get("conversations"), list):
        return [_text(turn, place) for turn in raw["conversations"]]
    if "prompt" in raw and "response" in raw:
        return [_text(raw["prompt"], place), _text(raw["response"], place)]
    if "instruction" in raw and "output" in raw:
        extra = f"\n{_text(raw['input'], place)}" if raw.get("input") else ""
        return [_text(raw["instruction"], place) + extra, _text(raw["output"], place)]
    raise DataError(f"{place} has the columns {', '.join(sorted(raw)) or 'none'}: give it prompt and response.")


def _text(value: Any, place: str) -> str:
    """A field's text; null is none, and anything nested would be taught as Python prints it."""
    if isinstance(value, list | dict):
        raise DataError(f"{place} has {value!r:.60} where a text belongs: give it a prompt and a response as plain texts.")
    return "" if value is None else str(value)
