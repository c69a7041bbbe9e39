"""A scheduler's signals: a fine-tuning ends with a checkpoint, everything else at once, and the same command continues."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from limit_lab import interruption
from limit_lab.interruption import ToBeContinued, asked, finishing, listening
from tests.commands import call, groups, numbers

#: One cell whose only checkpoint is the one that a signal asks for.
ONE = ["+experiment=tiny", "mixture=lima_tiny", "study.mixtures=[]", "study.baseline=null", "hardware.cells=1"]
ONE += ["finetune.checkpoint_every_steps=100", "answers.limit=2", "gauntlet.prompting=[raw]", "gauntlet.raw_only=true"]


def arguments(folder: Path, *more: str) -> list[str]:
    return [*groups(folder / "groups"), *ONE, f"runs={folder / 'runs'}", *more]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The numbers of a run that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole")
    done = call(arguments(folder))
    assert done.returncode == 0, done.stderr
    return numbers(folder / "runs" / "cells")


def test_a_fine_tuning_leaves_with_its_checkpoint_and_goes_on_to_the_same_numbers(
    whole: dict[str, object], tmp_path: Path
) -> None:
    # of SIGTERM tests/test_study.py tells
    left = call(arguments(tmp_path), at=r"finetune/metrics\.jsonl$", count=4, sent=signal.SIGUSR1)
    assert left.returncode == interruption.STATUS, left.stderr
    (kept,) = tmp_path.glob("runs/cells/*/finetune/checkpoint.ckpt")
    steps = len((kept.parent / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    assert 0 < steps < 6
    assert left.stderr.splitlines() == [
        f"fine-tuning stopped on SIGUSR1 after step {steps} of 6, which is kept: the same command continues it."
    ]
    done = call(arguments(tmp_path))
    assert done.returncode == 0, done.stderr
    assert numbers(tmp_path / "runs" / "cells") == whole
    assert not list(tmp_path.glob("runs/cells/*/failed.json"))


def test_a_signal_elsewhere_ends_cleanly(whole: dict[str, object], tmp_path: Path) -> None:
    left = call(arguments(tmp_path), at=r"\.answers\.jsonl\.\d+$", sent=signal.SIGTERM)
    assert (left.returncode, left.stderr) == (75, "stopped on SIGTERM: the same command continues where this one stopped.\n")
    assert not list(tmp_path.glob("runs/cells/*/failed.json"))
    done = call(arguments(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "step" not in done.stdout
    assert numbers(tmp_path / "runs" / "cells") == whole


def test_the_first_signal_ends_and_further_ones_do_not_disturb_the_cleaning() -> None:
    with listening():
        with pytest.raises(ToBeContinued, match="stopped on SIGUSR2: the same command"):
            os.kill(os.getpid(), signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked() == "SIGTERM"


def test_what_is_being_finished_looks_for_itself() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with listening():
        with finishing():
            os.kill(os.getpid(), signal.SIGTERM)
            assert asked() == "SIGTERM"
        with finishing():
            assert asked() is None
    assert signal.getsignal(signal.SIGTERM) is before
