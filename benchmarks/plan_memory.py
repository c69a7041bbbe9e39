"""Planned against measured memory of real training steps on this machine's CPU.

    python benchmarks/plan_memory.py [--cases adamw lionw bf16 lora activations]

Every case runs in a process of its own: a tiny fine-tuning loads what is loaded late, then a random MPT takes steps through
`limit_lab.finetune.train`. Resident memory above what the process held before the model was built is read after every
optimizer step: what stays (the states), and from the second step on the most since the step before (the peak).
The states are at least 2 GiB in all but the last case, which holds a small model and many tokens and asks for the
activations. Every case runs twice: as it is, and with MALLOC_MMAP_THRESHOLD_ set so low that freed tensors go back to the
system at once ("returned"). What the first holds more was freed, and is kept by the C library, whose blocks below 32 MiB
come from a heap; the weights of a large model are above that. The last results are kept in benchmarks/results/plan_memory.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limit_lab import provenance

RESULTS = Path(__file__).resolve().parent / "results" / "plan_memory.json"
STEPS, VOCABULARY = 3, 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model, a recipe and a micro-batch."""

    d_model: int
    n_layers: int
    tokens: int  # of a document
    documents: int  # of a micro-batch; two of them make a step
    optimizer: str = "adamw"
    precision: str = "fp32"
    rank: int = 0


CASES = {
    "adamw": Case(d_model=2048, n_layers=3, tokens=16, documents=1),
    "lionw": Case(d_model=2048, n_layers=4, tokens=16, documents=1, optimizer="lionw"),
    "bf16": Case(d_model=2048, n_layers=3, tokens=16, documents=1, precision="bf16"),
    "lora": Case(d_model=2048, n_layers=22, tokens=16, documents=1, precision="bf16", rank=16),
    "activations": Case(d_model=512, n_layers=12, tokens=512, documents=4),
}


class Resident:
    """Resident GiB of this process, and the most since the last look (Linux)."""

    @staticmethod
    def _read(field: str) -> float:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(field):
                return int(line.split()[1]) / 2**20
        raise SystemExit(f"/proc/self/status states no {field}: this benchmark needs Linux.")

    def now(self) -> float:
        return self._read("VmRSS")

    def most(self) -> float:
        found = self._read("VmHWM")
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the most begins again at what is held now
        return found


def hardware(case: Case) -> Any:
    from limit_lab.config import Hardware

    return Hardware(name="cpu", micro_batch=f"{case.documents}doc")


def recipe(case: Case) -> Any:
    from limit_lab.config import Finetune
    from limit_lab.recipe import Lora

    return Finetune(
        name="measured",
        duration=f"{STEPS}step",
        batch=f"{2 * case.documents}doc",
        max_seq_tokens=case.tokens,
        optimizer=case.optimizer,
        precision=case.precision,
        lora=Lora(rank=case.rank),
        warmup="0",
        held_out=0,
    )


def train(case: Case, folder: Path) -> None:
    """Steps over documents of random tokens, all of full length and all but the first of them targets."""
    import torch

    from limit_lab.finetune.train import train as run
    from limit_lab.model.mpt import MPT, MPTConfig
    from limit_lab.prompt import Document

    sizes = {"d_model": case.d_model, "n_layers": case.n_layers, "n_heads": case.d_model // 64}
    model = MPT(MPTConfig(**sizes, vocab_size=VOCABULARY, max_seq_len=case.tokens))
    model.initialise(0)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(VOCABULARY, (2 * case.documents, case.tokens), generator=generator).tolist()
    mixed = [Document(source="drawn", row=row, ids=ids, prompt_tokens=1) for row, ids in enumerate(drawn)]
    run(model, mixed, recipe(case), hardware(case), folder, seed=0, say=False)


def planned(case: Case) -> Any:
    from limit_lab.config import Model
    from limit_lab.memory import peak
    from limit_lab.shapes import shape_of

    sizes = {"d_model": case.d_model, "n_layers": case.n_layers, "n_heads": case.d_model // 64}
    shape = shape_of(Model(name="measured", vocab_size=VOCABULARY, **sizes))
    return peak(shape, recipe(case), hardware(case))


def measure(case: Case) -> dict[str, Any]:
    """Planned and measured GiB of one case, in this process."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    memory, states, peaks = Resident(), [], []
    with tempfile.TemporaryDirectory() as folder:
        train(
            Case(d_model=64, n_layers=1, tokens=16, documents=1, rank=case.rank, precision=case.precision), Path(folder) / "a"
        )
        base = memory.now()

        def after(*_: Any) -> None:
            states.append(memory.now() - base)
            peaks.append(memory.most() - base)

        hook = register_optimizer_step_post_hook(after)
        train(case, Path(folder) / "b")
        hook.remove()
    plan = planned(case)
    found: dict[str, Any] = {"baseline_gib": base, "moment": plan.moment, "terms_gib": dict(plan.terms)}
    # what the first step's peak holds is what building the model needed
    for name, expected, own in (("states", plan.states, states[-1]), ("peak", plan.total, max(peaks[1:]))):
        found[name] = {"planned_gib": expected, "measured_gib": own, "ratio": own / expected}
    return found


def alone(name: str, *, returned: bool) -> dict[str, Any]:
    """One case in a process of its own. Raises: SystemExit with its exit code when it fails."""
    command = [sys.executable, __file__, "--measure", name]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **({"MALLOC_MMAP_THRESHOLD_": str(2**16)} if returned else {})}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(done.returncode)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--measure", choices=list(CASES), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        sys.stdout.write(json.dumps(measure(CASES[given.measure])) + "\n")
        return
    sys.stdout.write(f"{'case':<12} {'':<9} {'':<6} {'planned':>8} {'measured':>9} {'ratio':>6}  (GiB above the baseline)\n")
    for name in given.cases:
        found = {"as it is": alone(name, returned=False), "returned": alone(name, returned=True)}
        for how, measured in found.items():
            for part in ("states", "peak"):
                one = measured[part]
                numbers = f"{one['planned_gib']:>8.3f} {one['measured_gib']:>9.3f} {one['ratio']:>6.3f}"
                sys.stdout.write(f"{name:<12} {how:<9} {part:<6} {numbers}\n")
        sys.stdout.flush()
        keep(name, found)


def keep(name: str, found: dict[str, Any]) -> None:
    """Put one case's last result beside those of the others."""
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    cases = kept.get("cases", {}) | {name: {**provenance.collect(), **found}}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"cases": cases}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
