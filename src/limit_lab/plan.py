"""What would happen, in words and numbers, before anything heavy is imported, and whether this machine can do it.

A ``~`` marks what rests on published or assumed means; the rest is exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from limit_lab.config import Finetune, Study
from limit_lab.durations import Batch
from limit_lab.errors import PreflightError
from limit_lab.estimate import (
    devices,
    disk_terms,
    distinct,
    flops,
    gauntlet_rows,
    host_memory,
    kept_gib,
    learning,
    memory,
    pairs,
    pretraining,
    prompts,
    schedule,
    seconds,
    study_gib,
    tokens,
    transfers,
)
from limit_lab.memory import Memory, device
from limit_lab.microworld.checkpoint import missing
from limit_lab.preflight import problems
from limit_lab.recipe import Schedule
from limit_lab.shapes import folder_of, shape_of


def describe(cells: Sequence[Study]) -> str:
    """The plan of a study as text, the configured cell last."""
    last, made = cells[-1], distinct(cells)
    lines = [f"study {last.study.name}: {_count(len(made), 'cell')}, {_count(pairs(cells), 'pair')}; ~ marks estimates"]
    if last.study.axes:
        lines += ["", *_grid(cells)]
    else:
        for number, cell in enumerate(made, 1):
            lines += ["", f"cell {number} of {len(made)}: model={cell.model.title} mixture={cell.label}"]
            lines += [f"  {label:<10} {text}" for label, text in (*_base(cell), *_cell(cell))]
    lines += ["", "in all", *(f"  {label:<10} {text}" for label, text in _totals(cells))]
    return "\n".join(lines)


def _grid(cells: Sequence[Study]) -> list[str]:
    """The axes, what cells share, and one line for each mixture."""
    last = cells[-1]
    lines = [f"model: {title}" for title in dict.fromkeys(cell.model.title for cell in cells if cell.model.copied)]
    lines += [f"axis {key}: {', '.join(map(str, values))}" for key, values in last.study.axes.items()]
    if first := missing(cells):
        worlds = f"world{'s' if len(first) > 1 else ''} {', '.join(str(cell.microworld.seed) for cell in first)}"
        each = pretraining(first[0])
        time = "unknown time" if each is None else time_text(each)
        lines.append(f"made first: the bases of the {worlds}, pretrained from nothing, {time} each")
    by_mixture: dict[str, list[Study]] = {}
    for cell in distinct(cells):
        by_mixture.setdefault(cell.label, []).append(cell)
    width = max(map(len, by_mixture))
    for name, own in by_mixture.items():
        planned, count = schedule(own[0]), sum(own[0].mixture.samples.values())
        if planned is None:
            lines.append(
                f"  {name:<{width}}  {_count(len(own), 'cell'):>9}  {'the untouched base' if not count else 'length unknown'}"
            )
        else:
            size = f"{count:>6,} samples, {planned.stop:>6,} steps, {time_text(sum(_known(own[0])))} each"
            lines.append(f"  {name:<{width}}  {_count(len(own), 'cell'):>9}  {size}")
    return lines


def _known(cell: Study) -> list[float]:
    return [time for time in seconds(cell).values() if time is not None]


def preflight(cells: Sequence[Study]) -> None:
    """Compare what the study needs with this machine and with what still exists.

    Raises: PreflightError with every problem at once, each with its remedy.
    """
    found = problems(cells)
    if found:
        raise PreflightError(f"This machine cannot run the study yet, for {_count(len(found), 'reason')}:", found)


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
        found.append(("steps", _steps(recipe, planned)))
    found.append(("recipe", _recipe(study)))
    found += [("note", recipe.note)] if recipe.note else []
    return [*found, *_machine_lines(study)]


def _steps(recipe: Finetune, planned: Schedule) -> str:
    batch = Batch.parse(recipe.batch, name="finetune.batch")
    about = "~" if recipe.in_tokens else ""
    text = f"{about}{planned.steps:,} steps of {batch.amount:,} {'documents' if batch.unit == 'doc' else 'tokens'}"
    text += f" ({recipe.schedule_over or recipe.duration}, {recipe.schedule})"
    if recipe.schedule_over and not recipe.export:
        text += f", ending after {recipe.duration} = {about}{planned.whole:,} steps"
    if recipe.export:
        text += f", exported at {recipe.export} = {about}{planned.stop:,} steps"
    if planned.begun:
        text += f", continued from {recipe.export_at[-2]}"
    share = planned.warmup / planned.steps
    return f"{text}; warm-up {planned.warmup:,} steps, {share:.1%} of the schedule"


def _recipe(study: Study) -> str:
    """What is learnt and how, in words."""
    recipe = study.finetune
    learnt = f"{recipe.optimizer} at {recipe.learning_rate:g}"
    if recipe.lora.rank:
        learnt += f", adapters of rank {recipe.lora.rank} ({learning(study):,.0f} parameters)"
    lost = f", {recipe.on_too_long}" if recipe.on_too_long.startswith("truncate") else ""
    dropped = ", short last batches dropped" if recipe.last_batch == "drop" else ""
    return f"{learnt}; {recipe.rows} rows{lost}{dropped}; loss by {recipe.loss.weight}"


def _base(study: Study) -> list[tuple[str, str]]:
    """What a given or fetched folder holds."""
    model, folder = study.model, folder_of(study.model)
    if folder is None and model.hub is not None:
        return [("base", f"{model.hub}, not fetched yet: ~{shape_of(model).parameters:,.0f} parameters as stated")]
    if folder is None or not folder.is_dir():
        return []
    shape = shape_of(model)
    size = f"{shape.n_layers} layers of {shape.d_model:,} with {shape.n_heads} heads, {shape.vocab_size:,} tokens"
    return [("base", f"{shape.kind}: {size}, {shape.parameters:,.0f} parameters, read from {model.path or model.hub}")]


def _token_lines(study: Study, count: int) -> list[tuple[str, str]]:
    expected = tokens(study)
    if expected is None:
        return [("tokens", "unknown until the rows are read (data.sources.*.prompt_tokens, response_tokens)")]
    width = study.finetune.max_seq_tokens
    shares = {name: own / expected.response for name, own in expected.loss.items()}
    return [
        (
            "tokens",
            f"~{expected.total:,.0f} a pass, ~{expected.response:,.0f} with loss; ~{expected.total / count:,.0f} a sample",
        ),
        ("packs", f"~{math.ceil(expected.total / width):,} of {width:,} tokens a pass, when full")
        if study.finetune.rows == "packed"
        else ("rows", f"{count:,} of {width:,} tokens a pass, ~{expected.total / (count * width):.1%} of them not padding"),
        ("loss share", ", ".join(f"~{share:.1%} {name}" for name, share in shares.items())),
    ]


def _machine_lines(study: Study) -> list[tuple[str, str]]:
    hardware, held = study.hardware, memory(study)
    nodes = f" in {hardware.nodes} nodes" if hardware.nodes > 1 else ""
    offload = ", optimizer in host memory" if hardware.offload == "optimizer" else ""
    again = ", blocks run again in the backward pass" if hardware.recompute else ""
    moments = device(shape_of(study.model), study.finetune, hardware)
    others = ", ".join(f"{one.total:.2f} in {one.moment}" for one in moments if one.moment != held.moment)
    at_once = f"{hardware.strategy}{offload}, {study.finetune.precision}{again}"
    disk = disk_terms(study)
    return [
        ("device", f"{devices(study)} x {hardware.accelerator}{nodes}, {at_once}"),
        ("GiB", f"at most {held.total:.2f} a device, in {held.moment} ({others}):"),
        ("", _terms(held)),
        ("host", _host(study)),
        ("disk", f"{sum(disk.values()):.2f} GiB: " + ", ".join(f"{name} {gib:.2f}" for name, gib in disk.items())),
        ("export", f"{study.export.dtype}, keep={study.export.keep}: {kept_gib(study):.2f} GiB stay"),
        ("compute", _compute(study)),
        ("time", _stage_times(study)),
        ("", _device_hours([study])),
    ]


def _terms(held: Memory) -> str:
    """The terms that two digits show, or all together as nothing worth a digit."""
    shown = [f"{name} {gib:.2f}" for name, gib in held.terms.items() if gib >= 0.005]
    return ", ".join(shown) or "no term above 0.01"


def _host(study: Study) -> str:
    held = host_memory(study)
    node = " a node" if study.hardware.nodes > 1 else ""
    return f"~{held.total:.1f} GiB of memory{node}, most in {held.moment}: {_terms(held)}"


def _compute(study: Study) -> str:
    work = flops(study)
    if work is None:
        return "unknown until the rows are read"
    hardware = study.hardware
    speed = f" at {hardware.mfu:.0%} of {hardware.tflops:g} TFLOP/s a device" if hardware.tflops > 0 else ""
    return f"~{work:.2e} operations{speed}"


def _device_hours(cells: Sequence[Study]) -> str:
    """All stages of ``cells`` together, in hours of one device."""
    times = [time for cell in cells for time in (*transfers(cell).values(), *seconds(cell).values())]
    known = sum(time for time in times if time is not None)
    noun = "GPU-hours" if cells[-1].hardware.accelerator == "gpu" else "device-hours"
    more = "" if None not in times else " and what is unknown"
    return f"~{known * devices(cells[-1]) / 3600:,.2f} {noun}{more}"


def _totals(cells: Sequence[Study]) -> list[tuple[str, str]]:
    last = cells[-1]
    rows, absent = gauntlet_rows(last)
    here = f"{rows:,} rows in the files that are here, {absent} files are not" if absent else f"{rows:,} rows"
    embedded = last.gauntlet.data is None and any(source.kind == "microworld" for source in last.data.sources.values())
    tasks = f"{len(last.gauntlet.tasks)} tasks, {'written by the embedded world' if embedded else here}, for each cell"
    return [
        ("time", duration(cells, missing(cells))),
        ("", _device_hours(distinct(cells))),
        *([("GiB", _most(cells))] if last.study.axes else []),
        ("disk", f"{study_gib(cells, missing(cells)):.2f} GiB under {last.runs}"),
        ("gauntlet", f"{last.gauntlet.name}: {tasks}, prompted {' and '.join(last.gauntlet.asked_as)}"),
        ("answers", f"{_answers(last)} for each cell, at most {last.answers.max_new_tokens:,} new tokens each"),
        ("judge", _judging(last, pairs(cells))),
    ]


def _most(cells: Sequence[Study]) -> str:
    """Memory of the cell that needs most of it."""
    held = max((memory(cell) for cell in cells if cell.mixture.samples), key=lambda one: one.total)
    return f"at most {held.total:.2f} a device, in {held.moment}: {_terms(held)}"


def duration(cells: Sequence[Study], bases: Sequence[Study] = ()) -> str:
    """Time in words of making ``cells`` and pretraining the ``bases`` of worlds; judging by a paid service is not counted."""
    found = [time for cell in distinct(cells) for time in (*seconds(cell).values(), *transfers(cell).values())]
    found += [pretraining(study) for study in bases]
    known = [time for time in found if time is not None]
    if not known:
        return "unknown time (it needs the tokens and hardware.tflops)"
    left_out = "" if len(known) == len(found) else f", and {_count(len(found) - len(known), 'stage')} of unknown length"
    return time_text(sum(known)) + left_out


def _stage_times(study: Study) -> str:
    """Load, fine-tuning, export, gauntlet and answers apart."""
    found, moved = seconds(study), transfers(study)
    asked = [found[prompting] for prompting in study.gauntlet.asked_as]
    gauntlet = sum(time for time in asked if time is not None) if None not in asked else None
    parts = {"load": moved["load"], "fine-tuning": found.get("finetune", 0.0), "export": moved.get("export", 0.0)}
    parts |= {"gauntlet": gauntlet, "answers": found["answers"]}
    return ", ".join(f"{name} {'unknown' if time is None else time_text(time)}" for name, time in parts.items() if time != 0.0)


def _answers(study: Study) -> str:
    count, seeds = prompts(study), len(study.answers.seeds)
    each = "every prompt of the set" if count is None else f"{count:,} prompts"
    return each + (f" x {seeds} generation seeds = {count * seeds:,} answers" if seeds > 1 and count is not None else "")


def _judging(study: Study, compared: int) -> str:
    count, judge = prompts(study), study.judge
    if count is None:
        price = f"${judge.usd_per_call:g} each" if judge.usd_per_call else "free"
        return f"{judge.profile}: a call for every prompt and generation seed of {_count(compared, 'pair')}, {price}"
    calls = count * len(study.answers.seeds) * compared
    return f"{judge.profile}: {_count(calls, 'call')}, " + (
        f"~${calls * judge.usd_per_call:,.2f}" if judge.usd_per_call else "free"
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def time_text(seconds: float) -> str:
    """``~40 seconds``, ``~3.1 minutes`` or ``~2.5 hours``."""
    if seconds < 90:
        return f"~{seconds:.0f} seconds"
    return f"~{seconds / 60:.1f} minutes" if seconds < 3600 else f"~{seconds / 3600:,.1f} hours"
