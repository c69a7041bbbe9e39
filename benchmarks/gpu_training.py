"""Fine-tuning on one GPU at the sizes of the paper: parity of the back ends, useful tokens a second, memory, where time goes.

    python benchmarks/gpu_training.py LENGTHS [--model mpt_7b llama_7b] [--steps 8] [--documents 48] [--micro 4] [--profile]
    python benchmarks/gpu_training.py LENGTHS --model mpt_30b --lora 16 --micro 1
    python benchmarks/gpu_training.py LENGTHS --model mpt_7b --export FOLDER    minutes from command to export
    python benchmarks/gpu_training.py LENGTHS --from-rows DATA    writes LENGTHS: [prompt, whole] tokens of real rows, no text

Random weights of the published shapes, random tokens in documents of real lengths, cut at 2,048 and packed. Full fine-tuning in
bfloat16 over float32 weights with AdamW; useful tokens are those of documents. Shares of the peak by both formulas: ours counts
6 B T + 6 V d T_target + 6 L d sum(l^2) for documents of l tokens; Mosaic's (6 N + 12 L d S) a token, with S = 2,048 and no
credit for causality. With --lora the frozen weights are bfloat16 and gradients of weights are counted by neither. --export
writes the shape as a folder, then loads it, trains it and exports it as a cell does, and adds up what LIMA 1k x 10 epochs and
60k short samples x 1 would take. All is tried with and without recomputation; what does not fit is said, not hidden. The last
results are kept in benchmarks/results/gpu_training.json; with --device cpu the logic can be tried, and nothing is kept.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limit_lab import operations, provenance
from limit_lab.config import Finetune, Hardware
from limit_lab.finetune import adapters
from limit_lab.finetune.batches import Batches
from limit_lab.finetune.journal import read_metrics
from limit_lab.finetune.module import batch_loss
from limit_lab.finetune.train import train
from limit_lab.model.attention import BACKENDS, Heads, alibi_slopes, packed
from limit_lab.model.causal import CausalLM
from limit_lab.model.export import export
from limit_lab.model.loading import load_model
from limit_lab.model.mpt import MPT, MPTConfig
from limit_lab.prompt import Document
from limit_lab.recipe import Lora
from limit_lab.shapes import Shape

RESULTS = Path(__file__).resolve().parent / "results" / "gpu_training.json"
CONTEXT = 2048
GIB = 2**30
#: Dense bfloat16 peak of an H200 (its data sheet), in TFLOP/s.
PEAK = 989.0
SHAPES = {
    "mpt_7b": {"d_model": 4096, "n_layers": 32, "n_heads": 32, "vocab_size": 50_432},
    "mpt_30b": {"d_model": 7168, "n_layers": 48, "n_heads": 64, "vocab_size": 50_432},
    "llama_7b": {"d_model": 4096, "n_layers": 32, "n_heads": 32, "vocab_size": 32_000},
    "mpt_tiny": {"d_model": 64, "n_layers": 2, "n_heads": 4, "vocab_size": 512},
    "llama_tiny": {"d_model": 64, "n_layers": 2, "n_heads": 4, "vocab_size": 512},
}


def write_lengths(place: Path, data: Path) -> None:
    """Prompt and whole length of the rows of both sources, by the MPT tokenizer."""
    from limit_lab.compose import compose
    from limit_lab.mixture.mix import mix
    from limit_lab.model.loading import load_tokenizer

    found = {}
    for source in ("lima", "instruct_v1"):
        study = compose(
            [
                "+experiment=real_rows",
                f"data.dir={data}",
                f"mixture={source}",
                f"mixture.samples.{source}=1000",
                f"finetune.max_seq_tokens={CONTEXT}",
            ]
        )
        rows = mix(study, load_tokenizer(data / "tokenizers" / "mpt")).documents
        found[source] = [[one.prompt_tokens, len(one.ids)] for one in rows]
    place.write_text(json.dumps(found) + "\n", encoding="utf-8")


def documents(lengths: list[list[int]], vocabulary: int) -> list[Document]:
    generator = random.Random(0)
    return [
        Document(ids=generator.choices(range(vocabulary), k=whole), prompt_tokens=prompt, source="real lengths", row=row)
        for row, (prompt, whole) in enumerate(lengths)
    ]


def model_of(name: str, device: str, lora: int = 0) -> CausalLM:
    """Random weights, made where they stay: float32, or bfloat16 with adapters of rank ``lora`` in float32 beside them."""
    if lora:
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        try:
            made = model_of(name, device)
        finally:
            torch.set_default_dtype(before)
        adapters.add(made, Lora(rank=lora, alpha=2 * lora), seed=0, frozen=torch.bfloat16)
        return made
    shape = SHAPES[name]
    with torch.device(device):
        if name.startswith("mpt"):
            made = MPT(MPTConfig(**shape, max_seq_len=CONTEXT))
            with torch.no_grad():
                for parameter in made.parameters():
                    if parameter.dim() > 1:
                        parameter.normal_(std=0.02)
            return made
        from transformers import LlamaConfig, LlamaForCausalLM

        from limit_lab.model.hugging_face import HuggingFaceLM
        from limit_lab.model.hugging_face_attention import NAME, register

        register()
        config = LlamaConfig(
            vocab_size=shape["vocab_size"],
            hidden_size=shape["d_model"],
            intermediate_size=11_008 if name == "llama_7b" else 4 * shape["d_model"],
            num_hidden_layers=shape["n_layers"],
            num_attention_heads=shape["n_heads"],
            max_position_embeddings=CONTEXT,
            attn_implementation=NAME,
        )
        adapted = HuggingFaceLM(LlamaForCausalLM(config))
    adapted.by_document = True
    return adapted


def parity(device: str) -> dict[str, float]:
    """Largest difference of each back end from float32 under a mask, in units of the largest output; bfloat16 on a GPU."""
    heads, lengths, dim = Heads(alibi_slopes(32).to(device), None), (700, 3, 1345), 128
    generator = torch.Generator(device).manual_seed(0)
    parts = [torch.randn(1, 32, sum(lengths), dim, generator=generator, device=device) for _ in range(3)]
    exact = packed("documents", heads, lengths, dim)(*parts, 0)
    found = {}
    rough = [part.bfloat16() for part in parts]
    for backend in BACKENDS[1:]:
        mixed = packed(backend, heads, lengths, dim)(*rough, 0).float()
        found[backend] = float((mixed - exact).abs().max() / exact.abs().max())
    return found


def attention_speed(device: str, heads: int, dim: int, lengths: tuple[int, ...]) -> dict[str, float]:
    """Milliseconds of one forward and backward pass of each back end."""
    shared = Heads(alibi_slopes(heads).to(device), None)
    parts = [
        torch.randn(1, heads, sum(lengths), dim, device=device, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)
    ]
    found = {}
    for backend in BACKENDS[1:]:
        if backend == "flex" and device == "cpu":
            continue

        def once(backend: str = backend) -> None:
            packed(backend, shared, lengths, dim)(*parts, 0).sum().backward()

        found[backend] = statistics.median(timed(once, device, 10, warm=3)) * 1000
    return found


def timed(work: Callable[[], None], device: str, repeats: int, *, warm: int = 1) -> list[float]:
    for _ in range(warm):
        work()
    found = []
    for _ in range(repeats):
        wait(device)
        start = time.perf_counter()
        work()
        wait(device)
        found.append(time.perf_counter() - start)
    return found


def wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def flops(given: dict[str, int], model: CausalLM, rows: list[Document], lora: int) -> tuple[float, float]:
    """Operations of one pass over ``rows``: ours, and Mosaic's, which counts every token in a row of 2,048."""
    every = sum(parameter.numel() for name, parameter in model.named_parameters() if "lora_" not in name)
    kept = sum(matrix.numel() for matrix in model.vocabulary())
    shape = Shape(kind="random", **given, parameters=every, body=every - kept, vocabulary=kept, linear={})
    tokens, targets = sum(len(one.ids) for one in rows), sum(one.targets for one in rows)
    squares = sum(len(one.ids) ** 2 for one in rows)
    return operations.counted(shape, tokens, targets, squares, adapters=bool(lora)), operations.mosaic(shape, tokens, CONTEXT)


def updates(model: CausalLM, batches: Batches, steps: int, device: str) -> Iterator[Callable[[], None]]:
    """Optimizer steps as `Finetuning` takes them, without Lightning's loop around them."""
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=5e-6, betas=(0.9, 0.99), weight_decay=0.0, fused=device != "cpu")

    def update(step: int) -> None:
        for part in range(batches.accumulation):
            batch = batches[step * batches.accumulation + part]
            moved = type(batch)(*(one.to(device) if isinstance(one, Tensor) else one for one in batch))
            with torch.autocast(device, torch.bfloat16):
                loss = batch_loss(model, moved, at_once=4096)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(learnt, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for step in range(steps):
        yield lambda step=step: update(step)


def training(given: argparse.Namespace, name: str, lengths: list[list[int]], *, recompute: bool) -> dict[str, Any]:
    """Useful tokens a second of full fine-tuning, peak memory and both shares of the peak."""
    shape = SHAPES[name]
    model = model_of(name, given.device, given.lora).train()
    model.run(attention="auto", recompute=recompute)
    rows = documents(lengths, shape["vocab_size"])
    recipe = Finetune(name="benchmark", batch=f"{given.documents}doc", max_seq_tokens=CONTEXT)
    batches = Batches.of(rows, recipe, steps=given.steps, micro_batch=given.micro, seed=0)
    if given.device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    seconds = [timed(one, given.device, 1, warm=0)[0] for one in updates(model, batches, given.steps, given.device)]
    seen = [batches.of_step(step) for step in range(given.steps)]
    kept = range(2, given.steps)  # the first two find kernels and make the moments
    spent = sum(seconds[step] for step in kept)
    tokens = sum(len(one.ids) for step in kept for one in seen[step])
    ours, theirs = (sum(values) for values in zip(*(flops(shape, model, seen[step], given.lora) for step in kept), strict=True))
    learnt = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    frozen = sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)
    return {
        "lora": given.lora,
        "recompute": recompute,
        "documents": given.documents,
        "documents_at_once": given.micro,
        "mean_document": round(statistics.mean(whole for _, whole in lengths)),
        "useful_tokens_per_second": round(tokens / spent, 1),
        "mfu_ours": round(ours / spent / PEAK / 1e12, 4),
        "mfu_mosaic": round(theirs / spent / PEAK / 1e12, 4),
        "peak_gib": round(torch.cuda.max_memory_allocated() / GIB, 2) if given.device != "cpu" else None,
        # float32 weights, gradients, two moments and bfloat16 copies of what is learnt; bfloat16 weights of what is frozen
        "states_gib": round((18 * learnt + 2 * frozen) / GIB, 2),
        "update_seconds": [round(one, 3) for one in seconds],
    }


def to_export(given: argparse.Namespace, name: str, found: dict[str, list[list[int]]]) -> dict[str, Any]:
    """Seconds to load a folder, train and export it by the code of a cell, and the minutes of two whole recipes from them."""
    folder = given.export / name
    if not (folder / "config.json").is_file():
        folder.mkdir(parents=True)
        model_of(name, given.device).write(folder, torch.bfloat16)
    out: dict[str, Any] = {}
    seconds = {}
    for source, wanted, epochs in (("lima", 1_000, 10), ("instruct_v1", 60_000, 1)):
        begun = time.perf_counter()
        model = load_model(folder)
        seconds["load"] = time.perf_counter() - begun
        recipe = Finetune(name="benchmark", duration=f"{given.steps}step", max_seq_tokens=CONTEXT, warmup="0.05", held_out=0)
        hardware = Hardware(
            name="benchmark", accelerator="cpu" if given.device == "cpu" else "gpu", micro_batch=f"{given.micro}doc"
        )
        rows = documents(found[source], model.vocab_size)
        begun = time.perf_counter()
        with tempfile.TemporaryDirectory() as state:
            train(model, rows, recipe, hardware, Path(state), seed=0, say=False)
            taken = [row["seconds"] for row in read_metrics(Path(state) / "metrics.jsonl")]
        seconds["begin"] = time.perf_counter() - begun - sum(taken)  # moving the weights, the optimizer's first state
        seconds["update"] = statistics.mean(taken[2:])
        begun = time.perf_counter()
        export(model, folder, given.export / "out", card="", dtype=torch.bfloat16)
        seconds["export"] = time.perf_counter() - begun
        updates = epochs * -(-wanted // 48)
        whole = seconds["load"] + seconds["begin"] + updates * seconds["update"] + seconds["export"]
        parts = {part: round(value, 3) for part, value in seconds.items()}
        out[source] = {**parts, "updates": updates, "minutes": round(whole / 60, 2)}
        del model
    return out


def profile(given: argparse.Namespace, name: str, lengths: list[list[int]]) -> list[dict[str, Any]]:
    """The twelve kernels on which one update spends most of its time."""
    model = model_of(name, given.device, given.lora).train()
    model.run(attention="auto", recompute=given.recompute)
    rows = documents(lengths, SHAPES[name]["vocab_size"])
    recipe = Finetune(name="benchmark", batch=f"{given.documents}doc", max_seq_tokens=CONTEXT)
    first, second, third = updates(model, Batches.of(rows, recipe, steps=3, micro_batch=given.micro, seed=0), 3, given.device)
    first(), second()
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if given.device != "cpu" else []
    with torch.profiler.profile(activities=kinds) as seen:
        third()
        wait(given.device)

    def spent(event: Any) -> float:
        return float(event.self_device_time_total if given.device != "cpu" else event.self_cpu_time_total)

    events = sorted(seen.key_averages(), key=spent, reverse=True)
    total = sum(spent(event) for event in events)
    return [{"kernel": event.key[:80], "share": round(spent(event) / total, 4), "calls": event.count} for event in events[:12]]


def tried(work: Callable[[], Any]) -> Any:
    """The outcome, or the reason why a GPU could not: what does not fit is a result."""
    try:
        return work()
    except torch.OutOfMemoryError as error:
        return f"out of memory: {str(error).splitlines()[0]}"
    finally:
        torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lengths", type=Path)
    parser.add_argument("--from-rows", type=Path)
    parser.add_argument("--model", nargs="+", choices=SHAPES, default=["mpt_7b", "llama_7b"])
    parser.add_argument("--source", nargs="+", default=["lima", "instruct_v1"])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--documents", type=int, default=48)
    parser.add_argument("--micro", type=int, default=4)
    parser.add_argument("--lora", type=int, default=0)
    parser.add_argument("--export", type=Path)
    parser.add_argument("--recompute", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    given = parser.parse_args()
    if given.from_rows:
        write_lengths(given.lengths, given.from_rows)
        return
    lengths = json.loads(given.lengths.read_text(encoding="utf-8"))
    small = (16, 3, 40) if given.device == "cpu" else (700, 300, 1048)
    result: dict[str, Any] = {
        **provenance.collect(),
        "device": torch.cuda.get_device_name() if given.device != "cpu" else "cpu",
        "parity": parity(given.device),
        "attention_ms": attention_speed(given.device, 32, 128, small),
    }
    for name in given.model:
        if given.export:
            said = result.setdefault("to_export", {})[name] = tried(lambda n=name: to_export(given, n, lengths))
            sys.stdout.write(f"{name}, from command to export: {json.dumps(said)}\n")
            continue
        for source in given.source:
            for recompute in (False, True):
                found = tried(lambda n=name, s=source, r=recompute: training(given, n, lengths[s], recompute=r))
                kind = f"{name}{f', lora {given.lora}' if given.lora else ''}, {source}, recompute={recompute}"
                result.setdefault("training", {})[kind] = found
                sys.stdout.write(f"{kind}: {json.dumps(found)}\n")
                sys.stdout.flush()
        if given.profile:
            result.setdefault("profile", {})[name] = tried(lambda n=name: profile(given, n, lengths[given.source[0]]))
    sys.stdout.write(json.dumps({key: result[key] for key in ("parity", "attention_ms")}) + "\n")
    if given.device != "cpu":
        RESULTS.parent.mkdir(exist_ok=True)
        kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
        for part in ("training", "profile", "to_export"):
            result[part] = kept.get(part, {}) | result.get(part, {})
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
