"""What an export takes of host memory, measured on models of 1 and 2 GiB and carried on to 30B.

    python benchmarks/export_memory.py

Each export is a process of its own. *streamed*: weights that exist only while they are read, as those gathered from
several ranks do, written as bf16 in one file; the peak above what the process held before is what the export itself takes.
*whole*: `limit_lab.model.export.export` of an MPT in memory, verified by reloading; what the model itself takes is in the
baseline. Peaks are of anonymous memory, sampled every 2 ms; pages of files, which the system drops when it needs room, are told
apart. The line through both *streamed* sizes is over the largest weight, since nothing else is held. The last results are
kept in benchmarks/results/export_memory.json, with the machine and its load; no test asserts one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limit_lab import provenance
from limit_lab.microworld.checkpoint import SHIPPED
from limit_lab.model.export import export
from limit_lab.model.mpt import MPT
from limit_lab.model.mpt_config import MPTConfig
from limit_lab.model.shards import write

RESULTS = Path(__file__).resolve().parent / "results" / "export_memory.json"
GIB, EVERY_SECONDS = 2**30, 0.002
#: Shapes whose float32 weights take about 1 and 2 GiB, with the vocabulary of the published models.
SHAPES = {
    "1 GiB": MPTConfig(d_model=1536, n_layers=7, n_heads=16, vocab_size=50432),
    "2 GiB": MPTConfig(d_model=2048, n_layers=9, n_heads=16, vocab_size=50432),
}
LARGE = MPTConfig(d_model=7168, n_layers=48, n_heads=64, vocab_size=50432, max_seq_len=8192)


def counted(config: MPTConfig) -> tuple[int, int]:
    """Parameters of all weights and of the largest."""
    sizes = [torch.Size(shape).numel() for _, shape in config.tensors()]
    return sum(sizes), max(sizes)


@dataclass
class Streamed:
    """Random weights that nobody holds."""

    config: MPTConfig
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return dict(self.config.tensors())

    def read(self, name: str) -> Tensor:
        return torch.randn(self.shapes()[name], generator=self.generator)


def memory() -> dict[str, int]:
    """KiB of anonymous and file-backed memory of this process."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssFile"))}


def peak(work: Callable[[], object]) -> dict[str, float]:
    """GiB above the baseline while ``work`` runs, and its seconds."""
    before, most, over = memory(), memory(), threading.Event()

    def watch() -> None:
        while not over.wait(EVERY_SECONDS):
            for kind, value in memory().items():
                most[kind] = max(most[kind], value)

    watching = threading.Thread(target=watch)
    watching.start()
    start = time.perf_counter()
    try:
        work()
    finally:
        over.set()
        watching.join()
    seconds = time.perf_counter() - start
    above = {kind: round((most[kind] - before[kind]) / 2**20, 3) for kind in before}
    return {"anonymous_gib": above["RssAnon"], "file_gib": above["RssFile"], "seconds": round(seconds, 1)}


def once(kind: str, size: str, folder: Path) -> dict[str, float]:
    """One measurement, in a process that does nothing else."""
    config = SHAPES[size]
    if kind == "streamed":
        write(Streamed(MPTConfig(d_model=64, n_layers=1, n_heads=2, vocab_size=64)), folder, torch.bfloat16)  # what loads late
        return peak(lambda: write(Streamed(config), folder, torch.bfloat16))
    model = MPT(config).eval()
    model.initialise(0)
    return peak(lambda: export(model, SHIPPED, folder / "model", beside={}, dtype=torch.bfloat16))


def measure() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for kind in ("streamed", "whole"):
        for size, config in SHAPES.items():
            every, largest = counted(config)
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, __file__, kind, size, folder]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
            sizes = {"float32_gib": round(4 * every / GIB, 3), "largest_gib": round(4 * largest / GIB, 3)}
            found[f"{kind} {size}"] = {**sizes, **json.loads(done.stdout)}
    return found


def main() -> None:
    if len(sys.argv) == 4:
        sys.stdout.write(json.dumps(once(sys.argv[1], sys.argv[2], Path(sys.argv[3]))))
        return
    found = measure()
    one, two = (found[f"streamed {size}"] for size in SHAPES)
    slope = (two["anonymous_gib"] - one["anonymous_gib"]) / (two["largest_gib"] - one["largest_gib"])
    every, largest = counted(LARGE)
    reached = two["anonymous_gib"] + slope * (4 * largest / GIB - two["largest_gib"])
    carried = {
        "float32_gib": round(4 * every / GIB, 1),
        "largest_gib": round(4 * largest / GIB, 3),
        "streamed_gib": round(reached, 2),
    }
    result = {**provenance.collect(), "load_average": round(os.getloadavg()[0], 2), "measured": found, "30B": carried}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"{'':<16}{'float32':>10}{'largest':>10}{'peak above':>12}{'and files':>11}{'time':>9}\n")
    for name, own in found.items():
        sizes = f"{own['float32_gib']:>6.2f} GiB{own['largest_gib']:>6.2f} GiB"
        sys.stdout.write(
            f"{name:<16}{sizes}{own['anonymous_gib']:>8.2f} GiB{own['file_gib']:>7.2f} GiB{own['seconds']:>7.1f} s\n"
        )
    sys.stdout.write(
        f"a 30B of {carried['float32_gib']} GiB in float32, its largest weight {carried['largest_gib']:.2f} GiB, would take "
        f"{carried['streamed_gib']:.2f} GiB; {RESULTS}\n"
    )


if __name__ == "__main__":
    main()
