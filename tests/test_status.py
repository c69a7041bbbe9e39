"""do=status: every state of a cell, read from its folder, and the table of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from limit_lab import __main__ as door
from limit_lab import cell, store
from limit_lab.compose import compose
from limit_lab.config import Study
from limit_lab.errors import LimitLabError
from limit_lab.fingerprints import fingerprint
from limit_lab.progress import StudyProgress
from limit_lab.status import standing


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return compose(["mixture=lima", f"runs={tmp_path}"])


def test_a_cell_waits_then_runs_then_has_stopped_or_failed_or_is_done(study: Study) -> None:
    assert standing(study).state == "waiting"
    folder = cell.folder_of(study)
    store.write_json(folder / "finetune" / "begun.json", {})
    with store.locked(folder):
        running = standing(study)
    assert (running.state, running.note) == ("running", "finetune")
    stopped = standing(study)
    assert (stopped.state, stopped.note) == ("stopped", "finetune")
    assert stopped.seconds_left is not None
    assert stopped.seconds_left > 10
    store.write_json(folder / cell.FAILED, {"error": "the loss is nan at step 3: lower something."})
    failed = standing(study)
    assert (failed.state, failed.note) == ("failed", "the loss is nan at step 3: lower something.")
    store.write_json(folder / "summary.json", {"asked": "something else"})
    assert standing(study).state == "failed"
    store.write_json(folder / "summary.json", {"asked": fingerprint(cell.asked(study)), "identity": {}})
    assert standing(study).state == "done"


def test_what_is_asked_of_the_development_part_is_kept_apart(study: Study) -> None:
    development = replace(study, microworld=replace(study.microworld, part="development"))
    assert cell.folder_of(development).name == cell.folder_of(study).name + "-development"


def test_looking_writes_nothing(study: Study, tmp_path: Path) -> None:
    standing(study)
    assert not list(tmp_path.iterdir())


def test_a_cell_whose_base_is_not_made_waits(tmp_path: Path) -> None:
    found = standing(compose(["mixture=lima", f"runs={tmp_path}", "microworld.seed=9"]))
    assert (found.state, found.note) == ("waiting", "for its base")


def test_a_failing_cell_says_why_in_its_folder(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise LimitLabError("it broke: mend it.")

    monkeypatch.setattr(cell, "_trained", fail)
    with pytest.raises(LimitLabError, match="it broke"):
        cell.make(study, 1, 1, StudyProgress({}))
    assert standing(study).note == "it broke: mend it."


def test_the_table_names_every_cell_and_what_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert door.main(["+grid=micro_paper", "do=status", f"runs={tmp_path}"]) == 0
    shown = capsys.readouterr().out
    assert "68 waiting; ~" in shown
    for name, times in (("none", 4), ("lima_wrong_entity", 8), ("instruct_20000", 8)):
        assert shown.count(f"│ {name} ") + shown.count(f"│ {name}-") == times
