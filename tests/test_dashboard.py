"""The workspace of a study: the same file each time, grouped by mixture and size, published by nobody without a key."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from limit_lab import dashboard
from limit_lab.compose import compose
from limit_lab.config import Study, Tracking
from limit_lab.errors import ConfigError, DataError
from limit_lab.store import read_json
from tests.report.report_world import dump, write_study


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A finished study, seen by somebody without a key."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb_config"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    cells, pairs = write_study(tmp_path / "runs")
    dump(tmp_path / "runs/studies/tested/study.json", {"cells": cells, "pairs": pairs})
    return compose(["study.name=tested", f"runs={tmp_path / 'runs'}", "tracking=wandb"])


def test_the_workspace_is_written_the_same_each_time(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    path = dashboard.run([study])
    said = capsys.readouterr().out
    assert said.startswith(f"{path}, not published (no key for https://api.wandb.ai): do=dashboard tracking=wandb publishes it")
    assert said.count("\n") == 1
    first = path.read_bytes()
    assert dashboard.run([study]).read_bytes() == first
    assert not (path.parents[4] / "home").exists()
    written = read_json(path)
    assert (written["name"], written["project"], written["entity"]) == ("limit_lab tested", "limit_lab", None)
    section = written["spec"]["section"]
    sections = {each["name"]: each["panels"] for each in section["panelBankConfig"]["sections"]}
    both = ["both paradigms by mixture", "both paradigms by size"]
    assert set(sections) == {*both, "curves by mixture", "curves by size", "tables"}
    for name, key in zip(both, ("mixture.value.name", "size.value"), strict=True):
        bars = [panel["config"] for panel in sections[name] if panel["viewType"] == "Bar Chart"]
        assert {bar["groupBy"] for bar in bars} == {key}
        shown = {metric.partition(".")[2] for bar in bars for metric in bar["metrics"]}
        assert {"gauntlet/raw/average", "gauntlet/template/average", "judge/win_rate", "judge/score/cell"} <= shown
        assert "gauntlet/raw/category/knowledge, written" in shown
    (rule,) = section["runSets"][0]["filters"]["filters"]
    record = read_json(path.with_name("study.json"))
    assert (rule["key"]["name"], rule["value"]) == ("name", [*record["cells"], *record["pairs"]])
    identities = [panel["__id__"] for panels in sections.values() for panel in panels]
    assert len(set(identities)) == len(identities)


def test_a_study_that_was_never_run_has_none(study: Study) -> None:
    with pytest.raises(DataError):
        dashboard.run([replace(study, study=replace(study.study, name="absent"))])


def test_online_without_a_key_is_refused_before_anything_is_written(study: Study) -> None:
    with pytest.raises(ConfigError, match="wandb login"):
        dashboard.run([replace(study, tracking=Tracking(name="wandb", kind="wandb", mode="online"))])
    assert not list(Path(study.runs).rglob("dashboard.json"))


def test_without_the_extra_the_remedy_is_named(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    for name in [name for name in sys.modules if name.startswith("wandb_workspaces.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigError, match=r"pip install 'limit-lab\[tracking\]'"):
        dashboard.run([study])
