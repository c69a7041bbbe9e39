"""Starts the ranks of a fine-tuning or an evaluation with torchrun and waits: one fails, all end; this process ends, all end.

On one machine torchrun finds a free port; how several meet is told by `ranks.nodes`. The first rank is on the machine that
this runs on.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from limit_lab import store
from limit_lab.config import Hardware, Study
from limit_lab.errors import LimitLabError
from limit_lab.evaluating import Evaluation
from limit_lab.fine_tuning import Places
from limit_lab.interruption import LEAVE, ToBeContinued, asked, finishing
from limit_lab.ranks import nodes, order

if TYPE_CHECKING:
    from limit_lab.mixture.mix import Mixed

#: Seconds that ranks get to end by themselves before they are killed.
GRACE = 15


def run(study: Study, mixed: Mixed, places: Places, progress: Callable[[int, int], None]) -> dict[str, Any]:
    """Fine-tune and export with one process a device; returns what `finetune.train` tells.

    Raises: LimitLabError with the sentence of the rank that failed first; ToBeContinued when a signal asked for the end and
    the ranks have written their checkpoint.
    """
    from limit_lab.finetune.train import begin, lengths

    _clear(places.state)
    begin(places.state, study.hardware, lengths(study.finetune, mixed.documents).stop)
    with finishing():
        return _made(study, places, study.hardware.devices, progress)


def evaluate(study: Study, evaluation: Evaluation, processes: int, progress: Callable[[int, int], None]) -> dict[str, Any]:
    """Ask the model with ``processes`` on each node; returns what the first of them does.

    Raises: LimitLabError with the sentence of the rank that failed first.
    """
    _clear(evaluation.state)
    return _made(study, evaluation, processes, progress)


def _clear(state: Path) -> None:
    """Remove what ranks left before, and those that still run."""
    state.mkdir(parents=True, exist_ok=True)
    _end_former(state)
    for old in (state / order.OUTCOME, state / LEAVE, *state.glob("rank-*.failed.json")):
        old.unlink(missing_ok=True)


def _made(study: Study, work: Places | Evaluation, processes: int, progress: Callable[[int, int], None]) -> dict[str, Any]:
    """Have the ranks do the work; returns the outcome of the first one."""
    state = work.state
    ordered = order.write(study, work, os.getpid())
    command = nodes.command(study.hardware, processes, ordered, Path(study.runs))
    with (state / order.LOG).open("wb") as log, _started(command, study.hardware, processes, log) as process:
        store.write_json(state / order.GROUP, {"group": process.pid})
        status = _wait(process, state, progress)
    (state / order.GROUP).unlink(missing_ok=True)
    if (state / order.OUTCOME).is_file():
        outcome: dict[str, Any] = store.read_json(state / order.OUTCOME)
        if "left" in outcome:
            raise ToBeContinued(outcome["left"])
        if status == 0:
            return outcome
    raise LimitLabError(_reason(work, status))


@contextmanager
def _started(command: list[str], hardware: Hardware, processes: int, log: IO[bytes]) -> Iterator[subprocess.Popen[str]]:
    """The ranks, which end with this block, however it is left."""
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    own = {"OMP_NUM_THREADS": str(hardware.threads or threads), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, env=os.environ | own, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """torchrun passes SIGTERM on to its ranks; what outlives that is killed."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(process: subprocess.Popen[str], state: Path, progress: Callable[[int, int], None]) -> int:
    """Pass on what the ranks say until they have ended; returns torchrun's exit status."""
    assert process.stdout is not None
    reader = threading.Thread(target=_pass_on, args=(process.stdout, progress), daemon=True)
    reader.start()
    while (status := process.poll()) is None:
        if asked() is not None:
            (state / LEAVE).touch()
        time.sleep(0.2)
    reader.join()
    return status


def _pass_on(lines: IO[str], progress: Callable[[int, int], None]) -> None:
    for line in lines:
        if line.startswith(order.STEP):
            step, steps = line.removeprefix(order.STEP).split()
            progress(int(step), int(steps))
        else:
            print(line, end="", flush=True)


def _end_former(state: Path) -> None:
    """End ranks that outlived a killed launcher: they would write to the same files."""
    if not (state / order.GROUP).is_file():
        return
    group = int(store.read_json(state / order.GROUP)["group"])
    command = Path(f"/proc/{group}/cmdline")
    if command.is_file() and b"limit_lab.ranks" in command.read_bytes():
        os.killpg(group, signal.SIGKILL)
        while command.is_file() and b"limit_lab.ranks" in command.read_bytes():
            time.sleep(0.1)
    (state / order.GROUP).unlink()


def _reason(work: Places | Evaluation, status: int) -> str:
    """The sentence of the rank that failed first: what it says itself, what killed it, or what struck it unexpectedly."""
    state, log = work.state, work.state / order.LOG
    what, on = ("fine-tuning", "continues from the last checkpoint")
    if isinstance(work, Evaluation):
        what, on = ("answers" if work.prompting is None else "gauntlet", "continues")
    failures = [store.read_json(file) for file in sorted(state.glob("rank-*.failed.json"), key=_written)]
    for failure in failures:
        if failure["known"]:
            return str(failure["error"])
    killed = re.findall(r"rank +: (\d+) .*\n *exitcode +: -(\d+) ", log.read_text(errors="replace"))
    struck = [(rank, signal.Signals(int(number))) for rank, number in killed if int(number) != signal.SIGTERM]
    after = f"{log} holds what the ranks said, and the same command {on}."
    if struck:
        rank, by = struck[0]
        why = ", as the system does when memory runs out" if by == signal.SIGKILL else ""
        return f"rank {rank} of the {what} was ended by {by.name}{why}: {after}"
    if failures:
        return f"{failures[0]['error']}: {after}"
    return f"the ranks of the {what} ended with exit status {status} and no reason: {after}"


def _written(file: Path) -> int:
    return file.stat().st_mtime_ns
