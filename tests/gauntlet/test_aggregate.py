from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from limit_lab.config import Gauntlet, Task
from limit_lab.errors import EvalError
from limit_lab.gauntlet.aggregate import accuracy, composite, rescale, task_result, weight
from tests.gauntlet.conftest import suite_of
from tests.gauntlet.test_suites import VERSIONS, shipped


def make(label: str, category: str | None, **settings: Any) -> Task:
    return Task(label=label, type="multiple_choice", file=f"{label}.jsonl", category=category, **settings)


def recorded(suite: Gauntlet, inputs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Results of the tasks in ``inputs``, from records with the recorded numbers of right answers."""
    results = {}
    for task in suite.tasks:
        evaluators = [one for one in inputs if one["label"].split("/")[:2] == [task.name, f"{task.shots}-shot"]]
        records = [
            {"category": one["label"], "correct": int(item < one["correct"])}
            for one in evaluators
            for item in range(one["total"])
        ]
        if records:
            results[task.label] = task_result(task, records, prompting="raw")
    return results


def units(golden: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((golden / "units" / "composite.json").read_text())
    return found


@pytest.mark.parametrize("name", VERSIONS)
def test_recorded_composites(name: str, golden: Path) -> None:
    own = [unit for unit in units(golden) if unit["version"] == VERSIONS[name]]
    assert len({(unit["weighting"], unit["dropped_benchmark"]) for unit in own}) == len(own) >= 4
    for unit in own:
        suite = replace(shipped(name), weighting=unit["weighting"], compat="strict")
        results = recorded(suite, unit["inputs"])
        dropped = unit["dropped_benchmark"]
        assert {task.label for task in suite.tasks} - results.keys() == {one for one in (dropped,) if one}
        found = composite(suite, results, prompting="raw")
        scores = found["categories"] | {"core_average": found["average"]} | found["averages"]
        expected = {name.rsplit("/", 1)[1]: value for name, value in unit["expected"].items()}
        assert scores == pytest.approx(expected, abs=1e-12)
        without = {category for task in shipped(name).tasks if task.label == dropped for category in task.categories}
        assert found["removed"] == {category: [dropped] for category in without}


def test_recorded_composites_without_a_task_are_errors_unless_strict(golden: Path) -> None:
    names = {version: name for name, version in VERSIONS.items()}
    for unit in units(golden):
        suite = replace(shipped(names[unit["version"]]), weighting=unit["weighting"])
        results = recorded(suite, unit["inputs"])
        if unit["dropped_benchmark"]:
            with pytest.raises(EvalError, match=f"no raw result for {unit['dropped_benchmark']},"):
                composite(suite, results, prompting="raw")
            continue
        assert composite(suite, results, prompting="raw")["average"] == pytest.approx(
            unit["expected"]["icl/metrics/eval_gauntlet/core_average"], abs=1e-12
        )


def test_accuracy_is_divided_in_single_precision() -> None:
    assert accuracy(43, 100) == 0.4300000071525574
    assert rescale(0.25, 0.5) == -0.5


def test_weights_count_rows_plainly_or_in_powers_of_two() -> None:
    assert [weight("EQUAL", rows) for rows in (1, 1024)] == [1, 1]
    assert [weight("SAMPLE_SZ", rows) for rows in (1, 1024)] == [1, 1024]
    assert [weight("LOG_SAMPLE_SZ", rows) for rows in (1, 2, 1024)] == [1, 1, 10]


def test_categories_weigh_the_same_whatever_their_size() -> None:
    task = make("t", "c", has_categories=True, baseline=0.5, shots=3, partner="p", also=["d"])
    records = [{"category": "a", "correct": 1}] + [{"category": "b", "correct": 0}] * 3
    data = {"sha256": "0" * 64, "state": "verified"}
    assert task_result(task, records, prompting="template", data=data) == {
        "type": "multiple_choice",
        "category": "c",
        "also": ["d"],
        "shots": 0,
        "n": 4,
        "correct": 1,
        "score": 0.5,
        "baseline": 0.5,
        "rescaled": 0.0,
        "partner": "p",
        "data": data,
    }
    assert task_result(task, records, prompting="raw")["shots"] == 3


def result(rescaled: float, rows: int = 10) -> dict[str, Any]:
    return {"rescaled": rescaled, "n": rows}


def test_a_missing_task_is_never_averaged_away() -> None:
    suite = suite_of(make("one", "a"), make("two", "a"), name="pair")
    with pytest.raises(EvalError, match="gauntlet=pair has no raw result for two,"):
        composite(suite, {"one": result(0.5)}, prompting="raw")
    with pytest.raises(EvalError, match="no records"):
        task_result(make("one", "a"), [], prompting="raw")


def test_strict_removes_the_category_of_a_missing_task_and_says_so() -> None:
    suite = replace(suite_of(make("one", "a"), make("two", "a"), make("three", "b")), compat="strict")
    found = composite(suite, {"one": result(0.5), "three": result(0.1)}, prompting="raw")
    assert (found["categories"], found["average"], found["removed"]) == ({"b": 0.1}, 0.1, {"a": ["two"]})
    nothing = composite(suite, {"one": result(0.5)}, prompting="raw")
    assert (nothing["categories"], nothing["average"], nothing["removed"]) == ({}, 0.0, {"a": ["two"], "b": ["three"]})


def test_a_task_counts_in_every_category_of_its_own_or_in_none() -> None:
    suite = replace(
        suite_of(make("one", "a", also=["a_lite"]), make("two", "a"), make("three", None)),
        average=["a"],
        averages={"lite": ["a_lite"]},
    )
    found = composite(suite, {"one": result(0.5), "two": result(0.1), "three": result(0.9)}, prompting="raw")
    assert (found["categories"], found["average"], found["averages"]) == ({"a": 0.3, "a_lite": 0.5}, 0.3, {"lite": 0.5})


def test_a_category_without_a_template_task_is_named_and_left_out() -> None:
    suite = replace(suite_of(make("one", "a"), make("two", "b", template=False)), averages={"other": ["b"]})
    raw = composite(suite, {"one": result(0.5), "two": result(0.1)}, prompting="raw")
    assert (raw["categories"], raw["average"], raw["not_asked"]) == ({"a": 0.5, "b": 0.1}, 0.3, [])
    template = composite(suite, {"one": result(0.2)}, prompting="template")
    assert (template["categories"], template["average"], template["not_asked"]) == ({"a": 0.2}, 0.2, ["b"])
    assert (raw["averages"], template["averages"]) == ({"other": 0.1}, {"other": None})


def test_the_rows_behind_an_average_stand_beside_it() -> None:
    further = make("one/5-shot", None, shots=5, template=False)
    suite = replace(suite_of(make("one", "a"), make("two", "a")), whole="v9", whole_rows=100)
    suite = replace(suite, tasks=[*suite.tasks, further])
    results = {"one": result(0.5, 40), "two": result(0.1, 7), "one/5-shot": result(0.2, 40)}
    found = composite(suite, results, prompting="raw")
    assert (found["rows_run"], found["rows_stated"], found["rows_of"]) == (47, 100, "v9")
    unstated = composite(suite_of(make("one", "a")), {"one": result(0.5, 40)}, prompting="raw_0_shot")
    assert (unstated["rows_run"], unstated["rows_stated"], unstated["rows_of"]) == (40, None, None)


def test_a_suite_without_a_headline_category_has_no_average() -> None:
    suite = suite_of(make("one", "a", template=False))
    with pytest.raises(EvalError, match="asks no task of its headline categories in template prompting"):
        composite(suite, {}, prompting="template")
