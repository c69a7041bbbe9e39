"""How ranks meet on one machine and on several."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from limit_lab.config import Hardware
from limit_lab.errors import ConfigError
from limit_lab.ranks import nodes

NODES = Hardware(name="test", strategy="zero3", devices=8, nodes=2)


def test_one_machine_finds_a_port_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    command = nodes.command(Hardware(name="test", strategy="ddp", devices=4), 4, Path("/runs/ranks.json"), tmp_path)
    assert "--standalone" in command
    assert "--nproc-per-node=4" in command
    assert command[-3:] == ["-m", "limit_lab.ranks", "/runs/ranks.json"]


def test_under_slurm_every_node_gets_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(nodes, "require_free", lambda head: None)
    monkeypatch.setattr(socket, "gethostname", lambda: "node3")
    command = nodes.command(NODES, 8, Path("/runs/ranks.json"), tmp_path)
    assert command[:4] == ["srun", "--overlap", "--nodes=2", "--ntasks-per-node=1"]
    assert "--nnodes=2 --master-addr=node3 --master-port=29400" in command[-1]
    assert '--node-rank="$SLURM_NODEID" -m limit_lab.ranks /runs/ranks.json' in command[-1]


def test_without_slurm_the_other_nodes_are_told_once_what_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(
        ConfigError, match=r"hardware\.nodes=2 without Slurm needs a place to meet: add hardware\.head=HOST:PORT"
    ):
        nodes.command(NODES, 8, Path("/runs/ranks.json"), tmp_path)
    monkeypatch.setattr(nodes, "require_free", lambda head: None)
    meeting = Hardware(name="test", strategy="zero3", devices=8, nodes=3, head="node0:29400")
    ended: list[tuple[Any, ...]] = []
    monkeypatch.setattr(nodes.atexit, "register", lambda *work: ended.append(work))
    for number in (1, 2):
        assert "--node-rank=0" in nodes.command(meeting, 8, Path("/runs/ranks.json"), tmp_path)
        told = json.loads((tmp_path / nodes.PIECE).read_text())
        assert told["number"] == number
        assert "--master-addr=node0 --master-port=29400" in " ".join(told["parts"][0])
        assert told["parts"][1] == ["-m", "limit_lab.ranks", "/runs/ranks.json"]
    said = capsys.readouterr().out
    assert said.count("start this on node") == 2
    assert f"-m limit_lab.ranks.nodes {tmp_path / nodes.PIECE} 2" in said
    ((work, *given),) = ended
    work(*given)
    assert nodes.main(tmp_path / nodes.PIECE, 1) == 0


def test_a_machine_takes_part_in_each_piece_until_there_are_no_more(tmp_path: Path) -> None:
    file, made = tmp_path / nodes.PIECE, tmp_path / "made"
    write = "import sys, pathlib; file = pathlib.Path(sys.argv[3]); file.write_text(' '.join(sys.argv[1:])); sys.exit(3)"

    def announce() -> None:
        for number in (1, 2):
            nodes._write(file, [[sys.executable, "-c", write, "own"], [str(made) + str(number)]])
            while not Path(str(made) + str(number)).is_file():
                time.sleep(0.02)
        nodes._write(file, None)

    with pytest.raises(SystemExit, match="tells of no work: start the study on node 0 first"):
        nodes.main(file, 4)
    first = threading.Thread(target=announce)
    first.start()
    while not file.is_file():
        time.sleep(0.02)
    assert nodes.main(file, 4) == 3
    first.join()
    assert [Path(str(made) + str(number)).read_text() for number in (1, 2)] == [
        f"own --node-rank=4 {made}{number}" for number in (1, 2)
    ]


def test_a_port_in_use_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        head = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match="is no address that can be listened at here"):
            nodes.require_free(head)
    nodes.require_free(head)
