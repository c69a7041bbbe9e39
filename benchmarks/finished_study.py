"""What a call costs when nothing is left to compute: the commands a user repeats, against any Hydra program.

    python benchmarks/finished_study.py [RUNS]

RUNS holds a finished +experiment=micro_limit, or gets one first, untimed (minutes); without it the study is made in a
temporary folder. The peer is ``import hydra, omegaconf``, which every Hydra program pays before its first line. Each command
runs as a process of its own; all of them take turns, five rounds after one that warms the caches; medians of wall and
processor time count, the second because a busy machine moves the first. The last
results are kept in benchmarks/results/finished_study.json, with the machine and its load; no test asserts a time.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from limit_lab import provenance

ROUNDS = 5
PEER = "import hydra, omegaconf"
AGAIN = "the finished study again"
RESULTS = Path(__file__).resolve().parent / "results" / "finished_study.json"


def commands(runs: Path) -> dict[str, list[str]]:
    """Arguments of ``python`` for everything that is timed, by name."""
    study = ["-m", "limit_lab", "+experiment=micro_limit", f"runs={runs}"]
    return {
        "python -c pass": ["-c", "pass"],
        PEER: ["-c", PEER],
        "--help": ["-m", "limit_lab", "--help"],
        "do=plan": [*study, "do=plan"],
        "do=status": [*study, "do=status"],
        "do=diff": ["-m", "limit_lab", f"runs={runs}", "do=diff", "diff.left=lima", "diff.right=instruct"],
        AGAIN: study,
    }


def seconds(arguments: list[str]) -> tuple[float, float]:
    """Wall and processor time of one process. Raises: SystemExit with what it said when it fails."""
    before, start = os.times(), time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - start, os.times()
    if done.returncode:
        raise SystemExit(f"python {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()}")
    busy = after.children_user + after.children_system - before.children_user - before.children_system
    return round(wall, 3), round(busy, 3)


def measure(runs: Path) -> dict[str, list[tuple[float, float]]]:
    """Every round's times by command; the study is made first, and one round warms the caches."""
    timed = commands(runs)
    for arguments in (timed[AGAIN], *timed.values()):
        seconds(arguments)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in timed}
    for _ in range(ROUNDS):
        for name, arguments in timed.items():
            found[name].append(seconds(arguments))
    return found


def medians(found: Mapping[str, Sequence[tuple[float, float]]], which: int) -> dict[str, dict[str, float]]:
    """Median of the wall (0) or processor (1) time by command, and how many times the peer's it is."""
    middle = {name: statistics.median(times[which] for times in rounds) for name, rounds in found.items()}
    return {name: {"seconds": own, "times_peer": round(own / middle[PEER], 2)} for name, own in middle.items()}


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        found = measure(Path(sys.argv[1] if len(sys.argv) > 1 else temporary))
    wall, processor = medians(found, 0), medians(found, 1)
    load = round(os.getloadavg()[0], 2)
    result = {**provenance.collect(), "load_average": load, "peer": PEER, "wall": wall, "processor": processor, "rounds": found}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"{'':<26}{'wall':>10}{'x peer':>9}{'processor':>12}{'x peer':>9}\n")
    for name in found:
        one, other = wall[name], processor[name]
        times = f"{one['seconds']:>8.2f} s{one['times_peer']:>9.2f}{other['seconds']:>10.2f} s{other['times_peer']:>9.2f}"
        sys.stdout.write(f"{name:<26}{times}\n")
    sys.stdout.write(f"load average {load} on {os.cpu_count()} cores; {RESULTS}\n")


if __name__ == "__main__":
    main()
