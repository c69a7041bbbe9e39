"""How the ranks of several machines meet; ``python -m limit_lab.ranks.nodes FILE NODE`` lets a machine take part.

Under Slurm ``srun`` starts them on every node. Without it the first node, where the command runs, writes what is to be done
to a file, piece by piece, and says what to start on the others once: each takes part in every piece until the first has ended.
"""

from __future__ import annotations

import atexit
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from limit_lab import store
from limit_lab.config import Hardware
from limit_lab.errors import ConfigError

#: Where the ranks of several machines meet under Slurm, on the first of them.
PORT = 29_400

#: In the runs folder: the number of the piece of work under way, and how to take part in it; null when there are no more.
PIECE = "nodes.json"

#: The environment variable that names the process of `main`, with which its ranks end.
JOINED = "LIMIT_LAB_JOINED"

#: Pieces that this process has announced.
_announced: set[Path] = set()


def command(hardware: Hardware, processes: int, order: Path, runs: Path) -> list[str]:
    """What starts the ranks on this machine, and under Slurm on all of them; the other machines are told.

    Raises: ConfigError when there is no place to meet.
    """
    own = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--max-restarts=0"]
    entry = ["-m", "limit_lab.ranks", str(order.absolute())]
    if hardware.nodes == 1:
        return [*own, "--standalone", *entry]
    slurm = "SLURM_JOB_ID" in os.environ
    head = hardware.head or (f"{socket.gethostname()}:{PORT}" if slurm else None)
    if head is None:
        raise ConfigError(
            f"hardware.nodes={hardware.nodes} without Slurm needs a place to meet: add hardware.head=HOST:PORT with this "
            "machine's name."
        )
    require_free(head)
    host, _, port = head.rpartition(":")
    own += [f"--nnodes={hardware.nodes}", f"--master-addr={host}", f"--master-port={port}"]
    if slurm:
        line = f'exec {shlex.join(own)} --node-rank="$SLURM_NODEID" {shlex.join(entry)}'
        # beside the step that this process itself may be
        return ["srun", "--overlap", f"--nodes={hardware.nodes}", "--ntasks-per-node=1", "sh", "-c", line]
    _announce(runs.absolute() / PIECE, [own, entry], hardware.nodes)
    return [*own, "--node-rank=0", *entry]


def require_free(head: str) -> None:
    """Raises: ConfigError when something listens at this machine's ``head`` already."""
    host, _, port = head.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            raise ConfigError(
                f"hardware.head={head} is no address that can be listened at here ({error.strerror}): choose another port, or "
                "the name of the machine that this command runs on."
            ) from error


def _announce(file: Path, parts: Sequence[Sequence[str]], nodes: int) -> None:
    """Tell the other machines what to take part in, and for the first piece what to start on them."""
    _write(file, parts)
    if file in _announced:
        return
    _announced.add(file)
    atexit.register(_write, file, None)
    for node in range(1, nodes):
        line = shlex.join([sys.executable, "-m", "limit_lab.ranks.nodes", str(file), str(node)])
        print(f"  start this on node {node}, unless it runs there: {line}", flush=True)


def _write(file: Path, parts: Sequence[Sequence[str]] | None) -> None:
    store.write_json(file, {"number": _read(file)["number"] + 1, "parts": parts})


def _read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = store.read_json(file) if file.is_file() else {"number": 0, "parts": None}
    return found


def main(file: Path, node: int) -> int:
    """Take part in each piece of work as node ``node`` until there are no more; returns the exit status of the last."""
    if not file.is_file():
        raise SystemExit(f"{file} tells of no work: start the study on node 0 first, and this line with the path it prints.")
    done, status = 0, 0
    while True:
        piece = _read(file)
        if piece["number"] > done:
            if piece["parts"] is None:
                return status
            own, entry = piece["parts"]
            status = subprocess.run([*own, f"--node-rank={node}", *entry], env=_environment(), check=False).returncode
            done = piece["number"]
        time.sleep(0.2)


def _environment() -> dict[str, str]:
    return {"OMP_NUM_THREADS": "1"} | os.environ | {"PYTHONUNBUFFERED": "1", JOINED: str(os.getpid())}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
