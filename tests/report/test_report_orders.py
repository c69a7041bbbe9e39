"""The order of cells under other weights, counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from limit_lab.report.orders import orders
from tests.report import report_world as world


def reweigh(root: Path, identity: str, facts: list[int], weightings: list[list[float]]) -> None:
    """Replace a pair's facts (of the cell; the baseline has 1) and its preferences under random weights."""
    path = root / "pairs" / identity / "items.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    told = zip(rows, facts, weightings, strict=True)
    world.dump_rows(path, [row | {"facts_cell": own, "random": random} for row, own, random in told])


def test_orders_are_counted_over_weightings(tmp_path: Path) -> None:
    cells = [world.write_cell(tmp_path, label, world.ACCURACY[label]) for label in ("lima", "instruct", "none")]
    better = world.write_pair(tmp_path, cells[1], cells[0], [1.0, 0.0])
    worse = world.write_pair(tmp_path, cells[2], cells[0], [0.0, 0.0])
    reweigh(tmp_path, better, [0, 0], [[1, 0, 0, 1], [1, 0, 1, 1]])  # rates 1, 0, .5, 1
    reweigh(tmp_path, worse, [2, 1], [[0, 1, 0, 1], [0, 1, 0, 0]])  # rates 0, 1, 0, .5
    (found,) = orders(world.read(tmp_path, cells, [better, worse])[1])
    assert list(found.full) == ["instruct", "lima", "none"]  # .5 ties with the baseline's .5: by name
    assert list(found.facts) == ["none", "lima", "instruct"]
    assert found.weightings == 4
    assert found.steps == pytest.approx([0.5, 0.5])  # instruct > lima in draws 1 and 4, lima > none in draws 1 and 3
    assert found.same == pytest.approx(0.25)
    assert found.sides == pytest.approx({"instruct": 0.25, "none": 0.5})
    assert found.ranges == {"instruct": (0.0, 1.0), "none": (0.0, 1.0)}


def test_a_judge_without_facts_has_no_orders(tmp_path: Path) -> None:
    cells = [world.write_cell(tmp_path, label, world.ACCURACY[label]) for label in ("lima", "instruct")]
    pair = world.write_pair(tmp_path, cells[1], cells[0], [1.0, 0.0], judge="length", plain=True)
    assert orders(world.read(tmp_path, cells, [pair])[1]) == []
