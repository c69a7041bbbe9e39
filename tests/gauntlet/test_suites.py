"""The shipped suites compose into the typed schema and name what they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from limit_lab.config import Gauntlet
from limit_lab.gauntlet.tasks import read
from tests.conftest import ROOT

CONF = ROOT / "conf" / "gauntlet"


def shipped(name: str) -> Gauntlet:
    raw = OmegaConf.create({"data": {"dir": "/data"}, "gauntlet": OmegaConf.load(CONF / f"{name}.yaml")})
    merged = OmegaConf.merge(OmegaConf.structured(Gauntlet), OmegaConf.to_container(raw, resolve=True)["gauntlet"])
    suite = OmegaConf.to_object(merged)
    assert isinstance(suite, Gauntlet)
    return suite


@pytest.mark.parametrize("name", ["v0", "real_rows", "real_rows_small", "at_hand_first200"])
def test_suite_composes(name: str) -> None:
    lines = (CONF / f"{name}.yaml").read_text().splitlines()
    assert lines[0].startswith("# python -m limit_lab ")
    assert lines[1].startswith("# ")
    suite = shipped(name)
    assert suite.data == "/data/gauntlet"
    assert set(suite.average) == {task.category for task in suite.tasks}


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
        assert replace(task, rows=None) == whole[task.label]


@pytest.mark.parametrize("name", ["v0", "real_rows", "real_rows_small", "at_hand_first200"])
def test_the_rows_at_hand_fit_their_tasks(name: str, shared: Path) -> None:
    data = shared / "data" / "gauntlet"
    found = [read(task, data) for task in shipped(name).tasks if (data / task.file).is_file()]
    assert found
    assert all(found)
