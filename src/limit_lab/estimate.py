"""The arithmetic of a study: steps, tokens, memory, time, disk and calls, from the composed cells alone.

Exact but for what rests on published or assumed means (token counts, hours); the plan marks those with ``~``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from limit_lab.config import Study
from limit_lab.couples import couples
from limit_lab.durations import Batch
from limit_lab.fingerprints import fingerprint, plain
from limit_lab.memory import GIB as GIB
from limit_lab.memory import Memory, host, learnt, moments, peak
from limit_lab.operations import counted
from limit_lab.recipe import Schedule, in_steps
from limit_lab.shapes import shape_of
from limit_lab.suite import asked

#: Share of the assumed speed that one-token-at-a-time decoding reaches.
DECODING = 0.1
#: Assumed: what a disk reads and writes in a second, and the bytes that a token stands for in a file of questions.
DISK_GIB_A_SECOND, BYTES_A_TOKEN = 1.0, 4
#: Nodes of the configuration that make no cell another one.
AROUND = ("do", "runs", "debug", "hardware", "judge", "tracking", "launch", "study", "plan", "report")


@dataclass(frozen=True, slots=True)
class Tokens:
    """Expected tokens of one pass over a mixture, from the means of its sources."""

    prompt: float
    response: float
    square_sum: float  # sum over documents of the squared mean length, for the attention term
    loss: Mapping[str, float]  # response tokens of every source

    @property
    def total(self) -> float:
        return self.prompt + self.response


def distinct(cells: Sequence[Study]) -> list[Study]:
    """The cells that are made: each once however many points of the grid it stands at, so the untouched base once a world."""
    seen: dict[str, Study] = {}
    for study in cells:
        values = {name: node for name, node in plain(study).items() if name not in AROUND}
        values["export"] = study.export.dtype if study.mixture.samples else None
        if not study.mixture.samples:
            values |= {"finetune": None, "seeds": None}
        seen.setdefault(fingerprint(values), study)
    return list(seen.values())


def tokens(study: Study) -> Tokens | None:
    """Tokens of one pass, or None when a source's means are unknown until its rows are read.

    A mean beyond ``finetune.max_seq_tokens`` is cut there; single long documents below the mean's reach are not.
    """
    prompt = squares = 0.0
    loss: dict[str, float] = {}
    for name, count in study.mixture.samples.items():
        source = study.data.sources[name]
        if source.prompt_tokens is None or source.response_tokens is None:
            return None
        asked = min(source.prompt_tokens, study.finetune.max_seq_tokens)
        answered = min(source.response_tokens, study.finetune.max_seq_tokens - asked)
        prompt += count * asked
        loss[name] = count * answered
        squares += count * (asked + answered) ** 2
    return Tokens(prompt=prompt, response=sum(loss.values()), square_sum=squares, loss=loss)


def schedule(study: Study) -> Schedule | None:
    """None for the untouched base, or when a recipe in tokens meets sources of unknown length."""
    count, expected = sum(study.mixture.samples.values()), tokens(study)
    if not count or (expected is None and study.finetune.in_tokens):
        return None
    return in_steps(study.finetune, count, expected.total if expected else 0.0)


def memory(study: Study) -> Memory:
    """GiB of a device when it holds most, by term."""
    return peak(shape_of(study.model), study.finetune, study.hardware)


def learning(study: Study) -> float:
    """Parameters that are trained."""
    return learnt(shape_of(study.model), study.finetune)


def flops(study: Study) -> float | None:
    """Floating-point operations of fine-tuning from the export before to this cell's, attention inside documents only.

    A pass costs what `operations.counted` says; a padded row costs what a document of its length does.
    """
    expected, planned = tokens(study), schedule(study)
    if expected is None or planned is None:
        return None
    model, recipe, count = shape_of(study.model), study.finetune, sum(study.mixture.samples.values())
    read, squares = expected.total, expected.square_sum
    if recipe.rows == "padded":
        read, squares = count * recipe.max_seq_tokens, count * recipe.max_seq_tokens**2
    batch = Batch.parse(recipe.batch, name="finetune.batch")
    of = count if batch.unit == "doc" else expected.total
    passes = (planned.stop - planned.begun) * batch.amount / of
    return counted(model, read, expected.response, squares, adapters=bool(recipe.lora.rank)) * passes


def hours(study: Study) -> float | None:
    """Fine-tuning hours: FLOPs / (peak x assumed share x devices); None when the peak or the tokens are unknown.

    Blocks that are run again in the backward pass take a third more, which the assumed share does not count.
    """
    work, hardware = flops(study), study.hardware
    if work is None or hardware.tflops <= 0:
        return None
    again = 4 / 3 if hardware.recompute else 1.0
    return again * work / (_rate(study) * devices(study)) / 3600


def seconds(study: Study) -> dict[str, float | None]:
    """Expected seconds of each stage of a cell: ``finetune`` (if anything is), each prompting, ``answers``.

    Evaluation reads the tokens of the gauntlet and writes at most ``answers.max_new_tokens`` for every prompt, the work shared
    by all devices; 2 operations a weight and token. None where neither the configuration nor the files can tell.
    """
    model, rate = shape_of(study.model), _rate(study) * devices(study)
    found: dict[str, float | None] = {}
    if study.mixture.samples:
        trained = hours(study)
        found["finetune"] = None if trained is None else 3600 * trained
    for prompting in study.gauntlet.asked_as:
        read = gauntlet_tokens(study, prompting)
        found[prompting] = 2 * model.body * read / rate if read and rate else None
    count = prompts(study)
    if count is None or not rate:
        return {**found, "answers": None}
    written = count * len(study.answers.seeds) * study.answers.max_new_tokens
    return {**found, "answers": 2 * model.parameters * written / (rate * DECODING)}


def transfers(study: Study) -> dict[str, float]:
    """Expected seconds of reading the weights (published ones take 2 bytes each), and of writing and checking the export."""
    every = shape_of(study.model).parameters / GIB / DISK_GIB_A_SECOND
    return (
        {"load": 2 * every, "export": 2 * study.export.parameter_bytes * every}
        if study.mixture.samples
        else {"load": 2 * every}
    )


def devices(study: Study) -> int:
    """Devices of all nodes."""
    return study.hardware.ranks


def pretraining(study: Study) -> float | None:
    """Expected seconds of pretraining an embedded world's base, 6 operations a weight and token; None without a speed."""
    rate = _rate(study)
    return 6 * shape_of(study.model).parameters * study.microworld.pretrain_tokens / rate if rate else None


def _rate(study: Study) -> float:
    """Operations a second of one device."""
    return study.hardware.tflops * 1e12 * study.hardware.mfu


def disk_terms(study: Study) -> dict[str, float]:
    """GiB of disk of one cell at its fullest: two resume checkpoints (the last, one being written) and the exported weights."""
    if not study.mixture.samples:
        return {}
    return {"two checkpoints": 2 * _checkpoint_gib(study), "export": _exported_gib(study)}


def disk_gib(study: Study) -> float:
    """Disk of one cell at its fullest."""
    return sum(disk_terms(study).values())


def kept_gib(study: Study) -> float:
    """Disk of one cell once it is evaluated, by ``export.keep``: no weights, those exported, or the last checkpoint too."""
    if not study.mixture.samples or study.export.keep == "records":
        return 0.0
    return _exported_gib(study) + (_checkpoint_gib(study) if study.export.keep == "all" else 0.0)


def _exported_gib(study: Study) -> float:
    return study.export.parameter_bytes * shape_of(study.model).parameters / GIB


def _checkpoint_gib(study: Study) -> float:
    """Weights, master weights and moments of what is learnt; with LoRA a checkpoint holds the adapters only."""
    weights = 6.0 if study.hardware.zero_stage else 4.0  # bf16 with float32 master weights, or float32
    held = learning(study) if study.finetune.lora.rank else shape_of(study.model).parameters
    return (weights + moments(study.finetune)) * held / GIB


def study_gib(cells: Sequence[Study], bases: Sequence[Study] = ()) -> float:
    """Disk of a study at its fullest: what the worlds' ``bases`` and all cells keep, and what those need more that are made
    at the same time (``hardware.cells``; all of them where that is null).
    """
    made, cells = sum((2 * 12.0 + 2.0) * shape_of(study.model).parameters / GIB for study in bases), distinct(cells)
    passing = sorted((disk_gib(cell) - kept_gib(cell) for cell in cells), reverse=True)
    return made + sum(map(kept_gib, cells)) + sum(passing[: cells[-1].hardware.cells or len(cells)])


def host_memory(study: Study) -> Memory:
    """GiB of a node's host memory when it holds most, by term; the untouched base is only loaded."""
    found = host(shape_of(study.model), study.finetune, study.hardware)
    return max(found, key=lambda held: held.total) if study.mixture.samples else found[0]


def prompts(study: Study) -> int | None:
    """Prompts that each cell answers, as far as the configuration or the prompt file tells."""
    found = rows(Path(study.answers.prompts)) if study.answers.prompts else None
    limit = study.answers.limit
    return limit if found is None else min(found, limit or found)


def gauntlet_rows(study: Study) -> tuple[int, int]:
    """Rows of the task files that are here (``rows`` limits counted), and the number of files that are not."""
    here = absent = 0
    for task in study.gauntlet.tasks:
        found = rows(Path(study.gauntlet.data) / task.file) if study.gauntlet.data else None
        if found is None:
            absent += 1
        else:
            here += min(found, task.rows or found)
    return here, absent


def gauntlet_tokens(study: Study, prompting: str) -> float | None:
    """Tokens that a model reads: as counted, else from the sizes of the task files; None while a file is not here.

    A row in its file stands for its question with all choices, which share their context, and each shot for another.
    """
    suite = study.gauntlet
    if prompting in suite.tokens or suite.data is None:
        return suite.tokens.get(prompting)
    total = 0.0
    for task in asked(suite, prompting):
        path = Path(suite.data) / task.file
        found = rows(path)
        if not found:
            return None
        each = path.stat().st_size / found / BYTES_A_TOKEN
        shown = 0 if prompting == "template" else task.shots
        total += min(found, task.rows or found) * min(each * (shown + 1), suite.max_seq_tokens)
    return total


def pairs(cells: Sequence[Study]) -> int:
    """Comparisons of the study (the untouched base of a world counts once against every other cell)."""
    return len({tuple(_cell(one) for one in couple) for couple in couples(cells)})


def _cell(study: Study) -> str:
    """A cell by its configuration: the untouched base has no seeds."""
    return fingerprint({**plain(study), "seeds": study.seeds if study.mixture.samples else None})


def rows(path: Path) -> int | None:
    """Lines of a jsonl file that are not blank, or None when there is no such file."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())
