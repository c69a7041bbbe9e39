"""The micro grid's replicates and a small study of a pretrained model on a GPU, and one cell against this machine's CPU.

    python benchmarks/gpu_first_findings.py RUNS [--model FOLDER --data FOLDER] [--grid micro_paper] [--cells 8]

First one cell (mixture=lima of world 0) on the CPU and on the hardware asked for, which gives the ratio; then the grid; then,
where a model and data are given, +experiment=real_rows_hf. Every study continues what RUNS already holds, so a call that ran
out of time is repeated. Seconds by stage come from the manifests that the runs write. The last results are kept in
benchmarks/results/gpu_first_findings.json; with --hardware cpu the logic can be tried without a GPU, and nothing is kept.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from limit_lab import provenance

RESULTS = Path(__file__).resolve().parent / "results" / "gpu_first_findings.json"
ONE_CELL = ["mixture=lima", "study.baseline=null", "study.name=one_cell", "hardware.threads=1", "hardware.cells=1"]


def study(runs: Path, *overrides: str) -> float:
    """Wall seconds of one study. Raises: SystemExit with its exit code when it fails."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "limit_lab", *overrides, f"runs={runs}"], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    return round(time.perf_counter() - start, 1)


def stages(runs: Path) -> dict[str, dict[str, float]]:
    """Seconds of every stage of every cell below ``runs``."""
    found: dict[str, dict[str, float]] = {}
    for manifest in sorted((runs / "cells").rglob("manifest.json")):
        cell, *stage = manifest.parent.relative_to(runs / "cells").parts
        found.setdefault(cell, {})["/".join(stage)] = json.loads(manifest.read_text(encoding="utf-8"))["seconds"]
    return found


def device() -> str:
    import torch

    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else "no GPU"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--hardware", default="gpu")
    parser.add_argument("--grid", default="micro_paper")
    parser.add_argument("--cells", type=int, default=8)
    given = parser.parse_args()
    on = f"hardware={given.hardware}"
    wall: dict[str, float] = {}
    for name in ("cpu", given.hardware):
        wall[f"one cell on {name}"] = study(given.runs / f"one-{name}", *ONE_CELL, f"hardware={name}")
    one = {name: stages(given.runs / f"one-{name}") for name in ("cpu", given.hardware)}
    wall[f"+grid={given.grid}"] = study(
        given.runs / "grid", f"+grid={given.grid}", on, "hardware.threads=1", f"hardware.cells={given.cells}"
    )
    if given.model is not None and given.data is not None:
        where = [f"model.path={given.model}", f"data.dir={given.data}"]
        wall["+experiment=real_rows_hf"] = study(given.runs / "real", "+experiment=real_rows_hf", *where, on)
    totals = {name: sum(sum(cell.values()) for cell in found.values()) for name, found in one.items()}
    result: dict[str, Any] = {**provenance.collect(), "device": device(), "wall_seconds": wall, "one_cell_stages": one}
    result |= {"cpu_over_device": round(totals["cpu"] / totals[given.hardware], 2)}
    result |= {"grid_stages": stages(given.runs / "grid"), "real_stages": stages(given.runs / "real")}
    if given.hardware != "cpu":
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name, seconds in wall.items():
        sys.stdout.write(f"{seconds:>8.1f} s  {name}\n")
    sys.stdout.write(f"stages of one cell, cpu over {given.hardware}: {result['cpu_over_device']} ({result['device']})\n")


if __name__ == "__main__":
    main()
