"""The front door: help starts nothing, verbs are called with typed cells, errors are one sentence and an exit code."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import limit_lab
from limit_lab import __main__ as door
from limit_lab.config import VERBS, Study
from limit_lab.errors import ConfigError, DataError
from limit_lab.help import VERBS as EXPLAINED
from tests.folders import user_configs

Calls = list[list[Study]]


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The arguments that add stand-in groups, in an empty working directory."""
    groups = user_configs(tmp_path / "groups")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    return ["--config-dir", str(groups)]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """The cells of every do=study, which does nothing else."""
    found: Calls = []
    monkeypatch.setitem(door.DO, "study", found.append)
    return found


def failing(error: BaseException) -> Callable[[list[Study]], None]:
    def fail(_: list[Study]) -> None:
        raise error

    return fail


def test_every_verb_is_called_and_explained() -> None:
    assert set(door.DO) == set(VERBS) == set(EXPLAINED)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h", "mixture=lima"]])
def test_help_starts_nothing_and_writes_nothing(
    arguments: list[str], user: list[str], calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    assert door.main([*user, *arguments]) == 0
    shown = capsys.readouterr().out
    for part in (
        "mixture",
        "lima_plus_instruct",
        "+experiment",
        "micro_limit",
        "pretrain_micro",
        "CUDA_VISIBLE_DEVICES",
        "do=plan",
    ):
        assert part in shown
    assert not calls
    assert not list(Path.cwd().iterdir())


def test_help_and_plan_load_nothing_heavy(user: list[str]) -> None:
    code = (
        "import sys; from limit_lab.__main__ import main; "
        f"assert main([]) == 0; assert main({[*user, 'do=plan']!r}) == 0; "
        "print([name for name in ('torch', 'lightning', 'transformers', 'numpy') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(limit_lab.__file__).resolve().parent.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert not list(Path.cwd().iterdir())


def test_a_study_gets_its_cells(user: list[str], calls: Calls) -> None:
    assert door.main([*user, "mixture=instruct", "seeds.training=3"]) == 0
    (cells,) = calls
    assert [cell.mixture.name for cell in cells] == ["lima", "instruct"]
    assert all(isinstance(cell, Study) and cell.seeds.training == 3 for cell in cells)
    assert not list(Path.cwd().iterdir())


def test_the_plan_is_printed(user: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert door.main([*user, "+experiment=paper_7b_lima_plus_instruct", "do=plan"]) == 0
    assert "1,250 steps" in capsys.readouterr().out


def test_the_preflight_stops_a_study_before_it_starts(user: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert door.main([*user, "+experiment=paper_7b_lima_plus_instruct"]) == 1
    printed = capsys.readouterr()
    assert "  1. " in printed.err
    assert "gpt-4-0613" in printed.err
    assert "Traceback" not in printed.err
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize(
    "typo", ["mixture=limaa", "+mixture.lma=3", "++seeed=4", "~mixture.lma", "+experimnt=x", "+gird=g", "--cgf"]
)
def test_a_typo_starts_nothing(typo: str, user: list[str], calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert door.main([*user, typo]) == 2
    printed = capsys.readouterr()
    assert not printed.out
    assert len(printed.err.splitlines()) == 1
    assert not calls
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DataError("rows are gone: bring them back."), 1, "rows are gone: bring them back.\n"),
        (ConfigError("no."), 2, "no.\n"),
        (KeyboardInterrupt(), 130, "the same command continues"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), 1, "the disk is full (runs/x)"),
        (OSError(errno.EFBIG, "File too large"), 1, "the disk is full (no space left)"),
        (PermissionError(errno.EACCES, "Permission denied", "runs/x"), 1, "runs/x refuses (Permission denied): give access"),
    ],
)
def test_an_error_is_a_sentence_and_a_code(
    error: BaseException,
    code: int,
    said: str,
    user: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(door.DO, "study", failing(error))
    assert door.main([*user, "mixture=lima"]) == code
    printed = capsys.readouterr().err
    assert said in printed
    assert "Traceback" not in printed


def test_debug_shows_the_traceback(
    user: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(door.DO, "study", failing(DataError("rows are gone.")))
    assert door.main([*user, "debug=true"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_other_errors_are_not_hidden(user: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(door.DO, "study", failing(OSError(errno.EACCES, "denied")))
    with pytest.raises(OSError, match="denied"):
        door.main([*user, "mixture=lima"])


def test_several_runs_follow_one_another(user: list[str], calls: Calls) -> None:
    assert door.main([*user, "-m", "mixture=lima,none", "seeds.training=0,1"]) == 0
    assert [(cells[-1].mixture.name, cells[-1].seeds.training) for cells in calls] == [
        ("lima", 0),
        ("lima", 1),
        ("none", 0),
        ("none", 1),
    ]
    assert not list(Path.cwd().iterdir())


def test_of_several_runs_none_starts_when_one_is_wrong(user: list[str], calls: Calls) -> None:
    assert door.main([*user, "-m", "mixture=lima,instruct_v1"]) == 2
    assert not calls


def test_a_failing_run_does_not_stop_the_next(
    user: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []

    def first_fails(cells: list[Study]) -> None:
        seen.append(cells[-1].mixture.name)
        if len(seen) == 1:
            raise DataError("rows are gone.")

    monkeypatch.setitem(door.DO, "study", first_fails)
    assert door.main([*user, "-m", "mixture=lima,none"]) == 1
    assert seen == ["lima", "none"]
    assert "1 of 2 failed" in capsys.readouterr().err


def test_the_configuration_is_printed(user: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert door.main([*user, "--cfg", "job", "-p", "mixture", "mixture=lima"]) == 0
    assert capsys.readouterr().out == "name: lima\nsamples:\n  lima: 1000\nselection: random\n"
    assert door.main([*user, "--cfg", "job", "--resolve", "+experiment=real_rows", "data.dir=/d"]) == 0
    assert "tokenizer: /d/tokenizers/mpt" in capsys.readouterr().out
    assert door.main([*user, "--cfg", "job", "-p", "mixtur"]) == 2


def test_completion_is_hydras_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert door.main(["-sc", "install=bash"]) == 0
    assert "complete" in capsys.readouterr().out


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert door.main(["--version"]) == 0
    assert capsys.readouterr().out == f"limit_lab {limit_lab.__version__}\n"


def test_hardware_threads_reach_what_torch_reads(user: list[str], calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert door.main([*user, "mixture=lima"]) == 0
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert door.main([*user, "mixture=lima", "hardware.threads=3"]) == 0
    assert os.environ["OMP_NUM_THREADS"] == "3"
