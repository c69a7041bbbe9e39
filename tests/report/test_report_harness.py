"""The table of lm-evaluation-harness: there where it was asked, every metric with its error, and in no other number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from limit_lab.report.harness import harness_table
from limit_lab.report.page import write
from tests.report.report_world import ACCURACY, dump, read, write_cell


def record(limit: int | None = None) -> dict[str, Any]:
    row = {"task": "piqa", "version": "1.0", "shots": 0, "n": 40}
    rows = [row | {"metric": "acc", "value": 0.625, "stderr": 0.0775}, row | {"metric": "bleu", "value": -3.0, "stderr": None}]
    return {"schema": 1, "kind": "harness", "lm_eval": "0.4.13", "name": "piqa", "shots": None, "limit": limit, "rows": rows}


def test_a_row_for_every_metric_and_replicate(tmp_path: Path) -> None:
    names = [write_cell(tmp_path, "lima", ACCURACY["lima"], items=20, replicate=(0, seed)) for seed in (0, 1)]
    dump(tmp_path / "cells" / names[0] / "harness" / "piqa" / "results.json", record())
    dump(tmp_path / "cells" / names[1] / "harness" / "piqa-first40" / "results.json", record(limit=40))
    table = harness_table(read(tmp_path, names, [])[0])
    assert table is not None
    assert table.rows == [
        ["lima, world 0, seeds 0.0", "piqa", "1.0", "0", "acc", "40", "0.625 ± 0.077"],
        ["lima, world 0, seeds 0.0", "piqa", "1.0", "0", "bleu", "40", "−3"],
        ["lima, world 0, seeds 0.1", "piqa, first 40 rows", "1.0", "0", "acc", "40", "0.625 ± 0.077"],
        ["lima, world 0, seeds 0.1", "piqa, first 40 rows", "1.0", "0", "bleu", "40", "−3"],
    ]
    assert "lm-evaluation-harness 0.4.13, in float32" in table.note


def test_it_changes_no_other_number_of_the_page(tmp_path: Path) -> None:
    name = write_cell(tmp_path, "lima", ACCURACY["lima"], items=20)
    assert harness_table(read(tmp_path, [name], [])[0]) is None

    def page(out: str) -> tuple[str, dict[str, Any]]:
        path = write(tmp_path, [name], [], name="s", predicates=[], command="c", out=tmp_path / out)
        found: dict[str, Any] = json.loads((tmp_path / out / "report.json").read_text(encoding="utf-8"))
        return path.read_text(encoding="utf-8"), found

    plain, before = page("before")
    dump(tmp_path / "cells" / name / "harness" / "piqa" / "results.json", record())
    with_it, after = page("after")
    assert "Another suite" in with_it
    assert "Another suite" not in plain
    own = [table for table in after.pop("tables") if table not in before["tables"]]
    assert [table["caption"] for table in own] == ["lm-evaluation-harness, a suite of its own"]
    del before["tables"]
    assert after == before
