from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from limit_lab.config import Gauntlet, Task
from limit_lab.errors import EvalError
from limit_lab.gauntlet.aggregate import accuracy, composite, rescale, task_result
from tests.gauntlet.conftest import suite_of
from tests.gauntlet.test_suites import shipped


def make(label: str, category: str, **settings: object) -> Task:
    return Task(label=label, type="multiple_choice", file=f"{label}.jsonl", category=category, **settings)


def recorded(suite: Gauntlet, inputs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Results of the tasks in ``inputs``, from records with the recorded numbers of right answers."""
    results = {}
    for task in suite.tasks:
        evaluators = [one for one in inputs if one["label"].split("/")[0] == task.label]
        records = [
            {"category": one["label"], "correct": int(item < one["correct"])}
            for one in evaluators
            for item in range(one["total"])
        ]
        if records:
            results[task.label] = task_result(task, records, prompting="raw")
    return results


def test_recorded_composites_of_version_0(golden: Path) -> None:
    suite = shipped("v0")
    units = json.loads((golden / "units" / "composite.json").read_text())
    units = [unit for unit in units if (unit["version"], unit["weighting"]) == ("v0", "EQUAL")]
    assert {unit["dropped_benchmark"] for unit in units} == {None, "boolq"}
    for unit in units:
        results = recorded(suite, unit["inputs"])
        if unit["dropped_benchmark"]:
            with pytest.raises(EvalError, match=f"no raw result for {unit['dropped_benchmark']},"):
                composite(suite, results, prompting="raw")
            continue
        found = composite(suite, results, prompting="raw")
        expected = {name.rsplit("/", 1)[1]: value for name, value in unit["expected"].items()}
        assert found["categories"] == pytest.approx({name: expected[name] for name in suite.average}, abs=1e-12)
        assert found["average"] == pytest.approx(expected["core_average"], abs=1e-12)


def test_accuracy_is_divided_in_single_precision() -> None:
    assert accuracy(43, 100) == 0.4300000071525574
    assert rescale(0.25, 0.5) == -0.5


def test_categories_weigh_the_same_whatever_their_size() -> None:
    task = make("t", "c", has_categories=True, baseline=0.5, shots=3, partner="p")
    records = [{"category": "a", "correct": 1}] + [{"category": "b", "correct": 0}] * 3
    data = {"sha256": "0" * 64, "state": "verified"}
    assert task_result(task, records, prompting="template", data=data) == {
        "type": "multiple_choice",
        "category": "c",
        "shots": 0,
        "n": 4,
        "correct": 1,
        "score": 0.5,
        "baseline": 0.5,
        "rescaled": 0.0,
        "partner": "p",
        "data": data,
    }


def test_a_missing_task_is_never_averaged_away() -> None:
    suite = suite_of(make("one", "a"), make("two", "a"), name="pair")
    with pytest.raises(EvalError, match="gauntlet=pair has no raw result for two,"):
        composite(suite, {"one": {"rescaled": 0.5}}, prompting="raw")
    with pytest.raises(EvalError, match="no records"):
        task_result(make("one", "a"), [], prompting="raw")


def test_a_category_without_a_template_task_is_named_and_left_out() -> None:
    suite = suite_of(make("one", "a"), make("two", "b", template=False))
    raw = composite(suite, {"one": {"rescaled": 0.5}, "two": {"rescaled": 0.1}}, prompting="raw")
    assert raw == {"categories": {"a": 0.5, "b": 0.1}, "average": 0.3, "not_asked": []}
    template = composite(suite, {"one": {"rescaled": 0.2}}, prompting="template")
    assert template == {"categories": {"a": 0.2}, "average": 0.2, "not_asked": ["b"]}


def test_a_suite_without_a_headline_category_has_no_average() -> None:
    suite = suite_of(make("one", "a", template=False))
    with pytest.raises(EvalError, match="asks no task of its headline categories in template prompting"):
        composite(suite, {}, prompting="template")
