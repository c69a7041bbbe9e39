"""The page that reads like the paper: mix, fine-tune, export, gauntlet, answer; then judge the pairs, record, report."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from limit_lab import cell, frozen, kept, provenance, store, sweep
from limit_lab.cell import command
from limit_lab.config import Study
from limit_lab.couples import couples
from limit_lab.errors import DataError, LimitLabError, ModelError, did_you_mean
from limit_lab.estimate import distinct
from limit_lab.status import standing
from limit_lab.store import Missing
from limit_lab.tracking import Tracker


def run(cells: list[Study]) -> Path:
    """Make every cell, compare each with its baseline, write the report; prints the page's path as its last line.

    Raises: LimitLabError and its kinds, before anything half-written counts as done; for a failing cell after all others are
    made, judged and reported.
    """
    tracker = Tracker(cells[-1])
    try:
        sweep.make(cells, tracker)
    except LimitLabError:
        made = _made(cells)
        if made:
            _report(cells, _record(cells, made, _judged(made, tracker)))
        raise
    record = _record(cells, cells, _judged(cells, tracker))
    return kept.page(cells, record, partial(_report, cells, record))


def _made(cells: list[Study]) -> list[Study]:
    """The cells whose records are all there."""
    return [study for study in cells if _lack(study) is None]


def _lack(study: Study) -> Missing | None:
    """What keeps a cell out of a report: it was never finished, or a file of it is damaged."""
    damage = ""
    try:
        if cell.complete(study):
            return None
    except (DataError, ModelError) as error:  # a file of it is damaged, or it has no base and so no folder
        damage = str(error)
    own = standing(study)
    if own.state == "done":
        return Missing(name=own.name, state="damaged", note=damage)
    return Missing(name=own.name, state=own.state, note=own.note)


def _judged(made: list[Study], tracker: Tracker) -> list[str]:
    """Judge the pairs of all made cells; returns their ids."""
    found = [_pair(study, other) for study, other in _pairs(made)]
    for name in found:
        tracker.tell("pairs", name)
    return found


def _record(cells: list[Study], made: list[Study], pairs: list[str], line: str | None = None) -> dict[str, Any]:
    """Write down what the study has and what it lacks, for reports and trackers."""
    there = list(dict.fromkeys(cell.folder_of(study).name for study in made))
    lacking = [] if len(made) == len(cells) else [_lack(study) for study in distinct(cells)]
    record = {
        "cells": there,
        "pairs": pairs,
        "missing": [one for one in lacking if one is not None],
        "baseline": cells[-1].study.baseline_name,
        "command": line or command(),
        "base": frozen.base(cells),
    }
    store.write_json(_folder(cells) / "study.json", record)
    return record


def _folder(cells: list[Study]) -> Path:
    return Path(cells[-1].runs) / "studies" / cells[-1].study.name


def report(cells: list[Study]) -> Path:
    """Write the page from the cells and pairs that are finished, running nothing. Raises: DataError when there is none."""
    name, runs = cells[-1].study.name, cells[-1].runs
    if cells[-1].report.studies:
        return _together(cells[-1])
    made = _made(cells)
    if not made:
        raise DataError(f"no cell of the study {name} is finished under {runs}: run the same command with do=study first.")
    folders = [_pair_folder(*couple) for couple in _pairs(made)]
    pairs = [folder.name for folder in folders if (folder / "summary.json").is_file()]
    before = _folder(cells) / "study.json"
    line = store.read_json(before)["command"] if before.is_file() else None
    return _report(cells, _record(cells, made, pairs, line))


def _together(study: Study) -> Path:
    """One page for several studies that have run; their claims stay with each of them."""
    from limit_lab.report import write

    root, names = Path(study.runs) / "studies", study.report.studies
    known = sorted(path.parent.name for path in root.glob("*/study.json"))
    for name in names:
        if name not in known:
            raise DataError(
                f"report.studies names {name!r}, and no such study has run under {study.runs}{did_you_mean(name, known)}"
            )
    records = [store.read_json(root / name / "study.json") for name in names]
    baselines = {record.get("baseline") for record in records}
    page = write(
        Path(study.runs),
        list(dict.fromkeys(cell for record in records for cell in record["cells"])),
        list(dict.fromkeys(pair for record in records for pair in record["pairs"])),
        name=" and ".join(names),
        predicates=[],
        command=command(),
        out=Path(study.report.out) if study.report.out else root / "-".join(names),
        baseline=next(iter(baselines)) if len(baselines) == 1 else None,
        missing=[Missing(**one) for record in records for one in record["missing"]],
    )
    print(page)
    return page


def _report(cells: list[Study], record: Mapping[str, Any]) -> Path:
    from limit_lab.report import write

    study = cells[-1]
    page = write(
        Path(study.runs),
        record["cells"],
        record["pairs"],
        name=study.study.name,
        predicates=study.study.predicates,
        frozen=frozen.statement(cells, record["base"]),
        command=record["command"],
        out=Path(study.report.out) if study.report.out else _folder(cells),
        baseline=study.study.baseline_name,
        missing=record["missing"],
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
                f"{source['truncated']:,}, held out {source['held_out']:,}; {source['loss_share']:.0%} of the loss"
                f"{_facts(source)}"
            )


def _facts(source: Mapping[str, Any]) -> str:
    if source["distinct_facts"] is None:
        return ""
    text = f"; {source['distinct_facts']:,} of {source['source_facts']:,} facts, {source['distinct_templates']:,} templates"
    return text + (f", repetition from row {source['last_new_fact'] + 1:,} on" if source["repetition"] else "")


def export(cells: list[Study]) -> None:
    """Print the folder of every finished cell's weights, pushed first where ``export.push`` says so.

    Raises: DataError for a cell that is not trained, or whose weights were not kept; ModelError when the Hub refuses them.
    """
    for study in cells:
        print(f"{study.label}: {cell.hand_over(study)}")


def _pairs(made: list[Study]) -> list[tuple[Study, Study]]:
    """The couples to compare, each couple of folders once."""
    return list({_pair_folder(*couple): couple for couple in couples(made)}.values())


def _pair_folder(study: Study, baseline: Study) -> Path:
    names = [cell.folder_of(one).name for one in (study, baseline)]
    return Path(study.runs) / "pairs" / f"{names[0]}-vs-{names[1]}-{study.judge.name}"


def _pair(study: Study, baseline: Study) -> str:
    folders = [cell.folder_of(one) for one in (study, baseline)]
    files = [folder / "answers" / "answers.jsonl" for folder in folders]
    inputs = {"judge": study.judge, "answers": [store.sha256(file) for file in files], "world": study.microworld.seed}
    folder = _pair_folder(study, baseline)

    def work(place: Path) -> dict[str, Any]:
        from limit_lab.judge import compare, scorer
        from limit_lab.model.bases import open_prompts

        rows = [store.read_rows(file) for file in files]
        judge = scorer(study.judge, study.microworld.seed)
        outcome, items = compare(rows[0], rows[1], open_prompts(study), study.judge, judge)
        store.write_rows(place / "items.jsonl", items)
        head = {"schema": store.SCHEMA, "kind": "pair", "id": folder.name}
        sides = {"cell": folders[0].name, "baseline": folders[1].name}
        store.write_json(place / "summary.json", {**head, **sides, **outcome, "provenance": provenance.collect()})
        return outcome

    with store.locked(folder.with_name(f".{folder.name}")):
        store.stage(folder, inputs, work)
    return folder.name
