"""Scores on data that is not the original file: labelled with its short hash in every table that they reach."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from limit_lab import report, tracking
from limit_lab.compose import compose
from limit_lab.config import Diff
from limit_lab.diff import show
from limit_lab.report.arms import arms
from limit_lab.report.records import load
from limit_lab.store import read_json
from tests.report import report_world as world

SHA256 = "0123456789abcdef" * 4
NAMED = "knowledge_mc (0123456789ab)"


def alter(folder: Path, state: str = "altered") -> None:
    """Say of the cell's first task, raw prompts, that its data has this state."""
    path = folder / "summary.json"
    summary = read_json(path)
    summary["gauntlet"]["raw"]["tasks"]["knowledge_mc"]["data"] = {"sha256": SHA256, "state": state}
    world.dump(path, summary)


def tables(root: Path, cells: list[str], pairs: list[str]) -> dict[str, Mapping[str, Any]]:
    report.write(root, cells, pairs, out=root / "out", name="mixtures", predicates=[], command="c")
    found = json.loads((root / "out" / "report.json").read_text(encoding="utf-8"))["tables"]
    return {table["caption"]: table for table in found}


def marked(table: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Row and column of the numbers with the mark of altered data."""
    numbers = [(row[0], name, value) for row in table["rows"] for name, value in zip(table["columns"], row, strict=True)]
    return {(row, name) for row, name, value in numbers if isinstance(value, dict) and "‡" in value["mark"]}


def test_every_table_of_scores_names_altered_data(tmp_path: Path) -> None:
    cells, pairs = world.write_study(tmp_path)
    (lima,) = (identity for identity in cells if identity.startswith("lima-"))
    alter(tmp_path / "cells" / lima)
    found = tables(tmp_path, cells, pairs)
    assert marked(found["The cells under both paradigms, in %"]) == {("lima", "benchmarks, raw")}
    assert marked(found["Categories, raw prompts, in %"]) == {("knowledge", "lima")}
    assert marked(found["Tasks, raw prompts, in %"]) == {("knowledge_mc", "lima")}
    couples = marked(found["The same questions written out and ranked, raw prompts"])
    assert {row for row, _ in couples} == {"lima"}
    assert all("likelihood" in column for _, column in couples)
    raw = [table for table in found.values() if f"‡ altered data, not the original file of {NAMED}." in table["note"]]
    captions = {table["caption"] for table in raw}
    scores = {name for name in found if "raw prompts" in name} | {"The cells under both paradigms, in %"}
    assert captions == scores
    assert not any("‡" in json.dumps(table, ensure_ascii=False) for name, table in found.items() if name not in captions)
    short = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "(altered data: knowledge_mc 0123456789ab), recorded" in short
    assert "‡" in short


@pytest.mark.parametrize("state", ["verified", "unverified", "own"])
def test_other_data_has_no_mark(state: str, tmp_path: Path) -> None:
    cells, pairs = world.write_study(tmp_path)
    alter(tmp_path / "cells" / cells[0], state)
    assert "‡" not in json.dumps(tables(tmp_path, cells, pairs), ensure_ascii=False)
    assert "altered" not in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


def test_cells_asked_on_altered_data_are_another_arm(tmp_path: Path) -> None:
    cells = [world.write_cell(tmp_path, "lima", world.ACCURACY["lima"], replicate=(seed, 0)) for seed in (1, 2)]
    assert len(arms(load(tmp_path, cells, [])[0])) == 1
    alter(tmp_path / "cells" / cells[1])
    assert len(arms(load(tmp_path, cells, [])[0])) == 2


def test_diff_and_tracking_name_altered_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left, right = (tmp_path / "cells" / world.write_cell(tmp_path, name, world.ACCURACY[name]) for name in ("none", "lima"))
    alter(right)
    show(replace(compose(["do=diff"]), diff=Diff(left=str(left), right=str(right))))
    assert "Altered data, not the original file: knowledge_mc 0123456789ab (right)." in capsys.readouterr().out
    told = {name for _, name, _, _ in tracking._scores(read_json(right / "summary.json")["gauntlet"]["raw"])}
    assert "knowledge_mc (altered data 0123456789ab)" in told
    assert "letters_mc" in told
