"""The page that reads like the paper: mix, fine-tune, export, gauntlet, answer; then judge the pairs, record, report."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from limit_lab import cell, frozen, kept, provenance, store, sweep
from limit_lab.cell import command
from limit_lab.config import Study, fingerprint, plain
from limit_lab.errors import DataError
from limit_lab.tracking import Tracker


def run(cells: list[Study]) -> Path:
    """Make every cell, compare each with the baseline, write the report; prints the page's path as its last line.

    Raises: LimitLabError and its kinds, always before anything half-written counts as done.
    """
    root = Path(cells[0].runs)
    tracker = Tracker(cells[-1])
    made = sweep.make(cells, tracker)
    pairs = _pairs(cells, made)
    for pair in pairs:
        tracker.tell("pairs", pair)
    record = {"cells": list(dict.fromkeys(made)), "pairs": pairs, "command": command(), "base": frozen.base(cells)}
    store.write_json(root / "studies" / cells[-1].study.name / "study.json", record)
    return kept.page(cells, record, partial(report, cells))


def report(cells: list[Study]) -> Path:
    """Write the page from the records of the study, running nothing. Raises: DataError when the study was never run."""
    from limit_lab.report import write

    study = cells[-1]
    folder = Path(study.runs) / "studies" / study.study.name
    record = store.read_json(folder / "study.json")
    page = write(
        Path(study.runs),
        record["cells"],
        record["pairs"],
        name=study.study.name,
        predicates=study.study.predicates,
        frozen=frozen.statement(cells, record["base"]),
        command=record["command"],
        out=Path(study.report.out) if study.report.out else folder,
    )
    print(page)
    return page


def mix(cells: list[Study]) -> None:
    """Read, draw and tokenise every cell's mixture and print its card; trains nothing."""
    from limit_lab.mixture.mix import mix as mix_rows
    from limit_lab.model.bases import tokenizer_of

    for study in cells:
        card = mix_rows(study, tokenizer_of(study)).card
        print(
            f"{study.mixture.name}: {card['documents']:,} documents, {card['tokens']:,} tokens, "
            f"{card['target_tokens']:,} of them targets"
        )
        for name, source in card["sources"].items():
            print(
                f"  {name}: kept {source['kept']:,} of {source['available']:,}, dropped {source['dropped']:,}, truncated "
                f"{source['truncated']:,}; {source['loss_share']:.0%} of the loss{_facts(source)}"
            )


def _facts(source: Mapping[str, Any]) -> str:
    if source["distinct_facts"] is None:
        return ""
    text = f"; {source['distinct_facts']:,} of {source['source_facts']:,} facts, {source['distinct_templates']:,} templates"
    return text + (f", repetition from row {source['last_new_fact'] + 1:,} on" if source["repetition"] else "")


def export(cells: list[Study]) -> None:
    """Print the exported folder of every finished cell. Raises: DataError for a cell that is not finished."""
    for study in cells:
        folder = cell.folder_of(study) / "export"
        if not (folder / "model" / "config.json").is_file() and study.mixture.samples:
            raise DataError(f"{folder} is not there yet: run the same command with do=study first.")
        print(f"{study.mixture.name}: {cell.model_folder(study)}")


def _pairs(cells: list[Study], made: list[str]) -> list[str]:
    """Judge every cell against the baseline cell at its own point of the grid: same world, seeds, model and recipe."""
    baselines = {
        _point(study): name for study, name in zip(cells, made, strict=True) if study.mixture.name == study.study.baseline_name
    }
    found = [
        _pair(study, name, baselines[_point(study)])
        for study, name in zip(cells, made, strict=True)
        if baselines.get(_point(study), name) != name
    ]
    return list(dict.fromkeys(found))


def _point(study: Study) -> str:
    """What a cell shares with its baseline: everything but the mixture."""
    return fingerprint({key: value for key, value in plain(study).items() if key != "mixture"})


def _pair(study: Study, cell: str, baseline: str) -> str:
    root = Path(study.runs)
    files = [root / "cells" / name / "answers" / "answers.jsonl" for name in (cell, baseline)]
    inputs = {"judge": study.judge, "answers": [store.sha256(file) for file in files], "world": study.microworld.seed}
    folder = root / "pairs" / f"{cell}-vs-{baseline}-{study.judge.name}"

    def work(place: Path) -> dict[str, Any]:
        from limit_lab.judge import compare, scorer
        from limit_lab.model.bases import open_prompts

        rows = [store.read_rows(file) for file in files]
        judge = scorer(study.judge, study.microworld.seed)
        outcome, items = compare(rows[0], rows[1], open_prompts(study), study.judge, judge)
        store.write_rows(place / "items.jsonl", items)
        head = {"schema": store.SCHEMA, "kind": "pair", "id": folder.name, "cell": cell, "baseline": baseline}
        store.write_json(place / "summary.json", {**head, **outcome, "provenance": provenance.collect()})
        return outcome

    with store.locked(folder.with_name(f".{folder.name}")):
        store.stage(folder, inputs, work)
    return folder.name
