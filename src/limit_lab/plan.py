"""What would happen, in words and numbers, before anything heavy is imported: pure arithmetic on the composed cells.

A ``~`` marks what rests on published or assumed means (token counts, shares, hours); the rest is exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from limit_lab.config import Duration, Model, Study, documents
from limit_lab.errors import PreflightError

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Schedule:
    """Optimizer steps of the whole schedule, where training stops inside it, and the warm-up."""

    steps: int
    stop: int
    warmup: int


@dataclass(frozen=True, slots=True)
class Tokens:
    """Expected tokens of one pass over a mixture, from the means of its sources."""

    prompt: float
    response: float
    square_sum: float  # sum over documents of the squared mean length, for the attention term

    @property
    def total(self) -> float:
        return self.prompt + self.response


@dataclass(frozen=True, slots=True)
class Memory:
    """GiB per device, by term."""

    weights: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.activations


def parameters(model: Model) -> float:
    """Parameter count: published, else of an MPT without biases: ``12 L d^2 + V d + (2 L + 1) d``, embeddings tied."""
    if model.parameters is not None:
        return model.parameters
    layers, width = model.n_layers, model.d_model
    return 12 * layers * width**2 + model.vocab_size * width + (2 * layers + 1) * width


def tokens(study: Study) -> Tokens | None:
    """Tokens of one pass, or None when a source's means are unknown until its rows are read.

    Documents are cut to ``finetune.max_seq_tokens`` at their mean only, so a long-tailed source is overestimated a little.
    """
    prompt = response = squares = 0.0
    for name, count in study.mixture.samples.items():
        source = study.data.sources[name]
        if source.prompt_tokens is None or source.response_tokens is None:
            return None
        prompt += count * source.prompt_tokens
        response += count * source.response_tokens
        squares += count * (source.prompt_tokens + source.response_tokens) ** 2
    return Tokens(prompt=prompt, response=response, square_sum=squares)


def schedule(study: Study) -> Schedule | None:
    """None for the untouched base, or when a duration in tokens meets sources of unknown length."""
    count = sum(study.mixture.samples.values())
    recipe, expected = study.finetune, tokens(study)
    spans = [Duration.parse(text, name="finetune.duration") for text in (recipe.duration, recipe.stop or recipe.duration)]
    if not count or (expected is None and any(span.unit == "tok" for span in spans)):
        return None
    batch = documents(recipe.batch, name="finetune.batch")
    mean = expected.total / count if expected else 0.0
    steps, stop = (span.steps(count, batch, mean) for span in spans)
    return Schedule(steps=steps, stop=min(stop, steps), warmup=recipe.warmup_steps(steps))


def memory(study: Study) -> Memory:
    """GiB per device while fine-tuning; a mixed-precision Adam needs 16 to 18 bytes a parameter.

    single, bf16: fp32 weights 4 + their autocast copies 2, fp32 gradients 4, two fp32 moments 8; fp32: the same without copies.
    zero3: bf16 weights 2 and gradients 2, fp32 master and moments 12, all divided over the devices (Rajbhandari et al. 2020,
    section 3.1). Activations: 34 bytes a token, layer and channel without attention scores (Korthikanti et al. 2022,
    equation 1), twice that in fp32, and 8 bytes a token and vocabulary entry for logits and their gradients: an upper bound,
    with every document of the micro-batch at full length and nothing recomputed.
    """
    model, recipe, hardware = study.model, study.finetune, study.hardware
    every = parameters(model)
    learnt = every - model.vocab_size * model.d_model if recipe.freeze_embeddings else every
    sharded = hardware.strategy == "zero3"
    devices = hardware.devices * hardware.nodes if sharded else 1
    low = recipe.precision == "bf16"
    weights = 2.0 if sharded else (6.0 if low else 4.0)
    gradients, states = (2.0, 12.0) if sharded else (4.0, 8.0)
    fed = documents(hardware.micro_batch, name="hardware.micro_batch") * recipe.max_seq_tokens
    activations = fed * ((34 if low else 68) * model.d_model * model.n_layers + 8 * model.vocab_size)
    return Memory(
        weights=weights * every / devices / GIB,
        gradients=gradients * learnt / devices / GIB,
        optimizer=states * learnt / devices / GIB,
        activations=activations / GIB,
    )


def flops(study: Study) -> float | None:
    """Floating-point operations of fine-tuning up to the stop, forward and backward, causal attention inside documents only.

    One pass costs ``6 (12 L d^2 T + V d T_target) + 6 L d sum(l^2)`` for T tokens of which T_target carry loss, in documents of
    l tokens: 2 operations a weight and token forward, twice that backward (Kaplan et al. 2020, section 2.1).
    """
    expected, planned = tokens(study), schedule(study)
    if expected is None or planned is None:
        return None
    model = study.model
    body = 12 * model.n_layers * model.d_model**2 * expected.total + model.vocab_size * model.d_model * expected.response
    attention = model.n_layers * model.d_model * expected.square_sum
    passes = planned.stop * documents(study.finetune.batch, name="finetune.batch") / sum(study.mixture.samples.values())
    return 6 * (body + attention) * passes


def hours(study: Study) -> float | None:
    """Fine-tuning hours: FLOPs / (peak x assumed share x devices); None when the peak or the tokens are unknown."""
    work, hardware = flops(study), study.hardware
    if work is None or hardware.tflops <= 0:
        return None
    return work / (hardware.tflops * 1e12 * hardware.mfu * hardware.devices * hardware.nodes) / 3600


def disk_gib(study: Study) -> float:
    """Disk of one cell at its fullest: two resume checkpoints (the last, and the one being written) and the exported weights."""
    if not study.mixture.samples:
        return 0.0
    every = parameters(study.model)
    sharded = study.hardware.strategy == "zero3"
    checkpoint, exported = (14.0, 2.0) if sharded else (12.0, 4.0)
    return (2 * checkpoint + exported) * every / GIB


def host_gib(study: Study) -> float:
    """Host memory: about 2 GiB a process, one copy of the weights while loading, and the training state itself on a CPU."""
    processes = study.hardware.devices if study.hardware.accelerator == "gpu" else 1
    copy = (2.0 if study.hardware.strategy == "zero3" else 4.0) * parameters(study.model) / GIB
    return 2.0 * processes + copy + (memory(study).total if study.hardware.accelerator == "cpu" else 0.0)


def prompts(study: Study) -> int | None:
    """Prompts that each cell answers, as far as the configuration or the prompt file tells."""
    found = _lines(Path(study.answers.prompts)) if study.answers.prompts else None
    limit = study.answers.limit
    return limit if found is None else min(found, limit or found)


def gauntlet_rows(study: Study) -> tuple[int, int]:
    """Rows of the task files that are here (``rows`` limits counted), and the number of files that are not."""
    rows = absent = 0
    for task in study.gauntlet.tasks:
        found = _lines(Path(study.gauntlet.data) / task.file) if study.gauntlet.data else None
        if found is None:
            absent += 1
        else:
            rows += min(found, task.rows or found)
    return rows, absent


def pairs(cells: Sequence[Study]) -> int:
    """Comparisons of the study: every cell against the baseline, but the baseline itself."""
    baseline = cells[-1].study.baseline
    return sum(cell.mixture.name != baseline for cell in cells) if baseline is not None else 0


def describe(cells: Sequence[Study]) -> str:
    """The plan of a study as text, the configured cell last."""
    last = cells[-1]
    lines = [f"study {last.study.name}: {len(cells)} cells, {pairs(cells)} pairs; ~ marks estimates"]
    for number, cell in enumerate(cells, 1):
        lines += ["", f"cell {number} of {len(cells)}: model={cell.model.name} mixture={cell.mixture.name}"]
        lines += [f"  {label:<10} {text}" for label, text in _cell(cell)]
    lines += ["", "in all", *(f"  {label:<10} {text}" for label, text in _totals(cells))]
    return "\n".join(lines)


def preflight(cells: Sequence[Study]) -> None:
    """Compare what the study needs with this machine and with what still exists.

    Raises: PreflightError with every problem at once, each with its remedy.
    """
    from limit_lab import preflight as checks

    problems = checks.problems(cells)
    if problems:
        what = "This machine cannot run the study yet" if len(problems) == 1 else "This machine cannot run the study yet, for"
        what += ":" if len(problems) == 1 else f" {len(problems)} reasons:"
        raise PreflightError(what, problems)


def _cell(study: Study) -> list[tuple[str, str]]:
    samples, recipe = study.mixture.samples, study.finetune
    count = sum(samples.values())
    if not count:
        return [("samples", "none: the untouched base is evaluated as it is")]
    found = [("samples", f"{count:,} = " + " + ".join(f"{number:,} {name}" for name, number in samples.items()))]
    found += _token_lines(study, count)
    planned = schedule(study)
    if planned is None:
        found.append(("steps", "unknown: a duration in tokens needs data.sources.*.prompt_tokens and response_tokens"))
    else:
        batch = documents(recipe.batch, name="finetune.batch")
        where = f", stopping at {recipe.stop} = {planned.stop:,} steps" if recipe.stop else ""
        text = f"{planned.steps:,} steps of {batch} documents ({recipe.duration}, {recipe.schedule}){where}"
        share = planned.warmup / planned.steps
        found.append(("steps", f"{text}; warm-up {planned.warmup:,} steps, {share:.1%} of the schedule"))
    return [*found, *_machine_lines(study)]


def _token_lines(study: Study, count: int) -> list[tuple[str, str]]:
    expected = tokens(study)
    if expected is None:
        return [("tokens", "unknown until the rows are read (data.sources.*.prompt_tokens, response_tokens)")]
    width = study.finetune.max_seq_tokens
    sources = study.data.sources
    shares = {name: n * (sources[name].response_tokens or 0.0) / expected.response for name, n in study.mixture.samples.items()}
    return [
        ("tokens", f"~{expected.total:,.0f} a pass, ~{expected.response:,.0f} of them carry loss; ~{expected.total / count:,.0f} a sample"),
        ("packs", f"~{math.ceil(expected.total / width):,} of {width:,} tokens a pass, when full"),
        ("loss share", ", ".join(f"~{share:.1%} {name}" for name, share in shares.items())),
    ]


def _machine_lines(study: Study) -> list[tuple[str, str]]:
    held, time, hardware = memory(study), hours(study), study.hardware
    nodes = f" in {hardware.nodes} nodes" if hardware.nodes > 1 else ""
    terms = f"weights {held.weights:.2f}, gradients {held.gradients:.2f}, optimizer {held.optimizer:.2f}"
    return [
        ("device", f"{hardware.devices * hardware.nodes} x {hardware.accelerator}{nodes}, {hardware.strategy}, {study.finetune.precision}"),
        ("GiB", f"{held.total:.2f} a device: {terms}, activations at most {held.activations:.2f}"),
        ("host", f"~{host_gib(study):.1f} GiB of memory, {disk_gib(study):.2f} GiB of disk"),
        ("hours", "unknown (tokens or hardware.tflops)" if time is None else f"~{time:.3g} of fine-tuning, evaluation not counted"),
    ]


def _totals(cells: Sequence[Study]) -> list[tuple[str, str]]:
    last = cells[-1]
    times = [hours(cell) for cell in cells if cell.mixture.samples]
    known = [time for time in times if time is not None]
    text = f"~{sum(known):.3g}" if len(known) == len(times) else "unknown"
    rows, absent = gauntlet_rows(last)
    here = f"{rows:,} rows in the files that are here, {absent} files are not" if absent else f"{rows:,} rows"
    embedded = last.gauntlet.data is None and any(source.kind == "microworld" for source in last.data.sources.values())
    tasks = f"{len(last.gauntlet.tasks)} tasks, {'written by the embedded world' if embedded else here}, for each of {len(cells)} cells"
    return [
        ("hours", f"{text} of fine-tuning"),
        ("disk", f"{sum(disk_gib(cell) for cell in cells):.2f} GiB under {last.runs}"),
        ("gauntlet", f"{last.gauntlet.name}: {tasks}, prompted {' and '.join(last.gauntlet.prompting)}"),
        ("answers", f"{_answers(last)} for each cell, at most {last.answers.max_new_tokens:,} new tokens each"),
        ("judge", _judging(last, pairs(cells))),
    ]


def _answers(study: Study) -> str:
    count, seeds = prompts(study), len(study.answers.seeds)
    each = "every prompt of the set" if count is None else f"{count:,} prompts"
    return each + (f" x {seeds} generation seeds = {count * seeds:,} answers" if seeds > 1 and count is not None else "")


def _judging(study: Study, compared: int) -> str:
    count, judge = prompts(study), study.judge
    if count is None:
        return f"{judge.profile}: one call for each prompt, generation seed and pair ({compared} pairs), ${judge.usd_per_call:g} each"
    calls = count * len(study.answers.seeds) * compared
    return f"{judge.profile}: {calls:,} calls, " + (f"~${calls * judge.usd_per_call:,.2f}" if judge.usd_per_call else "free")


def _lines(path: Path) -> int | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())
