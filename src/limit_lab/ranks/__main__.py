"""``torchrun ... -m limit_lab.ranks ORDER``: one rank of a piece of work; `limit_lab.ranks.start` starts them."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from limit_lab import evaluating, fine_tuning, store
from limit_lab.config import Study
from limit_lab.errors import LimitLabError
from limit_lab.evaluating import Evaluation
from limit_lab.fine_tuning import Places
from limit_lab.interruption import ToBeContinued
from limit_lab.ranks import nodes, order
from limit_lab.told import follow

#: What collectives say when a process that takes part has ended.
LOST = re.compile(r"[Cc]onnection (reset|closed|refused)|[Bb]roken pipe|by peer|remote process exited")


def main(file: Path) -> int:
    """Do this rank's part; returns the exit status. Why it failed is left for the launcher in one sentence."""
    study, work, launcher = order.read(file)
    rank = int(os.environ["RANK"])
    if study.hardware.accelerator == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    threading.Thread(target=follow, args=(os.getppid(),), daemon=True).start()
    if os.environ.get("GROUP_RANK") == "0":  # on the launcher's machine
        threading.Thread(target=_follow, args=(launcher,), daemon=True).start()
    elif nodes.JOINED in os.environ:
        threading.Thread(target=_follow, args=(int(os.environ[nodes.JOINED]),), daemon=True).start()
    try:
        outcome = _work(study, work, rank)
    except ToBeContinued as left:
        outcome = {"left": str(left)}
    except LimitLabError as error:
        store.write_json(order.failure(work.state, rank), {"known": True, "error": str(error)})
        return 1
    except Exception as error:
        traceback.print_exc()
        said = f"rank {rank}: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        if LOST.search(said):
            said = f"rank {rank} lost another rank, on this machine or on another"
        store.write_json(order.failure(work.state, rank), {"known": False, "error": said})
        return 1
    if rank == 0:
        store.write_json(work.state / order.OUTCOME, outcome)
    return 0


def _work(study: Study, work: Places | Evaluation, rank: int) -> dict[str, Any]:
    import torch

    try:
        return _trained(study, work, rank) if isinstance(work, Places) else _asked(study, work, rank)
    finally:
        if torch.distributed.is_initialized() and sys.exc_info()[0] is None:
            torch.distributed.destroy_process_group()


def _trained(study: Study, places: Places, rank: int) -> dict[str, Any]:
    from limit_lab.mixture.mix import mix
    from limit_lab.model.bases import tokenizer_of

    mixed = mix(study, tokenizer_of(study))
    watch = fine_tuning.watched(study, mixed, say=False)
    return fine_tuning.here(study, mixed, places, watch, _told if rank == 0 else _untold, say=rank == 0)


def _asked(study: Study, evaluation: Evaluation, rank: int) -> dict[str, Any]:
    from torch import distributed

    from limit_lab.model.team import PATIENCE, Team

    distributed.init_process_group("gloo", timeout=PATIENCE)  # results are gathered as objects, in host memory
    team = Team(rank=rank, size=distributed.get_world_size())
    return evaluating.here(study, evaluation, team, _told if rank == 0 else _untold)


def _told(step: int, steps: int) -> None:
    print(f"{order.STEP}{step} {steps}", flush=True)


def _untold(step: int, steps: int) -> None:
    """The first rank tells."""


def _follow(launcher: int) -> None:
    """End this process when the one that had it started has ended, for it may have been killed."""
    while Path(f"/proc/{launcher}").exists():
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    status = main(Path(sys.argv[1]))
    sys.stdout.flush()
    os._exit(status)  # threads of a failed collective would keep the process waiting for its peers
