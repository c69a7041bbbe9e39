"""Fine-tuning speed on real rows against what our users would otherwise pick, and the loss head against full logits.

    python benchmarks/training.py DATA [--rows 48] [--repeats 3] [--d-model 256] [--layers 4] [--only mpt llama head]

DATA holds lima/ and dolly_hhrlhf/ as +experiment=real_rows reads them, and tokenizers/mpt. Every contestant takes one update
over the same rows (float32, AdamW, all cores) in a process of its own; repeats are interleaved, medians stand. Useful tokens
are those of the documents, padding is not. The losses of the update must be equal, or the contest is none.

mpt: our `train` against transformers' Trainer on transformers' MPT, batches of 8 padded to their longest, in random order or
grouped by length. llama: our `train` on transformers' Llama against packed TRL (pip install trl), left out where trl is absent.
head: the loss at vocabulary 50,432 with half of the positions as targets. Then the packer's speed. The last results are kept in
benchmarks/results/training.json.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from limit_lab import provenance

RESULTS = Path(__file__).resolve().parent / "results" / "training.json"
SOURCES = ("lima", "instruct_v1")
MPT = ("limit_lab", "trainer, random order", "trainer, grouped by length")
LLAMA = ("limit_lab on Llama", "trl, packed")
HEAD = ("target rows in chunks", "full logits")
CONTEXT, VOCABULARY, CHUNK = 2048, 50_432, 512


def documents(given: argparse.Namespace, source: str) -> list[Any]:
    from limit_lab.compose import compose
    from limit_lab.mixture.mix import mix
    from limit_lab.model.loading import load_tokenizer

    study = compose(
        [
            "+experiment=real_rows",
            f"data.dir={given.data}",
            f"mixture={source}",
            f"mixture.samples.{source}={given.rows}",
            f"finetune.max_seq_tokens={CONTEXT}",
        ]
    )
    return mix(study, load_tokenizer(given.data / "tokenizers" / "mpt")).documents


def mpt_config(given: argparse.Namespace) -> Any:
    from limit_lab.model.mpt import MPTConfig

    return MPTConfig(d_model=given.d_model, n_layers=given.layers, n_heads=8, vocab_size=VOCABULARY, max_seq_len=CONTEXT)


def mpt(given: argparse.Namespace) -> Any:
    from limit_lab.model import mpt as module

    model = module.MPT(mpt_config(given))
    model.initialise(0)
    return model


def their_mpt(given: argparse.Namespace) -> Any:
    from transformers import MptConfig, MptForCausalLM

    theirs, state = MptForCausalLM(MptConfig.from_dict(mpt_config(given).to_hugging_face())), mpt(given).state_dict()
    theirs.load_state_dict({**state, "lm_head.weight": state["transformer.wte.weight"]})
    return theirs


def llama(given: argparse.Namespace) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=given.d_model,
        intermediate_size=4 * given.d_model,
        num_hidden_layers=given.layers,
        num_attention_heads=8,
        max_position_embeddings=CONTEXT,
    )
    return LlamaForCausalLM(config)


def ours(model: Any, rows: list[Any]) -> float:
    """Loss of one update by `train`."""
    from limit_lab.config import Finetune, Hardware
    from limit_lab.finetune.train import train

    recipe = Finetune(
        name="benchmark",
        duration="1step",
        batch=f"{len(rows)}doc",
        max_seq_tokens=CONTEXT,
        warmup="0",
        precision="fp32",
    )
    with tempfile.TemporaryDirectory() as folder:
        outcome = train(model, rows, recipe, Hardware(name="cpu", micro_batch="8doc"), Path(folder), seed=0, say=False)
    return float(outcome["first_loss"])


def their_settings(folder: str) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "max_steps": 1,
        "learning_rate": 5e-6,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def trainer(model: Any, rows: list[Any], sampling: str) -> float:
    """Loss of one update by transformers' Trainer: micro-batches of 8, each padded to its longest."""
    import torch
    from torch.nn.utils.rnn import pad_sequence
    from transformers import Trainer, TrainingArguments

    def collate(chosen: list[dict[str, Any]]) -> dict[str, Any]:
        ids = pad_sequence([torch.tensor(one["input_ids"]) for one in chosen], batch_first=True)
        labels = pad_sequence([torch.tensor(one["labels"]) for one in chosen], batch_first=True, padding_value=-100)
        lengths = torch.tensor([len(one["input_ids"]) for one in chosen])
        mask = (torch.arange(ids.shape[1])[None] < lengths[:, None]).long()
        return {"input_ids": ids, "labels": labels, "attention_mask": mask}

    data = [{"input_ids": one.ids, "labels": [-100] * one.prompt_tokens + one.ids[one.prompt_tokens :]} for one in rows]
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            **their_settings(folder),
            per_device_train_batch_size=8,
            gradient_accumulation_steps=-(-len(rows) // 8),
            train_sampling_strategy=sampling,
        )
        run = Trainer(model=model, args=settings, train_dataset=data, data_collator=collate)
        return float(run.train().training_loss)


def trl(model: Any, rows: list[Any], tokenizer: Any) -> float:
    """Loss of one update by TRL's SFTTrainer, packed into rows of the context."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    data = Dataset.from_list(
        [
            {"input_ids": one.ids, "completion_mask": [0] * one.prompt_tokens + [1] * (len(one.ids) - one.prompt_tokens)}
            for one in rows
        ]
    )
    with tempfile.TemporaryDirectory() as folder:

        def run(updates: int) -> Any:
            settings = SFTConfig(
                **their_settings(folder),
                packing=True,
                max_length=CONTEXT,
                completion_only_loss=True,
                per_device_train_batch_size=1,
                gradient_accumulation_steps=updates,
                gradient_checkpointing=False,
            )
            return SFTTrainer(model=model, args=settings, train_dataset=data, processing_class=tokenizer)

        return float(run(len(run(1).train_dataset)).train().training_loss)


def head(given: argparse.Namespace, name: str) -> float:
    """Loss and gradients at ``given.positions``, of which half are targets; the model is its vocabulary alone."""
    import torch
    import torch.nn.functional as F

    from limit_lab.finetune.loss import target_loss

    torch.manual_seed(0)
    model = mpt(given)
    states = torch.randn(given.positions, given.d_model, requires_grad=True)
    targets = torch.randint(0, VOCABULARY, (given.positions,))
    chosen = torch.arange(given.positions) % 2 == 0
    if name == "full logits":
        loss = F.cross_entropy(model.logits(states), targets.masked_fill(~chosen, -100))
    else:
        count = int(chosen.sum())
        weights = torch.full((count,), 1 / count)
        loss = target_loss(model, states[chosen], targets[chosen], weights, at_once=CHUNK)
    loss.backward()
    return float(loss.detach())


def contestant(given: argparse.Namespace, name: str, source: str) -> tuple[Callable[[], float], int]:
    """What is timed, and its useful tokens."""
    if name in HEAD:
        return lambda: head(given, name), given.positions
    rows = documents(given, source)
    tokens = sum(len(one.ids) for one in rows)
    if name == "limit_lab":
        model = mpt(given)
        return lambda: ours(model, rows), tokens
    if name == "limit_lab on Llama":
        from limit_lab.model.hugging_face import HuggingFaceLM, attend_by_document

        adapted = HuggingFaceLM(llama(given))
        attend_by_document(adapted, Path("Llama"))
        return lambda: ours(adapted, rows), tokens
    if name == "trl, packed":
        from limit_lab.model.loading import load_tokenizer

        tokenizer = load_tokenizer(given.data / "tokenizers" / "mpt")
        network = llama(given)
        return lambda: trl(network, rows, tokenizer), tokens
    theirs = their_mpt(given)
    sampling = "group_by_length" if name.endswith("length") else "random"
    return lambda: trainer(theirs, rows, sampling), tokens


def child(given: argparse.Namespace) -> None:
    """Run one contestant once and print what it took as the last line."""
    warnings.simplefilter("ignore")
    name, source = given.child
    # imports, threads and kernels are not what is compared
    contestant(argparse.Namespace(**vars(given) | {"rows": 2, "d_model": 32, "layers": 1, "positions": 64}), name, source)[0]()
    work, tokens = contestant(given, name, source)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = time.perf_counter(), time.process_time()
    loss = work()
    seconds, spent = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {"seconds": seconds, "cpu_seconds": spent, "tokens": tokens, "loss": loss}
    sys.stdout.write(json.dumps(found | {"peak_gib": peak / 2**20, "extra_gib": (peak - before) / 2**20}) + "\n")


def once(name: str, source: str) -> dict[str, float]:
    command = [sys.executable, __file__, *sys.argv[1:], "--child", name, source]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def contest(names: tuple[str, ...], source: str, repeats: int) -> dict[str, Any]:
    """Medians over interleaved repeats. Raises: SystemExit when the contestants' losses differ."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(repeats):
        for name in names:
            runs[name].append(once(name, source))
            sys.stderr.write(f"  {source} {name}: {runs[name][-1]['seconds']:.1f} s\n")
    found: dict[str, Any] = {}
    for name, own in runs.items():
        middle = {key: statistics.median(one[key] for one in own) for key in own[0]}
        found[name] = {key: round(value, 5) for key, value in middle.items()}
        found[name]["useful_tokens_per_cpu_second"] = round(middle["tokens"] / middle["cpu_seconds"], 1)
        found[name]["useful_tokens_per_second"] = round(middle["tokens"] / middle["seconds"], 1)
    losses = [one["loss"] for one in found.values()]
    if max(losses) - min(losses) > 2e-4 * max(losses):
        raise SystemExit(f"{source}: the losses differ, so the contest is none: {dict(zip(found, losses, strict=True))}")
    return found


def packer() -> dict[str, float]:
    """Documents packed a second, on 60,000 lengths drawn like those of short answers."""
    from limit_lab.mixture.packing import first_fit

    rng = random.Random(0)
    lengths = [min(CONTEXT, int(rng.lognormvariate(5, 0.7)) + 1) for _ in range(60_000)]
    start = time.perf_counter()
    rows = first_fit(lengths, CONTEXT)
    seconds = time.perf_counter() - start
    return {"documents_per_second": round(len(lengths) / seconds), "fill": round(sum(lengths) / len(rows) / CONTEXT, 4)}


def tell(name: str, found: dict[str, Any]) -> None:
    first = next(iter(found.values()))
    for contender, one in found.items():
        ratio, memory = one["seconds"] / first["seconds"], one["extra_gib"] / first["extra_gib"]
        sys.stdout.write(
            f"{name:<20} {contender:<28}{one['seconds']:>8.2f} s  {one['useful_tokens_per_second']:>8,.0f} tok/s  "
            f"{ratio:>5.2f}x time  {one['extra_gib']:>6.2f} GiB above the model ({memory:.2f}x)  loss {one['loss']:.4f}\n"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--d-model", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--only", nargs="+", choices=("mpt", "llama", "head"), default=("mpt", "llama", "head"))
    parser.add_argument("--positions", type=int, default=CONTEXT, help="of the head")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given)
        return
    found: dict[str, Any] = {}
    for kind, names in (("mpt", MPT), ("llama", LLAMA)):
        if kind not in given.only or (kind == "llama" and find_spec("trl") is None):
            continue
        for source in SOURCES:
            found[f"{kind}, {source}"] = contest(names, source, given.repeats)
    if "head" in given.only:
        found["head"] = contest(HEAD, "none", given.repeats)
    for name, own in found.items():
        tell(name, own)
    speed = packer()
    sys.stdout.write(f"packer: {speed['documents_per_second']:,} documents/s, rows {speed['fill']:.1%} full\n")
    settings = {key: value for key, value in vars(given).items() if key not in ("data", "child")}
    result = {**provenance.collect(), "settings": settings, "contests": found, "packer": speed}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
