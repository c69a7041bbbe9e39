"""What runs cost: seconds of every stage by their manifests, summed by embedded world and by mixture.

    python benchmarks/cost_of_runs.py RUNS

Seconds are wall time of one process while others may have run beside it; a stage that was cut and continued tells only of the
last process. The last results are kept in benchmarks/results/cost_of_runs.json.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

from limit_lab import provenance

RESULTS = Path(__file__).resolve().parent / "results" / "cost_of_runs.json"


def seconds(cell: Path) -> float:
    """All stages of a cell; its export holds the fine-tuning."""
    manifests = [path for path in cell.rglob("manifest.json") if path.parent.name != "finetune"]
    return sum(float(json.loads(path.read_text(encoding="utf-8"))["seconds"]) for path in manifests)


def main() -> None:
    runs = Path(sys.argv[1])
    worlds: dict[str, list[float]] = {}
    mixtures: dict[str, list[float]] = {}
    for path in sorted(runs.glob("cells/*/summary.json")):
        summary = json.loads(path.read_text(encoding="utf-8"))
        recipe = summary["config"]["finetune"]["duration"] if summary["samples"] else "untouched"
        spent = seconds(path.parent)
        worlds.setdefault(f"world {summary['config']['microworld']['seed']}", []).append(spent)
        mixtures.setdefault(f"{summary['label']}, {recipe}", []).append(spent)
    bases = {path.parent.name: [seconds(path.parent)] for path in sorted(runs.glob("models/*/manifest.json"))}
    found = {
        name: {"cells": len(own), "minutes": round(sum(own) / 60, 1), "median_seconds": round(statistics.median(own), 1)}
        for name, own in {**worlds, **mixtures, **bases}.items()
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({**provenance.collect(), "cost": found}, indent=1) + "\n", encoding="utf-8")
    for name, one in found.items():
        sys.stdout.write(f"{name:<40}{one['cells']:>4}{one['minutes']:>9.1f} min{one['median_seconds']:>9.1f} s median\n")


if __name__ == "__main__":
    main()
