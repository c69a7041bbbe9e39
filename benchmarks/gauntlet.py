"""The gauntlet's scoring engine against what our users would otherwise run, and its tokens against the least there can be.

    python benchmarks/gauntlet.py DATA [speed] [--rows 12] [--repeats 1] [--d-model 768] [--layers 14] [--only arc_easy ...]
    python benchmarks/gauntlet.py DATA tokens [--suite v0_present29] [--rows N]

DATA holds gauntlet/ and tokenizers/mpt. speed: all score the same token sequences of real rows (the first N of a task; shots
come from the whole file) by one MPT with random weights in float32, whose vocabulary projection is under 30 % of the FLOPs of
a token; repeats are interleaved, medians stand. FLOPs are those of all matrix products and attention kernels that run, counted
on twins of one and two layers; tokens are what passes the first layer, padding included.

- plain: every choice a whole sequence, batches of 8 in file order padded to their longest, only scored positions projected.
- HFLM: lm-evaluation-harness (pip install lm-eval) at batch 8, on transformers' MPT with the same weights: what its users get.
- HFLM, our MPT: the same around our module, so that only the engines differ. Both are left out where lm-eval is absent.
- A footnote: batches padded to 2,048 tokens with all positions projected, timed on two sequences and extrapolated.

tokens: without a model, what the engine would feed over a suite, and the bound: the nodes of one prefix tree per question, the
last token of each sequence left out. With --rows only the first rows of each task are counted, and the result says so.
The last results are kept in benchmarks/results/gauntlet.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

from limit_lab import provenance
from limit_lab.config import Gauntlet, Task
from limit_lab.gauntlet.prompts import raw_prompts
from limit_lab.gauntlet.sequences import Scorable, prefix_space, scorables
from limit_lab.gauntlet.tasks import parts, read, strip
from limit_lab.model.mpt import MPT, MPTConfig
from limit_lab.prompt import Tokenizer

RESULTS = Path(__file__).resolve().parent / "results" / "gauntlet.json"
CONTEXT, VOCABULARY, BATCH, LARGEST_SHARE = 2048, 50_432, 8, 0.3
OURS, PLAIN, HFLM, HFLM_OURS = "limit_lab", "plain", "HFLM", "HFLM, our MPT"

ANSWER = "\nAnswer: "
CHOICE = {"type": "multiple_choice", "category": "benchmark"}
TASKS = (
    Task(**CHOICE, label="arc_easy", file="world_knowledge/arc_easy.jsonl", shots=10, continuation_delimiter=ANSWER),
    Task(**CHOICE, label="piqa", file="commonsense_reasoning/piqa.jsonl", shots=10, continuation_delimiter=ANSWER),
    Task(**CHOICE, label="openbook_qa", file="commonsense_reasoning/openbook_qa.jsonl"),
    Task(
        label="winograd", type="schema", category="benchmark", file="language_understanding/winograd_wsc.jsonl", template=False
    ),
    Task(**CHOICE, label="math_qa", file="symbolic_problem_solving/math_qa.jsonl", shots=10),  # choices of one token: letters
    Task(
        label="lambada_openai",
        type="language_modeling",
        category="benchmark",
        file="language_understanding/lambada_openai.jsonl",
    ),
)

#: Fixed before anything was measured: task, peer, what, at least so many times ours.
GOALS = (
    ("arc_easy", PLAIN, "flops", 3.5),
    ("arc_easy", PLAIN, "cpu_seconds", 3.0),
    ("piqa", PLAIN, "flops", 1.9),
    ("piqa", PLAIN, "cpu_seconds", 1.6),
    ("arc_easy", HFLM, "cpu_seconds", 2.0),
    ("math_qa", HFLM, "cpu_seconds", 1.0),
)
#: The engine may feed so many times the bound over the suite.
GOAL_TOKENS = 1.15

Question = list[Scorable]
Scorer = Callable[[list[Question]], list[float]]


def questions(task: Task, tokenizer: Tokenizer, data: Path, rows: int | None) -> Iterator[Question]:
    """The sequences of each of the first ``rows`` questions in file order, as `gauntlet.evaluate` asks them raw."""
    stripped, blank = strip(read(task, data)), prefix_space(tokenizer)
    by_row: dict[int, Any] = {}
    for part in parts(task, stripped):
        by_row.update(zip(part, raw_prompts(task, [stripped[index] for index in part], prefix_space=blank), strict=True))
    for index in range(len(stripped))[:rows]:
        yield scorables(tokenizer, by_row[index], CONTEXT)


def flat(asked: list[Question]) -> list[Scorable]:
    """The sequences of all questions, in file order."""
    return [one for question in asked for one in question]


def network(given: argparse.Namespace, layers: int) -> MPT:
    model = MPT(MPTConfig(d_model=given.d_model, n_layers=layers, n_heads=given.heads, vocab_size=VOCABULARY))
    model.initialise(0)
    return model.eval().requires_grad_(False)


def share(given: argparse.Namespace, tokens: float) -> float:
    """The vocabulary projection's part of a token's FLOPs when every position is projected, in sequences of ``tokens``."""
    head, body = VOCABULARY * given.d_model, 12 * given.layers * given.d_model**2
    return head / (head + body + given.layers * given.d_model * 2 * tokens)


def ours(model: MPT, budget: int) -> Scorer:
    from limit_lab.gauntlet.scoring import score

    return lambda asked: [one.nll for own in score(model, asked, batch_tokens=budget) for one in own]


def plain(model: MPT, batch: int = BATCH, width: int | None = None, *, project_all: bool = False) -> Scorer:
    """Whole sequences in file order, padded to the longest of a batch or to ``width``."""
    import torch
    import torch.nn.functional as F

    @torch.inference_mode()
    def run(asked: list[Question]) -> list[float]:
        found, sequences = [], flat(asked)
        for first in range(0, len(sequences), batch):
            chosen = sequences[first : first + batch]
            length = width or max(len(one.ids) for one in chosen)
            hidden = model.hidden(torch.tensor([[*one.ids, *[0] * (length - len(one.ids))] for one in chosen]))
            logits = model.logits(hidden) if project_all else None
            for row, one in enumerate(chosen):
                span = slice(one.start - 1, len(one.ids) - 1)
                scores = model.logits(hidden[row, span]) if logits is None else logits[row, span]
                found.append(float(F.cross_entropy(scores, torch.tensor(one.ids[one.start :]))))
        return found

    return run


def hflm(model: MPT, tokenizer: Tokenizer) -> dict[str, Scorer]:
    """Of lm-evaluation-harness: on transformers' MPT with the weights of ``model``, and around ``model`` itself."""
    import torch
    from lm_eval.models import huggingface
    from transformers import MptConfig, MptForCausalLM

    state = model.state_dict()
    theirs = MptForCausalLM(MptConfig.from_dict(model.config.to_hugging_face())).eval().requires_grad_(False)
    theirs.load_state_dict({**state, "lm_head.weight": state["transformer.wte.weight"]})

    class Around(huggingface.HFLM):  # type: ignore[misc]
        def _model_call(self, inps: torch.Tensor, attn_mask: Any = None, labels: Any = None) -> torch.Tensor:
            with torch.inference_mode():
                return model(inps)

    def scorer(kind: type) -> Scorer:
        wrapped = kind(pretrained=theirs, tokenizer=tokenizer, batch_size=BATCH, max_length=CONTEXT)

        def run(asked: list[Question]) -> list[float]:
            sequences = flat(asked)
            requests = [(None, list(one.ids[: one.start]), list(one.ids[one.start :])) for one in sequences]
            said = wrapped._loglikelihood_tokens(requests, disable_tqdm=True)
            return [-sums / (len(one.ids) - one.start) for (sums, _), one in zip(said, sequences, strict=True)]

        return run

    return {HFLM: scorer(huggingface.HFLM), HFLM_OURS: scorer(Around)}


def contestants(given: argparse.Namespace, tokenizer: Tokenizer, layers: int) -> dict[str, Scorer]:
    model = network(given, layers)
    found = {OURS: ours(model, given.batch_tokens), PLAIN: plain(model)}
    return found | (hflm(model, tokenizer) if find_spec("lm_eval") else {})


def counted(run: Scorer, asked: list[Question]) -> tuple[int, int]:
    """FLOPs of all matrix products and attention kernels, and tokens through the first layer's first projection."""
    import torch
    from torch import nn
    from torch.utils.flop_counter import FlopCounterMode

    def attention(query: Any, key: Any, value: Any, *rest: Any, **more: Any) -> int:
        """Of shapes [batch, heads, tokens, head_dim]; torch's own formulas lack the kernel of CPUs."""
        batch, heads, queries, size = query
        return int(2 * batch * heads * queries * key[2] * (size + value[3]))

    tokens = 0

    def see(part: nn.Module, taken: tuple[Any, ...]) -> None:
        nonlocal tokens
        if isinstance(part, nn.Linear) and part.out_features == 3 * part.in_features:
            tokens += taken[0].numel() // part.in_features

    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    hook = nn.modules.module.register_module_forward_pre_hook(see)
    try:
        with FlopCounterMode(display=False, custom_mapping={kernel: attention}) as counter:
            run(asked)
    finally:
        hook.remove()
    return counter.get_total_flops(), tokens


def contest(
    given: argparse.Namespace, tokenizer: Tokenizer, task: Task, racers: dict[str, Scorer], twins: Sequence[dict[str, Scorer]]
) -> dict[str, Any]:
    """Counts by the ``twins`` of one and of two layers, then times and scores of the ``racers``."""
    asked = list(questions(task, tokenizer, given.data / "gauntlet", given.rows))
    every = flat(asked)
    found: dict[str, Any] = {name: {"seconds": [], "cpu_seconds": []} for name in racers}
    for name, own in found.items():
        (one, own["tokens"]), (two, _) = (counted(twin[name], asked) for twin in twins)
        own["flops"] = one + (given.layers - 1) * (two - one)
    scores = {}
    for _ in range(given.repeats):
        for name, run in racers.items():
            start, cpu = time.perf_counter(), time.process_time()
            scores[name] = run(asked)
            found[name]["cpu_seconds"].append(time.process_time() - cpu)
            found[name]["seconds"].append(time.perf_counter() - start)
            sys.stderr.write(f"  {task.label} {name}: {found[name]['seconds'][-1]:.1f} s\n")
    for name, own in found.items():
        own |= {key: round(statistics.median(own[key]), 3) for key in ("seconds", "cpu_seconds")}
        own["largest_nll_difference"] = max(abs(a - b) for a, b in zip(scores[name], scores[OURS], strict=True))
    return {"questions": len(asked), "sequences": len(every), "tokens": sum(len(one.ids) for one in every), "engines": found}


def footnote(given: argparse.Namespace, tokenizer: Tokenizer, task: Task, found: dict[str, Any]) -> dict[str, float]:
    """Padding to the full length: CPU seconds of a sequence, and how many times ours for all sequences of the task."""
    two = [one for question in questions(task, tokenizer, given.data / "gauntlet", 1) for one in question][:2]
    run = plain(network(given, given.layers), 2, CONTEXT, project_all=True)
    start, cpu = time.perf_counter(), time.process_time()
    run([two])
    seconds, spent = (time.perf_counter() - start) / len(two), (time.process_time() - cpu) / len(two)
    own = found["engines"][OURS]
    ratios = [each * found["sequences"] / own[key] for each, key in ((spent, "cpu_seconds"), (seconds, "seconds"))]
    return {"cpu_seconds_a_sequence": round(spent, 3), "times_cpu": round(ratios[0], 1), "times_wall": round(ratios[1], 1)}


def speed(given: argparse.Namespace) -> dict[str, Any]:
    import torch

    from limit_lab.model.loading import load_tokenizer

    warnings.simplefilter("ignore")
    tokenizer = load_tokenizer(given.data / "tokenizers" / "mpt")
    projection = share(given, 400)
    sys.stdout.write(f"vocabulary projection: {projection:.1%} of the FLOPs of a token in a sequence of 400\n")
    if projection >= LARGEST_SHARE:
        raise SystemExit(f"that is not under {LARGEST_SHARE:.0%}: use more --layers, at least {9_900 // given.d_model + 1}.")
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    racers, *twins = (contestants(given, tokenizer, layers) for layers in (given.layers, 1, 2))
    if HFLM not in racers:
        sys.stdout.write("lm-evaluation-harness is left out: pip install lm-eval adds it\n")
    for run in racers.values():  # threads and kernels are not what is compared
        run([[Scorable(ids=(5, 6, 7, 8), start=2)]])
    found = {task.label: contest(given, tokenizer, task, racers, twins) for task in TASKS if task.label in given.only}
    first = next(task for task in TASKS if task.label in found)
    full = {"task": first.label, **footnote(given, tokenizer, first, found[first.label])}
    for label, one in found.items():
        tell(label, one)
    sys.stdout.write(
        f"padded to {CONTEXT:,} tokens, all positions projected (extrapolated from two sequences of {first.label}): "
        f"{full['times_cpu']:.0f}x our CPU time, {full['times_wall']:.0f}x our wall time\n"
    )
    version = metadata.version("lm-eval") if HFLM in racers else None
    known = {"projection_share": round(projection, 4), "threads": torch.get_num_threads(), "lm_eval": version}
    return known | {"tasks": found, "padded_to_full_length": full, "goals": goals(found)}


def tell(label: str, found: dict[str, Any]) -> None:
    own = found["engines"][OURS]
    sys.stdout.write(f"{label}: {found['questions']} questions, {found['sequences']} sequences, {found['tokens']:,} tokens\n")
    for name, one in found["engines"].items():
        times = "  ".join(f"{one[key] / own[key]:>6.2f}x" for key in ("flops", "cpu_seconds", "seconds"))
        sys.stdout.write(
            f"  {name:<16}{one['tokens']:>9,} tokens fed  {one['flops'] / 1e12:>7.3f} TFLOP  {one['cpu_seconds']:>8.2f} CPU s  "
            f"{one['seconds']:>8.2f} s  against ours: FLOPs, CPU, wall {times}  "
            f"NLL differs by {one['largest_nll_difference']:.1e}\n"
        )


def goals(found: dict[str, Any]) -> list[dict[str, Any]]:
    """What was asked of the engine beforehand, and whether it holds."""
    reached = []
    for task, peer, what, least in GOALS:
        if task in found and peer in found[task]["engines"]:
            engines = found[task]["engines"]
            ratio = engines[peer][what] / engines[OURS][what]
            reached.append(
                {"task": task, "peer": peer, "of": what, "at_least": least, "is": round(ratio, 2), "holds": ratio >= least}
            )
            held = "yes" if ratio >= least else "NO"
            sys.stdout.write(f"goal: {task} against {peer}, {what}: {ratio:.2f}x, at least {least}x: {held}\n")
    return reached


def nodes(question: Question) -> int:
    """Tokens that any scorer must read for one question: the nodes of a prefix tree, the last token of a sequence left out."""
    ways = sorted({one.ids[:-1] for one in question})
    return len(ways[0]) + sum(len(after) - _alike(before, after) for before, after in pairwise(ways))


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common prefix, by halving."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle - 1)
    return low


def tokens(given: argparse.Namespace) -> dict[str, Any]:
    from limit_lab.compose import compose
    from limit_lab.gauntlet.families import families, fed_tokens
    from limit_lab.model.loading import load_tokenizer

    tokenizer = load_tokenizer(given.data / "tokenizers" / "mpt")
    suite = compose([f"gauntlet={given.suite}", f"data.dir={given.data}"]).gauntlet
    found: dict[str, dict[str, int]] = {}
    for task in suite.tasks:
        if task.type == "generation":
            sys.stdout.write(f"{task.label} is left out: its answers are generated\n")
            continue
        asked = list(questions(task, tokenizer, Path(suite.data or given.data / "gauntlet"), given.rows))
        own = {"whole": sum(len(one.ids) - 1 for one in flat(asked)), "bound": sum(map(nodes, asked))}
        found[task.label] = {"questions": len(asked), "fed": fed_tokens(families(asked)), **own}
        tell_tokens(task.label, found[task.label])
    total = {key: sum(one[key] for one in found.values()) for key in ("questions", "fed", "whole", "bound")}
    part = suite.name if given.rows is None else f"{suite.name}, first {given.rows} rows of each task"
    tell_tokens(part, total)
    ratio = total["fed"] / total["bound"]
    sys.stdout.write(f"goal: at most {GOAL_TOKENS}x the bound: {'yes' if ratio <= GOAL_TOKENS else 'NO'}\n")
    return {"suite": part, "total": total, "times_bound": round(ratio, 4), "holds": ratio <= GOAL_TOKENS, "tasks": found}


def tell_tokens(label: str, one: dict[str, int]) -> None:
    sys.stdout.write(
        f"{label:<40}{one['questions']:>8,} questions  fed {one['fed']:>13,}  bound {one['bound']:>13,}  "
        f"({one['fed'] / one['bound']:.3f}x)  whole sequences {one['whole'] / one['bound']:.2f}x\n"
    )
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("mode", nargs="?", choices=("speed", "tokens"), default="speed")
    parser.add_argument("--rows", type=int, default=None, help="of each task; speed: 12, tokens: all")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--d-model", type=int, default=768)
    parser.add_argument("--layers", type=int, default=14)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--batch-tokens", type=int, default=Gauntlet(name="benchmark").batch_tokens)
    parser.add_argument("--only", nargs="+", choices=[task.label for task in TASKS], default=[task.label for task in TASKS])
    parser.add_argument("--suite", default="v0_present29")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results are kept")
    given = parser.parse_args()
    given.rows = 12 if given.rows is None and given.mode == "speed" else given.rows
    found = speed(given) if given.mode == "speed" else tokens(given)
    settings = {key: value for key, value in vars(given).items() if key not in ("data", "out")}
    kept = json.loads(given.out.read_text(encoding="utf-8")) if given.out.is_file() else {}
    kept[given.mode] = {**provenance.collect(), "settings": settings, **found}
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
