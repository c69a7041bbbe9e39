"""All cells of a study: missing bases first, what is done skipped, what fails named, nothing made twice by two launchers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import limit_lab
from limit_lab import __main__ as door
from limit_lab import cell, side_by_side, store, sweep
from limit_lab.compose import compose
from limit_lab.config import Study
from limit_lab.errors import LimitLabError
from limit_lab.finetune.train import read_metrics
from limit_lab.grid import cells
from limit_lab.microworld import pretrain
from limit_lab.microworld.checkpoint import failed_at, lock_of, made_at
from limit_lab.progress import Move
from limit_lab.status import standing
from limit_lab.tracking import Tracker
from tests.commands import call, groups

GRID = "# @package _global_\nstudy: {name: grid, axes: {seeds.training: [0, 1]}, mixtures: [lima_tiny]}\n"
WORLDS = "# @package _global_\nstudy: {name: worlds, axes: {microworld.seed: [0, 7, 8]}, mixtures: [none]}\n"


def test_two_launchers_train_every_cell_exactly_once(tmp_path: Path) -> None:
    given = [*groups(tmp_path / "groups", grid__mine=GRID), "+experiment=tiny", "+grid=mine", "finetune.duration=6step"]
    command = [sys.executable, "-m", "limit_lab", *given, f"runs={tmp_path / 'runs'}", "answers.limit=2", "hardware.cells=1"]
    environment = os.environ | {"PYTHONPATH": str(Path(limit_lab.__file__).resolve().parent.parent), "OMP_NUM_THREADS": "1"}
    launchers = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    ended = [launcher.communicate(timeout=300) for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [0, 0], [said for _, said in ended]
    trained = [line for out, _ in ended for line in out.splitlines() if line.startswith("  finetune:")]
    made = list((tmp_path / "runs/cells").iterdir())
    assert len(trained) == len(made) == 4
    for folder in made:
        assert [row["step"] for row in read_metrics(folder / "finetune/metrics.jsonl")] == [1, 2, 3, 4, 5, 6]
    assert len(list((tmp_path / "runs/pairs").glob("*/summary.json"))) == 2


def test_a_killed_cell_has_stopped_and_the_same_command_continues_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*groups(tmp_path / "groups"), "+experiment=tiny", f"runs={tmp_path / 'runs'}", "study.mixtures=[lima_tiny]"]
    given += ["answers.limit=2", "hardware.cells=1"]
    assert call(given, at=r"lima_tiny.*/finetune/metrics\.jsonl$", count=5).returncode < 0
    assert door.main([*given, "do=status"]) == 0
    shown = capsys.readouterr().out
    assert "1 stopped, 1 waiting; ~" in shown
    assert [line.split("│")[4].strip() for line in shown.splitlines() if "stopped" in line and "│" in line] == ["stopped"]
    done = call(given)
    assert done.returncode == 0, done.stderr
    assert door.main([*given, "do=status"]) == 0
    assert "2 done; ~0.0 minutes of work left" in capsys.readouterr().out


@pytest.fixture
def worlds(tmp_path: Path) -> list[Study]:
    """A grid of three worlds, two of them without a base."""
    given = groups(tmp_path / "groups", grid__mine=WORLDS)
    overrides = ["+experiment=tiny", "+grid=mine", f"runs={tmp_path / 'runs'}", "hardware.cells=1", "study.baseline=lima_tiny"]
    return cells(compose(overrides, Path(given[1])), overrides, Path(given[1]))


def test_a_base_that_fails_takes_along_the_cells_of_its_world_only(
    worlds: list[Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Path(worlds[0].runs)
    told, made = [], []

    def pretrained(study: Study, place: Path, progress: Move | None) -> dict[str, Any]:
        if study.microworld.seed == 7:
            raise LimitLabError("it broke: mend it.")
        assert progress is not None
        progress(1, 2)
        told.append(study.microworld.seed)
        return {}

    monkeypatch.setattr(pretrain, "_pretrain", pretrained)
    monkeypatch.setattr(cell, "ready", lambda study: None)
    monkeypatch.setattr(cell, "require_weights", lambda study: None)
    monkeypatch.setattr(cell, "settled", lambda study: False)
    monkeypatch.setattr(cell, "make", lambda study, *_, onward: made.append((study.microworld.seed, study.mixture.name)))
    monkeypatch.setattr(cell, "folder_of", lambda study: runs / "cells" / study.mixture.name)
    with pytest.raises(LimitLabError, match=r"^base of world 7: it broke: mend it\.$"):
        sweep.make(worlds, Tracker(worlds[-1]))
    assert told == [8]
    assert made == [(world, name) for world in (0, 8) for name in ("lima_tiny", "none", "both_tiny")]


def test_status_says_what_a_cell_without_a_base_waits_for(worlds: list[Study]) -> None:
    study = next(study for study in worlds if study.microworld.seed == 7)
    world, runs = study.microworld, Path(study.runs)
    assert (standing(study).state, standing(study).note) == ("waiting", "for its base")
    with store.locked(lock_of(world, runs)):
        assert standing(study).note == "for its base, which is being made"
    store.write_json(failed_at(world, runs), {"error": "the disk is full."})
    assert (standing(study).state, standing(study).note) == ("failed", "its base: the disk is full.")


def test_a_base_that_another_process_makes_is_waited_for(
    worlds: list[Study], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(side_by_side, "AGAIN", 0.01)
    monkeypatch.setattr(side_by_side, "PAUSE", 0.01)
    seven = next(study for study in worlds if study.microworld.seed == 7)
    lock = store.locked(lock_of(seven.microworld, Path(seven.runs)))
    order = []

    def pretrained(study: Study, place: Path, progress: Move | None) -> dict[str, Any]:
        order.append(study.microworld.seed)
        lock.__exit__(None, None, None) if study.microworld.seed == 8 else None
        return {}

    monkeypatch.setattr(pretrain, "_pretrain", pretrained)
    monkeypatch.setattr(sweep, "_cells", lambda *_: {})
    monkeypatch.setattr(cell, "ready", lambda study: None)
    monkeypatch.setattr(cell, "require_weights", lambda study: None)
    monkeypatch.setattr(cell, "folder_of", lambda study: Path(study.mixture.name))
    lock.__enter__()
    sweep.make(worlds, Tracker(worlds[-1]))
    assert order == [8, 7]
    assert "base of world 7: another process makes it; the others go first\n" in capsys.readouterr().out
    assert all((made_at(study.microworld, Path(study.runs)) / "manifest.json").is_file() for study in worlds[3:])


def test_a_finished_study_loads_nothing_heavy_and_keeps_its_page(tmp_path: Path) -> None:
    given = [*groups(tmp_path / "groups"), "+experiment=tiny", f"runs={tmp_path / 'runs'}", "answers.limit=2"]
    assert call(given).returncode == 0
    page = tmp_path / "runs/studies/tiny/index.html"
    written = page.stat().st_mtime_ns
    code = (
        f"import sys; sys.argv[1:] = {given!r}; "
        "from pathlib import Path; from limit_lab import cell, compose, grid, study; "
        f"given = {given[2:]!r}; user = Path({given[1]!r}); "
        "found = grid.cells(compose.compose(given, user), given, user); study.run(found); "
        "assert all(cell.complete(one) for one in found); "
        "print([name for name in ('torch', 'lightning', 'transformers', 'matplotlib') if name in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(limit_lab.__file__).resolve().parent.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert page.stat().st_mtime_ns == written
