"""Tasks scored as the plain mean over their categories: the report recomputes what the gauntlet recorded."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from limit_lab.config import Gauntlet, Task
from limit_lab.errors import EvalError
from limit_lab.gauntlet import evaluate
from limit_lab.gauntlet.aggregate import composite, task_result
from limit_lab.model.mpt import MPT
from limit_lab.prompt import Tokenizer
from limit_lab.report.quantities import accuracy, average, category
from limit_lab.report.records import Cell, load
from limit_lab.store import read_json, read_rows
from tests.gauntlet.conftest import suite_of, toy_model, toy_tokenizer, write_rows
from tests.report import report_world as world

__all__ = ["toy_model", "toy_tokenizer"]  # fixtures

SPLIT = Task(label="split", type="multiple_choice", file="split.jsonl", category="a", baseline=0.25, has_categories=True)
WHOLE = Task(label="whole", type="multiple_choice", file="whole.jsonl", category="a", baseline=0.5)
OTHER = Task(label="other", type="language_modeling", file="other.jsonl", category="b", baseline=0.0)


def record(root: Path, rows: dict[str, list[tuple[str, str, int]]], suite: Gauntlet) -> str:
    """A cell whose tasks have items (category, cluster, right or not), scored by the gauntlet itself."""
    identity = world.write_cell(root, "lima", [])
    results = {}
    for task in (task for task in suite.tasks if task.label in rows):
        items = [
            {"index": place, "cluster": cluster, "group": "ab"[place % 2], "category": part, "correct": right}
            for place, (part, cluster, right) in enumerate(rows[task.label])
        ]
        world.dump_rows(root / "cells" / identity / "gauntlet" / "raw" / "items" / f"{task.label}.jsonl", items)
        results[task.label] = task_result(task, items, prompting="raw")
    return scored(root, identity, suite, {"tasks": results, **composite(suite, results, prompting="raw")})


def scored(root: Path, identity: str, suite: Gauntlet, found: dict[str, object]) -> str:
    path = root / "cells" / identity / "summary.json"
    world.dump(path, read_json(path) | {"config": {"gauntlet": asdict(suite)}, "gauntlet": {"suite": suite.name, "raw": found}})
    return identity


def read(root: Path, identity: str) -> Cell:
    return load(root, [identity], [])[0][0]


def uneven(count: int) -> list[tuple[str, str, int]]:
    """Nine items in ten in a category that is always right, the rest in one that never is."""
    return [("easy" if place % 10 else "hard", f"e{place // 2}", int(place % 10 > 0)) for place in range(count)]


def test_constructed_scores_equal_those_of_the_gauntlet(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    coins = [("mnop"[place % 7 % 4], f"e{place // 3}", int(draw.random() < place % 7 / 7)) for place in range(91)]
    identity = record(tmp_path, {"split": uneven(60), "whole": coins, "other": coins}, suite_of(SPLIT, WHOLE, OTHER))
    cell, summary = read(tmp_path, identity), read_json(tmp_path / "cells" / identity / "summary.json")["gauntlet"]["raw"]
    for label, task in cell.suites["raw"].tasks.items():
        found = accuracy(cell, "raw", task).estimate()
        assert found.value == pytest.approx(summary["tasks"][label]["score"], abs=1e-6)
        assert found.n == summary["tasks"][label]["n"]
    for name in "ab":
        assert category(cell, "raw", name).estimate().value == pytest.approx(summary["categories"][name], abs=1e-6)
    assert average(cell, "raw").estimate().value == pytest.approx(summary["average"], abs=1e-6)
    assert accuracy(cell, "raw", cell.suites["raw"].tasks["split"]).estimate().value == pytest.approx(0.5)  # 0.9 over items


def test_weights_sub_scores_and_tasks_outside_any_category_are_read(tmp_path: Path) -> None:
    whole, other = replace(WHOLE, also=["lite"]), replace(OTHER, category="a")
    further = replace(WHOLE, label="whole/5-shot", shots=5, template=False, category=None)
    suite = replace(suite_of(SPLIT, whole, other, further), weighting="LOG_SAMPLE_SZ", whole="v9", whole_rows=400)
    suite = replace(suite, averages={"lite_average": ["lite"]})
    rows = {"split": uneven(100), "whole": uneven(20), "other": uneven(30), "whole/5-shot": uneven(20)}
    identity = record(tmp_path, rows, suite)
    cell, summary = read(tmp_path, identity), read_json(tmp_path / "cells" / identity / "summary.json")["gauntlet"]["raw"]
    found = cell.suites["raw"]
    assert (found.categories, found.average) == (["a", "lite"], ["a"])
    for name in found.categories:
        assert category(cell, "raw", name).estimate().value == pytest.approx(summary["categories"][name], abs=1e-6)
    plain = [summary["tasks"][label]["rescaled"] for label in ("split", "whole", "other")]
    assert abs(summary["average"] - sum(plain) / 3) > 0.01
    assert found.share == "38 % of the rows of v9 (150 of 400)"
    assert found.tasks["whole/5-shot"].categories == []


def test_a_category_that_strict_removed_is_in_no_table(tmp_path: Path) -> None:
    suite = replace(suite_of(SPLIT, OTHER), compat="strict")
    identity = record(tmp_path, {"split": uneven(100)}, suite)
    found = read(tmp_path, identity).suites["raw"]
    assert (list(found.tasks), found.categories, found.average) == (["split"], ["a"], ["a"])
    both = replace(suite_of(SPLIT, replace(OTHER, category="a")), compat="strict")
    alone = read(tmp_path, record(tmp_path, {"split": uneven(100)}, both)).suites["raw"]
    assert (list(alone.tasks), alone.categories, alone.average) == (["split"], [], [])


def test_the_interval_is_that_of_the_mean_over_categories(tmp_path: Path) -> None:
    """Two categories of independent coins: the variance is the mean of theirs over two, not that of the pooled items."""
    draw = np.random.default_rng(1)
    rows = [("many" if place < 900 else "few", f"e{place}", int(draw.random() < 0.5)) for place in range(1000)]
    cell = read(tmp_path, record(tmp_path, {"split": rows}, suite_of(SPLIT)))
    found = accuracy(cell, "raw", cell.suites["raw"].tasks["split"]).estimate()
    shares = [np.mean([right for part, _, right in rows if part == name]) for name in ("many", "few")]
    error = np.sqrt(sum(p * (1 - p) / n for p, n in zip(shares, (900, 100), strict=True))) / 2
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.06)


def test_a_draw_that_empties_a_category_counts_with_the_others(tmp_path: Path) -> None:
    """One cluster of five holds the only right category: a third of all draws miss it and score 0, as the gauntlet would."""
    rows = [("hard", f"e{place}", 0) for place in range(5)] + [("easy", "e4", 1)]
    cell = read(tmp_path, record(tmp_path, {"split": rows}, suite_of(SPLIT)))
    found = accuracy(cell, "raw", cell.suites["raw"].tasks["split"]).estimate()
    assert (found.value, found.low, found.high) == (0.5, 0.0, 0.5)


def test_groups_are_means_over_their_categories(tmp_path: Path) -> None:
    rows = [("m", "e0", 1), ("m", "e1", 0), ("m", "e2", 1), ("n", "e3", 1), ("n", "e4", 0), ("m", "e5", 0)]
    cell = read(tmp_path, record(tmp_path, {"split": rows}, suite_of(SPLIT)))
    task = cell.suites["raw"].tasks["split"]  # group a: m 1, m 1, n 0; group b: m 0, n 1, m 0
    assert [accuracy(cell, "raw", task, group).estimate().value for group in "ab"] == [0.5, 0.5]
    assert [accuracy(cell, "raw", task, group).estimate().n for group in "ab"] == [3, 3]


def test_an_evaluated_task_is_recomputed_from_its_records(toy_model: MPT, toy_tokenizer: Tokenizer, tmp_path: Path) -> None:
    data, sizes = tmp_path / "data", {"m": 9, "n": 3, "o": 2}
    rows = [{"query": f"q{n}{part}", "choices": ["red", "blue", "green"], "gold": n % 3, "category": part, "entity": f"e{n}"}
            for part, size in sizes.items() for n in range(size)]  # fmt: skip
    write_rows(data, "split.jsonl", rows)
    identity, suite = world.write_cell(tmp_path, "lima", []), suite_of(SPLIT)
    out = tmp_path / "cells" / identity / "gauntlet" / "raw"
    result = evaluate(toy_model, toy_tokenizer, suite, data, out, prompting="raw", prompt_format="bare")
    cell = read(tmp_path, scored(tmp_path, identity, suite, result))
    found = accuracy(cell, "raw", cell.suites["raw"].tasks["split"]).estimate()
    records = read_rows(out / "items" / "split.jsonl")
    assert Counter(record["category"] for record in records) == sizes
    assert found.value == pytest.approx(result["tasks"]["split"]["score"], abs=1e-6)
    assert found.value != pytest.approx(np.mean([record["correct"] for record in records]), abs=1e-3)


def test_lost_items_and_lost_categories_are_refused(tmp_path: Path) -> None:
    identity = record(tmp_path, {"split": uneven(40), "other": uneven(40)}, suite_of(SPLIT, OTHER))
    path = tmp_path / "cells" / identity / "gauntlet" / "raw" / "items" / "split.jsonl"
    kept = read_rows(path)
    world.dump_rows(path, kept[:20])
    with pytest.raises(EvalError, match=r"number of items of split \(raw\)"):
        read(tmp_path, identity)
    world.dump_rows(path, kept)
    summary = tmp_path / "cells" / identity / "summary.json"
    told = read_json(summary)
    told["gauntlet"]["raw"]["categories"]["c"] = 0.5
    world.dump(summary, told)
    with pytest.raises(EvalError, match=r"lie in the categories \['a', 'b'\]"):
        read(tmp_path, identity)
