"""Everything that stands between this machine and a study, found without importing torch."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from limit_lab import estimate, hub, room, tracking
from limit_lab.config import Study
from limit_lab.durations import Batch
from limit_lab.errors import LimitLabError, did_you_mean
from limit_lab.fingerprints import fingerprint
from limit_lab.layout import layout
from limit_lab.microworld.checkpoint import missing
from limit_lab.mixture import sources
from limit_lab.model import bases, claims
from limit_lab.prompt import template
from limit_lab.recipe import Schedule, misfits
from limit_lab.shapes import folder_of, shape_of

#: The nodes of the configuration that decide whether a cell can be made here at all.
LOOKED_AT = ("data", "model", "prompt", "hardware", "gauntlet", "answers", "judge")


def problems(cells: Sequence[Study]) -> list[str]:
    """One entry per problem, each with its remedy."""
    alike: dict[str, list[Study]] = {}
    for cell in cells:
        alike.setdefault(fingerprint([getattr(cell, node) for node in LOOKED_AT]), []).append(cell)
    found = [problem for own in alike.values() for problem in _alike(own)]
    found += [*_sizes(cells), *_tracking(cells[-1]), *_runs(cells), *_steps(cells), *_asked_alike(cells[-1])]
    found += [*_lora(cells), *_launch(cells[-1]), *_push(cells)]
    return list(dict.fromkeys(found))


def _alike(cells: Sequence[Study]) -> list[str]:
    """What is wrong with cells that share model, data, devices and what they are asked."""
    last = cells[-1]
    found = [*([] if elsewhere(last) else _devices(last)), *_model(cells), *_data(cells), *_prompt(last), *_gauntlet(last)]
    return [*found, *_answers(last), *_judge(last)]


def elsewhere(study: Study) -> bool:
    """Whether the cells are made on machines that this one cannot look at."""
    launch = study.launch
    return (launch.kind == "slurm" and launch.executor == "slurm") or (launch.kind == "ray" and launch.address is not None)


def machine(study: Study) -> list[str]:
    """What is wrong with the machine on which the cell is made: too few devices, too little memory."""
    return [*_devices(study), *room.on_this_machine(study)]


def _launch(study: Study) -> Iterator[str]:
    launch = study.launch
    library = {"slurm": "submitit", "ray": "ray"}.get(launch.kind)
    if library is not None and importlib.util.find_spec(library) is None:
        yield f"launch={launch.name} needs {library}, which is not installed: pip install 'limit_lab[{launch.kind}]'."
    lacks_slurm = shutil.which("sbatch") is None or shutil.which("srun") is None
    if launch.kind == "slurm" and launch.executor == "slurm" and lacks_slurm:
        yield (
            f"launch={launch.name} submits with sbatch, which this machine does not have: run where Slurm is, or add "
            "launch.executor=local."
        )


def _sizes(cells: Sequence[Study]) -> Iterator[str]:
    """Memory and disk, if the models' sizes are known; `_model` says what is wrong where they are not."""
    made = estimate.distinct(cells)
    if not any(list(_refusal(partial(shape_of, cell.model))) for cell in made):
        for cell in made:
            yield from room.on_devices(cell)
            if not elsewhere(cell):
                yield from room.on_this_machine(cell)
            yield from _refusal(partial(layout, cell))
        yield from _disk(cells)


def gpus() -> int:
    """NVIDIA devices that this process may use: those of the driver or nvidia-smi, less what CUDA_VISIBLE_DEVICES hides."""
    driver = Path("/proc/driver/nvidia/gpus")
    count = len(list(driver.iterdir())) if driver.is_dir() else 0
    if smi := shutil.which("nvidia-smi"):
        listed = subprocess.run([smi, "-L"], capture_output=True, text=True, timeout=20, check=False)
        if listed.returncode == 0:
            count = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (
        count if visible is None else min(count, len([name for name in visible.split(",") if name.strip() not in ("", "-1")]))
    )


def _embedded(study: Study) -> bool:
    return any(source.kind == "microworld" for source in study.data.sources.values())


def _devices(study: Study) -> Iterator[str]:
    hardware = study.hardware
    if hardware.accelerator == "gpu" and (count := gpus()) < hardware.devices:
        have = "no NVIDIA GPU" if not count else f"{count} of them"
        yield (
            f"hardware={hardware.name} needs {hardware.devices} GPUs in each node and this machine has {have}: run where "
            "they are, or choose hardware=cpu or hardware=gpu with a model that fits."
        )
    if hardware.strategy.startswith("zero") and importlib.util.find_spec("deepspeed") is None:
        yield f"hardware.strategy={hardware.strategy} needs DeepSpeed, which is not installed: pip install deepspeed (Linux)."


def _steps(cells: Sequence[Study]) -> Iterator[str]:
    """Recipes that do not suit their mixture, and fine-tunings that end before every sample was read once."""
    for cell in estimate.distinct(cells):
        planned = estimate.schedule(cell)
        if planned is None:
            continue
        yield from misfits(cell.finetune, planned)
        if planned.stop < planned.epoch:
            yield _unread(cell, planned)


def _unread(cell: Study, planned: Schedule) -> str:
    recipe, count = cell.finetune, sum(cell.mixture.samples.values())
    ends = f"finetune.duration={recipe.duration}"
    if recipe.export is not None:
        ends = f"finetune.export_at={recipe.export}" + (f" with {ends}" if planned.whole < planned.epoch else "")
    batch = Batch.parse(recipe.batch, name="finetune.batch")
    read = f"of {batch.amount:,} documents reads {planned.stop * batch.amount:,}"
    if batch.unit == "tok":
        read = f"of {batch.amount:,} tokens reads ~{count * planned.stop // planned.epoch:,}"
    return (
        f"mixture {cell.mixture.name} holds {count:,} samples and {ends} {read}: use {planned.epoch:,}step or more, or a "
        "smaller mixture."
    )


def _lora(cells: Sequence[Study]) -> Iterator[str]:
    """Adapters without the library that makes them, or for layers that the model does not have."""
    for cell in estimate.distinct(cells):
        lora = cell.finetune.lora
        if not lora.rank or not cell.mixture.samples:
            continue
        if importlib.util.find_spec("peft") is None:
            yield f"finetune.lora.rank={lora.rank} needs peft, which is not installed: pip install peft, or use rank 0."
        if not lora.targets or list(_refusal(partial(shape_of, cell.model))):
            continue
        has = shape_of(cell.model).linear
        for name in lora.targets:
            if name not in has:
                yield f"finetune.lora.targets names {name!r}, no linear layer of {cell.model.name}{did_you_mean(name, has)}"


def _asked_alike(study: Study) -> Iterator[str]:
    for axis in study.study.axes:
        if axis.partition(".")[0] in ("gauntlet", "answers"):
            yield (
                f"the axis {axis} asks the same cell in several ways, and its folder holds one: run a study for each, with "
                f"study.name=... and runs=... of its own."
            )


def _model(cells: Sequence[Study]) -> Iterator[str]:
    study, model = cells[-1], cells[-1].model
    if model.path is None and model.hub is None and model.gone is not None:
        yield f"model={model.name}: {_sentence(model.gone)}"
    elif model.path is None:
        yield from _refusal(partial(shape_of, model))
    folder = folder_of(model)
    if folder is None and model.hub is not None and hub.offline():
        yield f"model.hub={model.hub} is not in the local cache, and HF_HUB_OFFLINE forbids to fetch it: {hub.REMEDY}."
    elif folder is not None and not folder.is_dir():
        yield f"model.path={model.path} is no folder here: pass the one with weights, config.json and tokenizer."
    elif folder is not None:
        yield from _folder(study, folder)
    elif model.embedded and not missing(cells):
        yield from _refusal(partial(bases.base_folder, study))
    if model.tokenizer is not None and not _needs_dir(study, model.tokenizer) and not Path(model.tokenizer).is_dir():
        yield f"model.tokenizer={model.tokenizer} is no folder here: pass the folder that holds tokenizer.json."


def _folder(study: Study, folder: Path) -> Iterator[str]:
    """What is wrong with the files of a model: damaged, not the model of that name, or its tokenizer another one's."""
    damaged = list(_refusal(partial(bases.check_folder, folder))) or list(_refusal(partial(shape_of, study.model)))
    damaged = damaged or list(_refusal(partial(claims.check, study.model, folder)))
    yield from damaged or _refusal(lambda: claims.check_tokenizer(folder, shape_of(study.model).vocab_size))


def _data(cells: Sequence[Study]) -> Iterator[str]:
    last, data = cells[-1], cells[-1].data
    wanted: dict[str, int] = {}
    for cell in cells:
        for name, count in cell.mixture.samples.items():
            wanted[name] = max(count, wanted.get(name, 0))
    relative = [name for name in wanted if (file := data.sources[name].file) and not Path(file).is_absolute()]
    made = {"tokenizer": last.model.tokenizer, "gauntlet": last.gauntlet.data, "prompts": last.answers.prompts}
    below = [*relative, *(f"the {name}" for name, path in made.items() if path and _needs_dir(last, path))]
    if data.dir is None and below:
        yield f"data.dir is not set, and {', '.join(below)} would be read from it: pass data.dir=/path/to/data."
    elif data.dir is not None and below and not Path(data.dir).is_dir():
        yield f"data.dir={data.dir} is no folder here: pass the one that holds {', '.join(below)}."
    for name, count in wanted.items():
        source = data.sources[name]
        given = f"data.sources.{name}.kind=file data.sources.{name}.file=/path/to/{name}.jsonl"
        if source.kind == "hub":
            yield f"the source {name} ({source.hub}) must be a local file: fetch it once and pass {given}."
        if source.kind == "hub" or (name in relative and not (data.dir and Path(data.dir).is_dir())):
            yield from _too_few(name, count, source.rows)
        elif source.kind == "file" and not (path := Path(data.dir or "") / (source.file or "")).is_file():
            yield f"the rows of the source {name} are not at {path}: correct data.dir or data.sources.{name}.file."
        else:
            try:
                yield from _too_few(name, count, sources.count(name, data))
            except LimitLabError as error:
                yield str(error)


def _too_few(name: str, count: int, known: int | None) -> Iterator[str]:
    if known is not None and count > known:
        has = f"{name}, which has {known:,} usable rows"
        yield f"a mixture takes {count:,} samples of {has}: lower mixture.samples.{name}."


def _prompt(study: Study) -> Iterator[str]:
    yield from _refusal(partial(template, study.prompt.format))


def _refusal(look: Callable[[], object]) -> Iterator[str]:
    """What ``look`` refuses, as a problem."""
    try:
        look()
    except LimitLabError as error:
        yield str(error)


def _gauntlet(study: Study) -> Iterator[str]:
    suite = study.gauntlet
    if suite.data is None:
        if not _embedded(study):
            yield f"gauntlet={suite.name} has no folder of task files: pass gauntlet.data=/path/to/gauntlet."
        return
    if _needs_dir(study, suite.data):
        return
    absent = [task.file for task in suite.tasks if not (Path(suite.data) / task.file).is_file()]
    if absent and (suite.compat != "strict" or len(absent) == len(suite.tasks)):
        shown = ", ".join(absent[:4]) + (", ..." if len(absent) > 4 else "")
        yield (
            f"{len(absent)} of the {len(suite.tasks)} task files of gauntlet={suite.name} are not under {suite.data} "
            f"({shown}): pass gauntlet.data=/path/to/gauntlet, or choose a suite whose files are at hand."
        )
    from limit_lab.gauntlet import tasks

    for task in suite.tasks:
        if task.file not in absent:
            yield from _refusal(partial(tasks.read, task, Path(suite.data)))


def _answers(study: Study) -> Iterator[str]:
    path = study.answers.prompts
    if path is None and not _embedded(study):
        yield f"answers={study.answers.name} has no prompts: pass answers.prompts=/path/to/prompts.jsonl."
    if path is not None and not _needs_dir(study, path) and not Path(path).is_file():
        yield f"answers.prompts={path} is no file here: pass a jsonl of prompts."
    elif path is not None and not _needs_dir(study, path):
        yield from _refusal(partial(bases.open_prompts, study))


def _judge(study: Study) -> Iterator[str]:
    if study.judge.gone is not None:
        yield f"judge={study.judge.name}: {_sentence(study.judge.gone)}"
    if study.judge.profile == "ground_truth" and not _embedded(study):
        yield "judge=ground_truth knows the facts of the embedded world only: choose another with judge=<option>."


def _tracking(study: Study) -> Iterator[str]:
    if study.tracking.kind == "wandb":
        if importlib.util.find_spec("wandb") is None:
            yield "tracking=wandb needs wandb, which is not installed: pip install wandb, or use tracking=none."
        yield from _refusal(partial(tracking.connect, study.tracking, Path(study.runs)))


def _push(cells: Sequence[Study]) -> Iterator[str]:
    pushed = [cell.export.push for cell in estimate.distinct(cells) if cell.mixture.samples and cell.export.push is not None]
    for name in dict.fromkeys(pushed):
        if (count := pushed.count(name)) > 1 and "*" not in name:
            yield f"export.push={name} would take {count} cells, each over the one before: write {name}-* (* is the cell's id)."
        if (reason := hub.refusal()) is not None:
            yield f"export.push={name}: {reason}"


def _runs(cells: Sequence[Study]) -> Iterator[str]:
    place = _existing(cells[-1])
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        yield f"runs={cells[-1].runs} cannot be written ({place} refuses): pass another folder with runs=..."


def _disk(cells: Sequence[Study]) -> Iterator[str]:
    place = _existing(cells[-1])
    need, free = estimate.study_gib(cells, missing(cells)), shutil.disk_usage(place).free / estimate.GIB
    if need > free:
        terms = estimate.disk_terms(max(cells, key=estimate.disk_gib))
        most = max(terms, key=lambda name: terms[name], default="bases")
        each = f", {_size(terms[most])} of a cell being its {most}" if terms else ""
        yield (
            f"the study writes up to {_size(need)}{each}, and {place} has {_size(free)} free: free some, pass another folder "
            "with runs=..., or take adapters (finetune.lora.rank=16), whose checkpoints are small."
        )


def _existing(study: Study) -> Path:
    """The runs folder, or the nearest folder above it that exists."""
    runs = Path(study.runs).absolute()
    return next(parent for parent in (runs, *runs.parents) if parent.exists())


def _size(gib: float) -> str:
    return f"{gib:,.1f} GiB" if gib >= 1 else f"{gib * 1024:,.1f} MiB"


def _needs_dir(study: Study, path: str) -> bool:
    """Whether ``path`` was made from data.dir while that is not set or no folder, which is reported once, by itself."""
    folder = study.data.dir
    return path.startswith("None/") if folder is None else path.startswith(f"{folder}/") and not Path(folder).is_dir()


def _sentence(text: str) -> str:
    return text.strip().rstrip(".") + "."
