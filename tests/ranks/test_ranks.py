"""Fine-tuning by several ranks: the numbers of a single process, whatever kills it, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import limit_lab
from tests.commands import call, groups, numbers
from tests.model.networks import llama, saved
from tests.processes import alive, kill

ONE = ["+experiment=tiny", "mixture=lima_tiny", "study.mixtures=[]", "study.baseline=null", "finetune.precision=fp32"]
ONE += ["answers.limit=2", "gauntlet.prompting=[raw]", "gauntlet.raw_only=true", "finetune.held_out=2"]
TWO = ["hardware.devices=2", "hardware.micro_batch=2doc"]


def arguments(folder: Path, *more: str) -> list[str]:
    return [*groups(folder / "groups"), *ONE, f"runs={folder / 'runs'}", *more]


def made(folder: Path, *more: str) -> Path:
    """The folder of the cell that the command makes."""
    done = call(arguments(folder, *more))
    assert done.returncode == 0, done.stderr + done.stdout
    (cell,) = (folder / "runs" / "cells").glob("lima_tiny-*")
    return cell


def metrics(cell: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (cell / "finetune" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("alone"), "hardware.micro_batch=4doc")


@pytest.fixture(scope="module")
def zero(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("zero"), *TWO, "hardware.strategy=zero3")


def require_equal(cell: Path, alone: Path) -> None:
    """The same losses to 1e-6, and the same export but for rounding."""
    for row, wanted in zip(metrics(cell), metrics(alone), strict=True):
        assert row["loss"] == pytest.approx(wanted["loss"], rel=1e-6)
        assert row["grad_norm"] == pytest.approx(wanted["grad_norm"], rel=1e-5)
        assert [row[key] for key in ("step", "targets", "tokens", "documents")] == [
            wanted[key] for key in ("step", "targets", "tokens", "documents")
        ]
    found, wanted_weights = (load_file(one / "export" / "model" / "model.safetensors") for one in (cell, alone))
    assert found.keys() == wanted_weights.keys()
    for name, value in wanted_weights.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=2e-5, msg=name)
    held_out = [(one / "finetune" / "held_out.jsonl").read_text(encoding="utf-8").splitlines() for one in (cell, alone)]
    for line, other in zip(*held_out, strict=True):
        assert json.loads(line)["loss"] == pytest.approx(json.loads(other)["loss"], rel=1e-5)


def test_zero_3_on_two_ranks_is_a_single_process(zero: Path, alone: Path) -> None:
    require_equal(zero, alone)
    assert not (zero / "finetune" / "checkpoint.ckpt").exists()


def test_zero_3_on_one_device_with_its_states_in_host_memory_is_a_single_process(alone: Path, tmp_path: Path) -> None:
    given = ["hardware.micro_batch=4doc", "hardware.strategy=zero3", "hardware.offload=optimizer"]
    require_equal(made(tmp_path, *given), alone)


def test_ddp_on_two_ranks_is_a_single_process(alone: Path, tmp_path: Path) -> None:
    require_equal(made(tmp_path, *TWO, "hardware.strategy=ddp"), alone)


@pytest.mark.parametrize("adapters", [[], ["finetune.lora.rank=4", "finetune.learning_rate=1e-2"]])
def test_a_model_of_transformers_under_zero_3_is_a_single_process(adapters: list[str], tmp_path: Path) -> None:
    saved(llama(2048, tied=True), tmp_path / "base")
    other = ["model=hf", f"model.path={tmp_path / 'base'}", "finetune.duration=3step", *adapters]
    single = made(tmp_path / "alone", *other, "hardware.micro_batch=4doc")
    require_equal(made(tmp_path / "zero", *other, *TWO, "hardware.strategy=zero3"), single)


def test_lion_under_zero_3_is_a_single_process(tmp_path: Path) -> None:
    lion = ["finetune.optimizer=lionw", "finetune.learning_rate=1e-4"]
    single = made(tmp_path / "alone", *lion, "hardware.micro_batch=4doc")
    require_equal(made(tmp_path / "zero", *lion, *TWO, "hardware.strategy=zero3"), single)


def test_out_of_space_killed_in_a_checkpoint_and_again_it_ends_with_the_numbers_of_one_run(zero: Path, tmp_path: Path) -> None:
    given = arguments(tmp_path, *TWO, "hardware.strategy=zero3")
    full = call(given, file_limit=1_000_000)
    assert full.returncode == 1
    assert full.stderr.count("could not be written, as when a disk is full: free some space") == 1, full.stderr
    assert not alive(str(tmp_path))
    (cell,) = (tmp_path / "runs" / "cells").glob("lima_tiny-*")
    assert not list((cell / "finetune").glob("checkpoint.*"))
    # the first rank, while the second checkpoint is written
    struck = call(given, at=r"checkpoint\.partial/latest$", count=2)
    assert struck.returncode == 1
    assert "rank 0 of the fine-tuning was ended by SIGKILL" in struck.stderr
    assert (cell / "finetune" / "checkpoint.ckpt" / "complete.json").is_file()
    # the process that waits for the ranks, as soon as they take a step
    taken = len(metrics(cell))
    with started(given) as launcher:
        while len(metrics(cell)) in (taken, 0) and launcher.poll() is None:
            time.sleep(0.05)
        launcher.send_signal(signal.SIGKILL)
    done = call(given)
    assert done.returncode == 0, done.stderr + done.stdout
    assert metrics(cell) == metrics(zero)
    files = [one / "export" / "model" / "model.safetensors" for one in (cell, zero)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert numbers(cell / "answers") == numbers(zero / "answers")
    assert not alive(str(tmp_path))


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(limit_lab.__file__).resolve().parent.parent)}


def started(given: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "limit_lab", *given]
    return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def on_two_nodes(given: list[str], folder: Path, kill_at: str | None = None) -> tuple[str, int, int]:
    """Start the command and, as it says, the agent of a second node; returns what the first said and both exit codes."""
    said, second = "", None
    with started(given) as first:
        assert first.stdout is not None
        for line in first.stdout:
            said += line
            if found := re.search(r"start this on node 1, unless it runs there: (.*)", line):
                second = subprocess.Popen(shlex.split(found[1]), env=environment(), stderr=subprocess.DEVNULL)
            if kill_at is not None and kill_at in line and second is not None:
                second.kill()
                assert kill("--node-rank=1", str(folder)) == 1  # torchrun
    assert second is not None, said
    return said, first.wait(), second.wait()


def test_two_nodes_train_together_and_end_when_one_dies(zero: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    nodes = ["hardware.nodes=2", f"hardware.head=127.0.0.1:{port}", "hardware.micro_batch=2doc", "hardware.strategy=zero3"]
    given = arguments(tmp_path, *nodes, "finetune.log_every_steps=1", "gauntlet.tasks.2.rows=64")
    said, status, _ = on_two_nodes(given, tmp_path, kill_at="step      3/6")
    assert status == 1
    assert "rank 0 lost another rank, on this machine or on another" in said
    assert not alive(str(tmp_path))
    said, *statuses = on_two_nodes(given, tmp_path)
    assert statuses == [0, 0], said
    (cell,) = (tmp_path / "runs" / "cells").glob("lima_tiny-*")
    assert metrics(cell) == metrics(zero)
    assert "step      1/6" not in said
    # fine-tuning, fine-tuning again, gauntlet; after the first no last one, for it was killed
    assert json.loads((tmp_path / "runs" / "nodes.json").read_text(encoding="utf-8")) == {"number": 5, "parts": None}


def test_what_two_ranks_began_goes_on_with_one(alone: Path, tmp_path: Path) -> None:
    zero3 = ["hardware.strategy=zero3", "hardware.sub_group_elements=200_000"]
    assert call(arguments(tmp_path, *TWO, *zero3), at=r"checkpoint\.partial/latest$", count=2).returncode == 1
    require_equal(made(tmp_path, "hardware.devices=1", "hardware.micro_batch=3doc", *zero3), alone)


def test_a_rank_that_fails_ends_all_with_its_sentence(tmp_path: Path) -> None:
    failed = call(arguments(tmp_path, *TWO, "hardware.strategy=ddp", "finetune.learning_rate=1e30", "finetune.clip_norm=1e30"))
    assert failed.returncode == 1
    said = [line for line in failed.stdout.splitlines() + failed.stderr.splitlines() if "finetune.learning_rate" in line]
    assert len(said) == 1
    assert "is nan at step" in said[0] or "is inf at step" in said[0]
    assert not alive(str(tmp_path))
