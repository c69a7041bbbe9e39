"""Single items as a reader wants to see them: the question, choices with their losses, what was predicted, what is right."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limit_lab import store

Row = Mapping[str, Any]

#: Control signs a page or a terminal would act upon, and what shows them.
PICTURES = {sign: chr(0x2400 + sign) for sign in range(32) if chr(sign) not in "\t\n"} | {0x7F: "␡"}
PICTURES |= dict.fromkeys(range(0x80, 0xA0), "\ufffd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One answer to choose from; of every cell its mean loss per token in nats, and whether the cell picked it."""

    text: str
    gold: bool
    losses: Sequence[float]
    picked: Sequence[bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What one cell wrote, with the loss of the right answer where there is one answer (nats per token)."""

    text: str
    loss: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One item as cells answered it: ``choices`` where answers are ranked, else what each cell ``wrote``.

    ``question`` is None where the rows that were asked are not at hand, and then choices are named by their number.
    """

    index: int
    cluster: str
    category: str | None
    question: str | None
    choices: Sequence[Choice]
    wrote: Sequence[Written]
    gold: str
    right: Sequence[bool]


def item(records: Sequence[Row], row: Row | None) -> Item:
    """One item from the record of every cell, and the row of the data file if it is at hand."""
    first = records[0]
    ranked = isinstance(first["nll"], list)
    choices = _choices(records, row) if ranked else []
    golds = first["gold"] if isinstance(first["gold"], list) else [first["gold"]]
    wrote = [] if ranked else [Written(text=str(one["prediction"]), loss=one["nll"]) for one in records]
    return Item(
        index=int(first["index"]),
        cluster=str(first["cluster"]),
        category=first.get("category"),
        question=None if row is None else _question(row),
        choices=choices,
        wrote=wrote,
        gold=choices[first["gold"]].text if ranked else " or ".join(map(str, golds)),
        right=[bool(one["correct"]) for one in records],
    )


def _choices(records: Sequence[Row], row: Row | None) -> list[Choice]:
    first = records[0]
    texts = [f"choice {number}" for number in range(1, len(first["nll"]) + 1)]
    if row is not None:
        texts = row["choices"] if "choices" in row else row["context_options"]
    return [
        Choice(
            text=text,
            gold=number == first["gold"],
            losses=[float(one["nll"][number]) for one in records],
            picked=[number == one["prediction"] for one in records],
        )
        for number, text in enumerate(texts)
    ]


def _question(row: Row) -> str:
    """What is asked; of a schema row what follows each of its contexts."""
    if "context_options" in row:
        return f"… {str(row['continuation']).strip()}"
    return str(row["query"] if "query" in row else row["context"]).strip()


def data_file(cell: Path, config: Row, prompting: str, label: str, *, folder: Path | None = None) -> Path | None:
    """The file whose rows the cell in the folder ``cell`` was asked, known by its hash; None where it is not at hand.

    ``config`` is the cell's recorded configuration; ``folder`` is looked through instead of the place that it names.
    """
    manifest = cell / "gauntlet" / prompting / "manifest.json"
    files = {one["label"]: one["file"] for one in config.get("gauntlet", {}).get("tasks", [])}
    known = store.read_json(manifest)["inputs"].get("files", {}).get(label) if manifest.is_file() else None
    if known is None or label not in files:
        return None
    places = [folder] if folder is not None else _places(cell, config)
    found = [place / files[label] for place in places if (place / files[label]).is_file()]
    return next((path for path in found if store.sha256(path) == known), None)


def _places(cell: Path, config: Row) -> list[Path]:
    """Where a cell's gauntlet found its files: the configured folder, or what the embedded world wrote beside the cells."""
    if config["gauntlet"].get("data") is not None:
        return [Path(config["gauntlet"]["data"])]
    world = config.get("microworld", {})
    return sorted((cell.resolve().parent.parent / "microworld").glob(f"{world.get('part')}-seed{world.get('seed')}-v*"))


def data_rows(path: Path, wanted: Collection[int]) -> dict[int, dict[str, Any]]:
    """The rows with these indices, which are their places in the file; no other line is parsed."""
    with path.open("rb") as file:
        return {index: json.loads(line) for index, line in enumerate(file) if index in wanted}


def printable(text: str) -> str:
    """Untrusted text with control characters shown as their pictures: terminals obey them, and HTML allows few."""
    return text.translate(PICTURES)
