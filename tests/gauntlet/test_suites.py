"""The shipped suites compose into the typed schema and name what they are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from limit_lab.cell import asked
from limit_lab.compose import compose
from limit_lab.config import Gauntlet, Task
from limit_lab.fingerprints import fingerprint, stated
from limit_lab.gauntlet.tasks import read
from tests.conftest import ROOT

CONF = ROOT / "conf" / "gauntlet"

VERSIONS = {"v0": "v0", "v0_1": "v0.1", "v0_2": "v0.2", "v0_3": "v0.3"}
REDUCED = ["v0_present29", "real_rows", "real_rows_small", "at_hand_first200"]

#: Keys of a published task, with our word for them and what is meant where a task leaves them out.
WORDS: dict[str, tuple[str, Any]] = {
    "file": ("file", None),
    "num_fewshot": ("shots", None),
    "continuation_delimiter": ("continuation_delimiter", " "),
    "question_prelimiter": ("prelimiter", ""),
    "cot_delimiter": ("cot_delimiter", ""),
    "early_stopping_criteria": ("stop", []),
    "do_normalization": ("normalise", True),
    "has_categories": ("has_categories", False),
}


def shipped(name: str) -> Gauntlet:
    raw = OmegaConf.create({"data": {"dir": "/data"}, "gauntlet": OmegaConf.load(CONF / f"{name}.yaml")})
    merged = OmegaConf.merge(OmegaConf.structured(Gauntlet), OmegaConf.to_container(raw, resolve=True)["gauntlet"])
    suite = OmegaConf.to_object(merged)
    assert isinstance(suite, Gauntlet)
    return suite


@pytest.mark.parametrize("name", [*VERSIONS, *REDUCED])
def test_suite_composes(name: str) -> None:
    lines = (CONF / f"{name}.yaml").read_text().splitlines()
    assert lines[0].startswith("# python -m limit_lab ")
    assert lines[1].startswith("# ")
    suite = shipped(name)
    assert suite.data == "/data/gauntlet"
    assert set(suite.average) <= {task.category for task in suite.tasks}
    assert suite.asked_as == ["raw", "template"]


def published(version: str, shared: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((shared / "reference" / "gauntlet_versions.json").read_text())[version]
    return found


def check(task: Task, entry: dict[str, Any]) -> None:
    """One of our tasks says what the published entry says, and nothing else."""
    assert entry.keys() <= {"label", "type", "baseline", "categories", "rows", "rows_present", *WORDS}
    assert (task.name, task.categories) == (entry["label"], entry["categories"])
    assert task.type == entry["type"].replace("generation_task_with_answers", "generation")
    assert task.baseline == (entry["baseline"] if entry["categories"] else 0.0)
    assert entry["categories"] or entry["baseline"] is None
    for theirs, (ours, default) in WORDS.items():
        assert getattr(task, ours) == entry.get(theirs, default), (task.label, ours)
    assert (task.rows, task.partner) == (None, None)


@pytest.mark.parametrize("name", VERSIONS)
def test_a_version_is_the_published_one_field_by_field(name: str, shared: Path) -> None:
    suite, wanted = shipped(name), published(VERSIONS[name], shared)
    assert (suite.name, suite.whole, suite.max_seq_tokens) == (name, VERSIONS[name], 2048)
    assert (suite.weighting, suite.compat) == (wanted["weighting"], "sound")
    assert len(suite.tasks) == len(wanted["tasks"])
    for task, entry in zip(suite.tasks, wanted["tasks"], strict=True):
        check(task, entry)
    members = {name: {task.name for task in suite.tasks if name in task.categories} for name in wanted["categories"]}
    assert members == {name: set(labels) for name, labels in wanted["categories"].items()}
    filled = {name: [one for one in own if one in members] for name, own in wanted["averages"].items()}
    assert {"core_average": suite.average, **suite.averages} == filled


def test_averages_leave_out_only_categories_without_a_task(shared: Path) -> None:
    wanted = published("v0", shared)
    named = {category for own in wanted["averages"].values() for category in own}
    left_out = {"programming", "programming_lite", "commonsense_reasoning_lm_task_subscore"}
    assert named - wanted["categories"].keys() == left_out
    text = (CONF / "v0.yaml").read_text()
    assert all(name in text for name in left_out)


@pytest.mark.parametrize("name", VERSIONS)
def test_a_version_states_the_rows_of_its_files(name: str, shared: Path) -> None:
    rows = {entry["label"]: entry["rows"] for entry in published(VERSIONS[name], shared)["tasks"]}
    absent = {label for label, count in rows.items() if count is None}
    named = {"mmlu": 14042, "hellaswag": 10042, "squad": 10570, "coqa": 7983, "bigbench_elementary_math_qa": 38160}
    known = sum(count for count in rows.values() if count is not None) + sum(named.get(label, 0) for label in absent)
    assert shipped(name).whole_rows == (None if "bbq" in rows else known)


def test_the_present_part_of_version_0_is_the_29_tasks_with_files(shared: Path) -> None:
    suite, whole = shipped("v0_present29"), shipped("v0")
    files = {entry["path"].removeprefix("gauntlet/") for entry in json.loads((shared / "data" / "manifest.json").read_text())}
    assert suite.tasks == [task for task in whole.tasks if task.file in files]
    assert (suite.name, len(suite.tasks), suite.whole, suite.whole_rows) == ("v0_present29", 29, "v0", whole.whole_rows)
    assert (suite.average, suite.averages) == (whole.average, whole.averages)


def test_a_further_number_of_shots_is_asked_raw_and_averaged_nowhere() -> None:
    suite = shipped("v0_2")
    further = {task.label: task.shots for task in suite.tasks if task.label != task.name}
    assert further == {"gsm8k/5-shot": 5, "arc_challenge/25-shot": 25, "hellaswag/10-shot": 10}
    assert not any(task.categories or task.template for task in suite.tasks if task.label in further)
    assert {task.label: task.shots for task in suite.tasks}["gsm8k"] == 8


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("microworld", "40b76419902d"),
        ("real_rows", "a482c297bf4e"),
        ("real_rows_small", "fbd6510b883e"),
        ("at_hand_first200", "549a6e5d433a"),
    ],
)
def test_what_was_asked_before_is_still_the_same(name: str, known: str) -> None:
    study = compose([f"gauntlet={name}", "data.dir=/data"])
    assert fingerprint(asked(study)) == known
    assert fingerprint(asked(compose([f"gauntlet={name}", "data.dir=/data", "gauntlet.whole=v1"]))) == known


def test_a_task_asked_before_keeps_its_fingerprint() -> None:
    first = compose(["gauntlet=microworld"]).gauntlet.tasks[0]
    assert (first.label, fingerprint({"task": stated(first)})) == ("facts_em", "4b80077c6128")


def test_version_0_has_the_papers_33_tasks() -> None:
    suite = shipped("v0")
    assert len(suite.tasks) == 33
    assert not any(task.type == "generation" for task in suite.tasks)
    assert [task.label for task in suite.tasks if task.has_categories] == ["jeopardy", "mmlu"]


def test_a_reduction_says_so_in_its_name() -> None:
    assert shipped("real_rows").name == "real_rows_copa_winograd_arc200_lambada200"
    assert shipped("real_rows_small").name == "real_rows_small_arc50_copa_lambada50"
    whole = {task.label: task for task in shipped("v0").tasks}
    assert shipped("at_hand_first200").name == "at_hand_first200"
    for task in shipped("at_hand_first200").tasks:
        assert task.rows in (200, None)
        assert replace(task, rows=None) == replace(whole[task.label], also=[])


@pytest.mark.parametrize("name", ["v0", "v0_3", "real_rows", "real_rows_small", "at_hand_first200"])
def test_the_rows_at_hand_fit_their_tasks(name: str, shared: Path) -> None:
    data = shared / "data" / "gauntlet"
    found = [read(task, data) for task in shipped(name).tasks if (data / task.file).is_file()]
    assert found
    assert all(found)
