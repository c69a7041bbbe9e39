"""Several exports of one training: made in order, each from where the last one stood, and the same bytes when killed."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from limit_lab import cell, store, sweep, trainings
from limit_lab.compose import compose
from limit_lab.config import Study
from limit_lab.errors import BusyError, LimitLabError
from limit_lab.finetune.train import read_metrics
from limit_lab.grid import cells
from limit_lab.jobs.work import in_order
from limit_lab.progress import Move, Stages
from limit_lab.store import read_json, sha256
from tests.commands import call, groups

POINTS = "finetune.export_at=[3step,4step,5step]"


def asked(folder: Path, *more: str) -> list[str]:
    few = ["answers.limit=2", "gauntlet.prompting=[raw]", "gauntlet.raw_only=true"]
    given = [*groups(folder / "groups"), "+experiment=tiny", f"runs={folder / 'runs'}", "mixture=lima_tiny"]
    return [*given, "study.mixtures=[]", "study.baseline=null", *few, *more]


def weights(folder: Path) -> dict[str, str]:
    return {
        path.parents[2].name.split("-")[1]: sha256(path) for path in folder.glob("runs/cells/*/export/model/model.safetensors")
    }


@pytest.mark.slow
def test_exports_continue_one_training_and_equal_trainings_of_their_own(tmp_path: Path) -> None:
    struck = call(asked(tmp_path, POINTS), at=r"trainings/.*/metrics\.jsonl$", count=4, sent=signal.SIGKILL)
    assert struck.returncode == -signal.SIGKILL
    assert list(tmp_path.glob("runs/trainings/*/checkpoint.ckpt"))
    done = call(asked(tmp_path, POINTS))
    assert done.returncode == 0, done.stderr
    assert not [path for path in (tmp_path / "runs/trainings").iterdir() if not path.name.startswith(".")]

    made = {path.name.split("-")[1]: path for path in (tmp_path / "runs/cells").iterdir()}
    assert {name: len(read_metrics(path / "finetune/metrics.jsonl")) for name, path in made.items()} == {
        "3step": 3,
        "4step": 4,
        "5step": 5,
    }
    assert {read_json(path / "summary.json")["finetune"]["schedule_steps"] for path in made.values()} == {6}
    arms = read_json(next((tmp_path / "runs/studies").glob("*/report.json")))["cells"]
    assert set(arms) == {"lima_tiny, 3step", "lima_tiny, 4step", "lima_tiny, 5step"}

    alone = call(asked(tmp_path / "alone", "finetune.export_at=[5step]"))
    assert alone.returncode == 0, alone.stderr
    assert weights(tmp_path / "alone")["5step"] == weights(tmp_path)["5step"]
    assert len(set(weights(tmp_path).values())) == 3


@pytest.fixture
def exports(tmp_path: Path) -> list[Study]:
    given = asked(tmp_path, POINTS, "hardware.cells=1")
    return cells(compose(given[2:], Path(given[1])), given[2:], Path(given[1]))


class Silent:
    """Progress that nobody sees."""

    def begin(self, key: str) -> Move:
        return lambda done, of: None

    def end(self, key: str) -> None:
        return


def test_one_job_makes_all_exports_of_a_training_in_order(exports: list[Study], monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def make(study: Study, number: int, of: int, progress: Stages, *, onward: bool) -> None:
        made.append((study.label, number, of, onward))
        if study.finetune.export == "4step":
            raise LimitLabError("it broke: mend it.")

    monkeypatch.setattr(cell, "make", make)
    found = sweep._trainings(list(enumerate(exports, 1)))
    assert list(found) == ["1 lima_tiny"]
    with pytest.raises(LimitLabError, match=r"^lima_tiny, 4step: it broke: mend it\.$"):
        in_order(found["1 lima_tiny"], 3, Silent())
    assert made == [("lima_tiny, 3step", 1, 3, True), ("lima_tiny, 4step", 2, 3, True), ("lima_tiny, 5step", 3, 3, False)]


def test_other_recipes_train_apart(exports: list[Study]) -> None:
    identity = {"base": "b", "recipe": {"stop": "3step", "rows": "packed"}}
    place = trainings.place(exports[0], identity)
    assert trainings.place(exports[1], {**identity, "recipe": {"stop": "4step", "rows": "packed"}}) == place
    assert trainings.place(exports[0], {**identity, "recipe": {"stop": "3step", "rows": "padded"}}) != place
    assert trainings.place(exports[0], {**identity, "base": "other"}) != place


def test_a_training_is_locked_while_it_is_open(exports: list[Study], tmp_path: Path) -> None:
    identity, own = {"recipe": {"stop": "3step"}}, tmp_path / "own"
    own.mkdir()
    with trainings.opened(exports[0], identity, own) as state:
        state.mkdir(parents=True)
        store.write_rows(state / "metrics.jsonl", [{"step": 1}])
        with pytest.raises(BusyError), trainings.opened(exports[1], identity, own):
            pass
        trainings.close(exports[0], identity)
        assert state.is_dir()
    assert store.read_rows(own / "metrics.jsonl") == [{"step": 1}]
    trainings.close(exports[0], identity)
    assert not state.exists()
    trainings.close(exports[0], identity)
