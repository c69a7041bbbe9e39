"""ZeRO on one GPU at the sizes of the paper: what it costs and saves, what loading and export hold, the plan, a kill.

    python benchmarks/gpu_scale.py compare FOLDER      ZeRO-3 against none: speed, memory, losses; a 1B, then a 7B
    python benchmarks/gpu_scale.py offload FOLDER      ZeRO-2 and 3 of a 1B with the optimizer's states in host memory or not
    python benchmarks/gpu_scale.py sub_groups FOLDER   a 7B updated 100, 500 and 2,000 million weights at a time
    python benchmarks/gpu_scale.py loading FOLDER      a 7B from its files: in pieces, and whole
    python benchmarks/gpu_scale.py export FOLDER       a 7B to bfloat16 files: seconds, and the peak of host memory
    python benchmarks/gpu_scale.py plan FOLDER         planned against measured peaks, by documents at once and recomputation
    python benchmarks/gpu_scale.py resume FOLDER       a 1B killed between two checkpoints: equal losses, bit by bit, or not

Each part is one call of at most ten minutes on an H200 (24 GiB of disk, 64 for resume); FOLDER keeps the shapes' weights from
one call to the next. They are random, written once as bfloat16 safetensors; documents are random tokens of full length, 2,048,
as the plan assumes. Every measurement is a process of its own, started by torchrun where a strategy needs ranks, and runs what
a cell runs: `finetune.loading`, `finetune.train`, `finetune.gathering`. Peaks on the device are the allocator's from the first
step to the last; host memory is what the process held above its baseline, pages of files apart. Without ZeRO the weights are
float32 under autocast, with it bfloat16 with float32 masters, so losses agree to about 1e-3. What does not fit is said, not
hidden. The last results are kept in benchmarks/results/gpu_scale.json; with --device cpu tiny shapes try the logic, and
nothing is kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from export_memory import peak
from torch import Tensor

from limit_lab import memory, provenance, store
from limit_lab.config import Hardware, Model
from limit_lab.finetune import gathering, loading
from limit_lab.finetune.journal import read_metrics
from limit_lab.finetune.train import begin, train
from limit_lab.model import shards
from limit_lab.model.causal import CausalLM
from limit_lab.model.mpt import MPT
from limit_lab.model.mpt_config import MPTConfig
from limit_lab.prompt import Document
from limit_lab.recipe import Finetune
from limit_lab.shapes import shape_of

RESULTS = Path(__file__).resolve().parent / "results" / "gpu_scale.json"
GIB = 2**30
SHAPES = {
    "mpt_1b": MPTConfig(d_model=2048, n_layers=24, n_heads=16, vocab_size=50_432, max_seq_len=2048),
    "mpt_7b": MPTConfig(d_model=4096, n_layers=32, n_heads=32, vocab_size=50_432, max_seq_len=2048),
    "mpt_tiny": MPTConfig(d_model=64, n_layers=2, n_heads=4, vocab_size=512, max_seq_len=64),
}
PARTS = ("compare", "offload", "sub_groups", "loading", "export", "plan", "resume")
#: Where the run of `resume` is killed, and how often it keeps a checkpoint.
KILLED_AFTER, KEPT_EVERY = 5, 2


@dataclass(kw_only=True)
class Case:
    """One measurement; ``hardware`` holds what differs from a single device, 2 documents at once, with recomputation."""

    model: str
    folder: str
    work: str
    device: str
    steps: int
    hardware: dict[str, Any] = field(default_factory=dict)
    checkpoint_every_steps: int = 1_000_000
    export: bool = False

    @property
    def base(self) -> Path:
        return Path(self.folder) / self.model

    @property
    def state(self) -> Path:
        return Path(self.work) / "state"

    def placed(self) -> Hardware:
        accelerator = "cpu" if self.device == "cpu" else "gpu"
        return Hardware(
            **{"name": "benchmark", "accelerator": accelerator, "micro_batch": "2doc", "recompute": True, **self.hardware}
        )

    def recipe(self) -> Finetune:
        return Finetune(
            name="benchmark",
            duration=f"{self.steps}step",
            batch="8doc",
            max_seq_tokens=SHAPES[self.model].max_seq_len,
            warmup="0.05",
            held_out=0,
            checkpoint_every_steps=self.checkpoint_every_steps,
        )


@dataclass
class Random:
    """Weights of a shape that nobody holds: normal with deviation 0.02, norms 1."""

    config: MPTConfig
    generator: torch.Generator

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return dict(self.config.tensors())

    def read(self, name: str) -> Tensor:
        shape, device = self.shapes()[name], self.generator.device
        if len(shape) == 1:
            return torch.ones(shape, device=device)
        return 0.02 * torch.randn(shape, generator=self.generator, device=device)


def write_base(name: str, folder: Path, device: str) -> None:
    """The shape's folder, if it is not there yet."""
    place = folder / name
    if (place / "config.json").is_file():
        return
    place.mkdir(parents=True, exist_ok=True)
    shards.write(Random(SHAPES[name], torch.Generator(device).manual_seed(0)), place, torch.bfloat16)
    with torch.device("meta"):
        MPT(SHAPES[name]).write_config(place, torch.bfloat16)


def documents(config: MPTConfig, count: int) -> list[Document]:
    drawn = random.Random(0)
    length = config.max_seq_len
    return [
        Document(ids=drawn.choices(range(config.vocab_size), k=length), prompt_tokens=length // 4, source="random", row=row)
        for row in range(count)
    ]


def measure(case: Case, found: dict[str, Any]) -> None:
    """Put into ``found`` what this process, alone or as the only rank, measures of one case."""
    hardware, recipe = case.placed(), case.recipe()
    held: list[CausalLM] = []
    found["loading_host"] = peak(lambda: held.append(loading.load(case.base, hardware, recipe)))
    model = held.pop()
    found["loaded_gib"] = allocated(case.device)
    if case.device != "cpu":
        torch.cuda.reset_peak_memory_stats()

    def hand_over(trained: CausalLM) -> None:
        if case.device != "cpu":
            found["peak_gib"] = round(torch.cuda.max_memory_allocated() / GIB, 3)
            found["reserved_gib"] = round(torch.cuda.max_memory_reserved() / GIB, 3)
        if case.export:
            found["export_host"] = peak(lambda: export(case, trained))

    rows = documents(SHAPES[case.model], 8 * case.steps)
    train(model, rows, recipe, hardware, case.state, seed=0, say=False, hand_over=hand_over)
    taken = read_metrics(case.state / "metrics.jsonl")
    kept = [row["seconds"] for row in taken[2:]] or [row["seconds"] for row in taken]  # the first two find kernels
    found["losses"] = [row["loss"] for row in taken]
    found["update_seconds"] = round(statistics.median(kept), 4)
    found["tokens_per_second"] = round(taken[-1]["tokens"] / statistics.median(kept), 1)
    found |= planned(case, found.get("peak_gib"))


def export(case: Case, trained: CausalLM) -> None:
    out = Path(case.work) / "export"
    gathering.export(trained, case.base, out, beside={}, dtype=torch.bfloat16, shard_bytes=shards.SHARD_BYTES)


def allocated(device: str) -> float | None:
    return None if device == "cpu" else round(torch.cuda.memory_allocated() / GIB, 3)


def planned(case: Case, reached: float | None) -> dict[str, Any]:
    """What `limit_lab.memory` plans for the device, without CUDA's context, which no allocator counts."""
    shape = shape_of(Model(name=case.model, path=str(case.base), d_model=0))
    held = memory.peak(shape, case.recipe(), case.placed())
    terms = {name: round(gib, 3) for name, gib in held.terms.items() if name != "context and slack"}
    total = sum(terms.values())
    against = {} if reached is None else {"planned_over_measured": round(total / reached, 4)}
    return {"planned_gib": round(total, 3), "planned_terms": terms, **against}


def rank(file: Path) -> None:
    """The process of one case: its outcome, or that the device was too small, goes beside ``file``."""
    case = Case(**store.read_json(file))
    store.write_json(file.with_name("process.json"), {"process": os.getpid()})
    found: dict[str, Any] = {}
    try:
        measure(case, found)
    except torch.OutOfMemoryError as error:
        found |= {"failed": f"out of memory: {str(error).splitlines()[0]}"} | planned(case, None)
    store.write_json(file.with_name("outcome.json"), found)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def started(case: Case) -> subprocess.Popen[str]:
    """A process for the case, by torchrun where the strategy needs ranks."""
    work = Path(case.work)
    begin(case.state, case.placed(), case.steps)
    (work / "outcome.json").unlink(missing_ok=True)
    store.write_json(work / "case.json", dataclasses.asdict(case))
    ranks = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1", "--max-restarts=0"]
    command = [
        sys.executable,
        *(ranks if case.placed().strategy != "single" else []),
        __file__,
        "case",
        str(work / "case.json"),
    ]
    environment = os.environ | ({"DS_ACCELERATOR": "cpu"} if case.device == "cpu" else {})
    with (work / "log").open("w", encoding="utf-8") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, text=True)


def outcome(case: Case, process: subprocess.Popen[str]) -> dict[str, Any]:
    """What the process leaves; of one that left nothing, its status and last line."""
    status, file = process.wait(), Path(case.work) / "outcome.json"
    if file.is_file():
        found: dict[str, Any] = store.read_json(file)
        return found
    lines = (Path(case.work) / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return {"failed": f"ended with status {status}: {' | '.join(lines[-3:])}"}


def once(case: Case) -> dict[str, Any]:
    return outcome(case, started(case))


def cases(part: str, given: argparse.Namespace, work: Path) -> Iterator[tuple[str, Case]]:
    """The measurements of a part, each by its name."""
    tiny = given.device == "cpu"

    def of(model: str, *, export: bool = False, steps: int = given.steps, **hardware: Any) -> Case:
        sizes = {"bucket_elements": 100_000, "sub_group_elements": 100_000} if tiny else {}
        shape, place = "mpt_tiny" if tiny else model, Path(tempfile.mkdtemp(dir=work))
        own = sizes | hardware
        return Case(
            model=shape,
            folder=str(given.folder),
            work=str(place),
            device=given.device,
            steps=steps,
            hardware=own,
            export=export,
        )

    if part == "compare":
        for model in ("mpt_1b",) if tiny else ("mpt_1b", "mpt_7b"):
            yield f"{model} single", of(model, strategy="single")
            yield f"{model} zero3", of(model, strategy="zero3")
    elif part == "offload":
        for strategy in ("zero3",) if tiny else ("zero2", "zero3"):
            for offload in ("none", "optimizer"):
                yield f"mpt_1b {strategy} offload={offload}", of("mpt_1b", strategy=strategy, offload=offload)
    elif part == "sub_groups":
        for elements in (20_000, 100_000) if tiny else (100_000_000, 500_000_000, 2_000_000_000):
            yield f"mpt_7b zero3 {elements:,}", of("mpt_7b", strategy="zero3", sub_group_elements=elements)
    elif part == "loading":
        for strategy in ("zero3", "single"):
            yield f"mpt_7b {strategy}", of("mpt_7b", steps=1, strategy=strategy)
    elif part == "export":
        yield "mpt_7b zero3", of("mpt_7b", steps=1, strategy="zero3", export=True)
    else:
        for documents_at_once, recompute in ((1, True),) if tiny else ((1, True), (4, True), (1, False)):
            for strategy in ("single", "zero2", "zero3"):
                name = f"mpt_1b {strategy} {documents_at_once}doc recompute={recompute}"
                own = of("mpt_1b", strategy=strategy, micro_batch=f"{documents_at_once}doc", recompute=recompute)
                yield name, own


def resumed(given: argparse.Namespace, work: Path) -> dict[str, Any]:
    """A run that is killed after a checkpoint and begun again, against the same run undisturbed."""
    model = "mpt_tiny" if given.device == "cpu" else "mpt_1b"
    write_base(model, given.folder, given.device)
    found: dict[str, Any] = {}
    rows = {}
    for name in ("whole", "killed"):
        place = work / name
        place.mkdir()
        case = Case(
            model=model,
            folder=str(given.folder),
            work=str(place),
            device=given.device,
            steps=max(given.steps, KILLED_AFTER + 2),
            hardware={"strategy": "zero3"},
            checkpoint_every_steps=KEPT_EVERY if name == "killed" else 1_000_000,
        )
        if name == "killed":
            found |= killed(case)
        ended = once(case)
        if "failed" in ended:
            return {**found, name: ended}
        rows[name] = ended["losses"]
        shutil.rmtree(place)
    differ = [step for step, (one, two) in enumerate(zip(rows["whole"], rows["killed"], strict=True), 1) if one != two]
    return {**found, "steps": len(rows["whole"]), "steps_that_differ": differ, "losses": rows}


def killed(case: Case) -> dict[str, Any]:
    """Kill the case's rank once it has taken `KILLED_AFTER` steps; what is left of it."""
    process, metrics = started(case), case.state / "metrics.jsonl"
    while process.poll() is None and (not metrics.is_file() or len(read_metrics(metrics)) < KILLED_AFTER):
        time.sleep(0.02)
    if process.poll() is not None:
        raise SystemExit(f"the run ended before it could be killed: {outcome(case, process)}")
    os.kill(int(store.read_json(Path(case.work) / "process.json")["process"]), signal.SIGKILL)
    process.wait()
    taken = len(read_metrics(metrics))
    size = sum(file.stat().st_size for file in case.state.rglob("*") if file.is_file()) / GIB
    left = begin(case.state, case.placed(), case.steps)
    return {"killed_after": taken, "continues_after": left, "checkpoint_gib": round(size, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=(*PARTS, "case"), help="case: one measurement, as this script starts it itself")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    given = parser.parse_args()
    if given.part == "case":
        rank(given.folder)
        return
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=given.folder.parent) as folder:
        work = Path(folder)
        if given.part == "resume":
            found = resumed(given, work)
            sys.stdout.write(f"resume: {json.dumps(found)}\n")
        else:
            for name, case in cases(given.part, given, work):
                write_base(case.model, given.folder, given.device)
                found[name] = once(case)
                shutil.rmtree(case.work)
                sys.stdout.write(f"{name}: {json.dumps(found[name])}\n")
                sys.stdout.flush()
                if given.device != "cpu":  # the next case may not come to its end
                    keep(given.part, found)
    if given.device != "cpu":
        keep(given.part, found)


def keep(part: str, found: Mapping[str, Any]) -> None:
    """Put a part's results in the place of its last ones."""
    RESULTS.parent.mkdir(exist_ok=True)
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    kept[part] = {**provenance.collect(), "device": torch.cuda.get_device_name(), "measured": found}
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
