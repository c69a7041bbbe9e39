"""How ranks are started on one machine and on several, and what is said when they end badly."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from limit_lab.config import Hardware
from limit_lab.errors import ConfigError
from limit_lab.fine_tuning import Places
from limit_lab.ranks import order, start

NODES = Hardware(name="test", strategy="zero3", devices=8, nodes=2)


def test_one_machine_finds_a_port_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    command = start._command(Hardware(name="test", strategy="ddp", devices=4), 4, Path("/runs/ranks.json"))
    assert "--standalone" in command
    assert "--nproc-per-node=4" in command
    assert command[-3:] == ["-m", "limit_lab.ranks", "/runs/ranks.json"]


def test_under_slurm_every_node_gets_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(start, "_require_free", lambda head: None)
    monkeypatch.setattr(socket, "gethostname", lambda: "node3")
    command = start._command(NODES, 8, Path("/runs/ranks.json"))
    assert command[:4] == ["srun", "--overlap", "--nodes=2", "--ntasks-per-node=1"]
    assert "--nnodes=2 --master-addr=node3 --master-port=29400" in command[-1]
    assert '--node-rank="$SLURM_NODEID" -m limit_lab.ranks /runs/ranks.json' in command[-1]


def test_without_slurm_the_other_nodes_are_told_their_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(
        ConfigError, match=r"hardware\.nodes=2 without Slurm needs a place to meet: add hardware\.head=HOST:PORT"
    ):
        start._command(NODES, 8, Path("/runs/ranks.json"))
    monkeypatch.setattr(start, "_require_free", lambda head: None)
    meeting = Hardware(name="test", strategy="zero3", devices=8, nodes=3, head="node0:29400")
    assert "--node-rank=0" in start._command(meeting, 8, Path("/runs/ranks.json"))
    said = capsys.readouterr().out
    assert said.count("start this on node") == 2
    assert "--master-addr=node0 --master-port=29400 --node-rank=2 -m limit_lab.ranks /runs/ranks.json" in said


def test_a_port_in_use_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        head = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match="is no address that can be listened at here"):
            start._require_free(head)
    start._require_free(head)


KILLED = """[1]:
  time      : 2026-11-23_23:22:11
  rank      : 1 (local_rank: 1)
  exitcode  : -15 (pid: 12)
[0]:
  time      : 2026-11-23_23:22:10
  rank      : 0 (local_rank: 0)
  exitcode  : -9 (pid: 11)
"""


@pytest.mark.parametrize(
    ("failures", "log", "said"),
    [
        (
            {0: (False, "rank 0 lost another rank"), 1: (True, "the loss is nan: lower it.")},
            KILLED,
            "the loss is nan: lower it.",
        ),
        ({1: (False, "rank 1 lost another rank")}, KILLED, "rank 0 of the fine-tuning was ended by SIGKILL, as the system"),
        ({1: (False, "rank 1: KeyError: 'x'")}, "", "rank 1: KeyError: 'x': "),
        ({}, "", "the ranks of the fine-tuning ended with exit status 3 and no reason: "),
    ],
)
def test_the_reason_is_the_first_that_is_known(
    tmp_path: Path, failures: dict[int, tuple[bool, str]], log: str, said: str
) -> None:
    (tmp_path / order.LOG).write_text(log)
    for rank, (known, error) in failures.items():
        order.failure(tmp_path, rank).write_text(json.dumps({"known": known, "error": error}))
    places = Places(state=tmp_path, export=tmp_path / "model", beside={}, keep=False)
    assert start._reason(places, 3).startswith(said)
