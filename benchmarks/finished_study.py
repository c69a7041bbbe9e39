"""What a call costs when nothing is left to compute: wall time of the commands a user repeats, against any Hydra program.

    python benchmarks/finished_study.py [RUNS]

RUNS holds a finished +experiment=micro_limit, or gets one first, untimed (minutes); without it the study is made in a
temporary folder. The peer is ``import hydra, omegaconf``, which every Hydra program pays before its first line. Each command
runs as a process of its own; all of them take turns, five rounds after one that warms the caches; medians count. The last
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


def seconds(arguments: list[str]) -> float:
    """Wall time of one process. Raises: SystemExit with what it said when it fails."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    took = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"python {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()}")
    return took


def measure(runs: Path) -> dict[str, list[float]]:
    """Seconds of every round by command; the study is made first, and one round warms the caches."""
    timed = commands(runs)
    for arguments in (timed[AGAIN], *timed.values()):
        seconds(arguments)
    found: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(ROUNDS):
        for name, arguments in timed.items():
            found[name].append(round(seconds(arguments), 3))
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        found = measure(Path(sys.argv[1] if len(sys.argv) > 1 else temporary))
    medians = {name: statistics.median(times) for name, times in found.items()}
    ratios = {name: round(median / medians[PEER], 2) for name, median in medians.items()}
    result = {
        **provenance.collect(),
        "load_average": round(os.getloadavg()[0], 2),
        "peer": PEER,
        "median_seconds": medians,
        "ratio_to_peer": ratios,
        "seconds": found,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name, median in medians.items():
        sys.stdout.write(f"{name:<26}{median:>8.2f} s{ratios[name]:>8.2f} x\n")
    sys.stdout.write(f"{RESULTS}\n")


if __name__ == "__main__":
    main()
