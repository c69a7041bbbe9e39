"""Held-out losses on the page: first, best and last, as means over the replicates."""

from __future__ import annotations

from pathlib import Path

from limit_lab.report.held_out import held_out_table
from limit_lab.report.page import write
from tests.report.report_world import ACCURACY, dump_rows, read, write_cell


def test_first_best_and_last_are_means_over_replicates(tmp_path: Path) -> None:
    names = [write_cell(tmp_path, "lima", ACCURACY["lima"], items=20, replicate=(0, seed)) for seed in (0, 1)]
    losses = {0: 3.0, 50: 1.0, 100: 1.25}
    for number, name in enumerate(names):
        rows = [
            {"step": step, "source": "lima", "loss": loss + number, "tokens": 9, "documents": 2}
            for step, loss in losses.items()
        ]
        extra = [{"step": 120, "source": "lima", "loss": 0.1, "tokens": 9, "documents": 2}] if number else []
        dump_rows(tmp_path / "cells" / name / "finetune" / "held_out.jsonl", [*rows, *extra])
    table = held_out_table(read(tmp_path, names, [])[0])
    assert table is not None
    assert table.rows == [["lima", "lima", "3.500", "1.500", "50", "1.750", "+0.250"]]


def test_the_page_shows_them_where_they_are(tmp_path: Path) -> None:
    name = write_cell(tmp_path, "lima", ACCURACY["lima"], items=20)
    assert held_out_table(read(tmp_path, [name], [])[0]) is None
    rows = [{"step": step, "source": "lima", "loss": 2.0 - step, "tokens": 9, "documents": 2} for step in (0, 1)]
    dump_rows(tmp_path / "cells" / name / "finetune" / "held_out.jsonl", rows)
    page = write(tmp_path, [name], [], name="s", predicates=[], command="c", out=tmp_path / "out")
    text = page.read_text(encoding="utf-8")
    assert "Held-out loss by source" in text
    assert "Held-out loss by source" in (tmp_path / "out/report.json").read_text(encoding="utf-8")
