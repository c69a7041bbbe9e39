"""One cell, stage by stage: mix, fine-tune, export, gauntlet, answer; its summary is written last."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limit_lab import evaluating, fine_tuning, handover, provenance, recipe, store, trainings
from limit_lab.config import NUMERICS, Export, Study
from limit_lab.errors import BusyError, DataError, LimitLabError
from limit_lab.evaluating import Evaluation
from limit_lab.fine_tuning import Places
from limit_lab.fingerprints import fingerprint, plain, stated
from limit_lab.layout import layout
from limit_lab.progress import Move, Stages
from limit_lab.prompt import template

if TYPE_CHECKING:
    from limit_lab.mixture.mix import Mixed

#: Where a cell's folder says why it failed.
FAILED = "failed.json"

#: Fields of a gauntlet that change no score.
BESIDE = ("data", "batch_tokens", "tokens", "raw_only", "whole", "whole_rows")

#: Starts a stage's progress.
Begin = Callable[[], Move]


def identity(study: Study) -> dict[str, Any]:
    """What a cell is: content hashes, mixture, prompt format, recipe and seeds. Devices, paths and display never count."""
    from limit_lab.mixture import sources
    from limit_lab.model.bases import base_folder, content

    seed = study.microworld.seed
    rounded = study.mixture.samples and study.export.dtype != Export().dtype
    return {
        "numerics": NUMERICS,
        "base": content(base_folder(study)),
        "samples": study.mixture.samples,
        "selection": study.mixture.selection,
        "sources": {name: sources.content(name, study.data, world_seed=seed) for name in study.mixture.samples},
        "prompt": template(study.prompt.format),
        "recipe": recipe.identity(study.finetune) if study.mixture.samples else None,
        "seeds": plain(study.seeds) if study.mixture.samples else None,
    } | ({"export": study.export.dtype} if rounded else {})


def folder_of(study: Study) -> Path:
    """The cell's folder, named by mixture, export and fingerprint; what is asked of the development part is kept apart."""
    name = study.label.replace(", ", "-")
    part = "-development" if study.model.embedded and study.microworld.part == "development" else ""
    return Path(study.runs) / "cells" / f"{name}-{fingerprint(identity(study))}{part}"


def asked(study: Study) -> dict[str, Any]:
    """What a cell is asked, as far as the configuration tells: the suite, the decoding and the part of the world."""
    suite = {key: value for key, value in stated(study.gauntlet).items() if key not in BESIDE}
    decoding = {key: value for key, value in plain(study.answers).items() if key not in ("name", "prompts", "batch")}
    return {"suite": suite, "decoding": decoding, "part": study.microworld.part}


def finished(study: Study) -> bool:
    """Whether the cell's summary is there and answers what is asked now; a damaged one is written again from the stages."""
    summary = folder_of(study) / "summary.json"
    if not summary.is_file():
        return False
    try:
        found = store.read_json(summary)
    except DataError:
        return False
    return isinstance(found, dict) and "identity" in found and found.get("asked") == fingerprint(asked(study))


def complete(study: Study) -> bool:
    """Whether the cell is finished and every stage that its summary tells of is there for what is asked now.

    Raises: DataError when a file that a stage wrote is gone or has another size.
    """
    if not finished(study):
        return False
    folder, mark = folder_of(study), {"cell": fingerprint(identity(study))}
    exported = store.done(folder / "export", mark) if study.mixture.samples else True
    return exported and not _waiting(study, folder, mark)


def settled(study: Study) -> bool:
    """Whether the cell is complete, and its weights pushed and removed where ``export`` says so. Raises: DataError."""
    return complete(study) and handover.settled(study, folder_of(study), {"cell": fingerprint(identity(study))})


def require_weights(study: Study) -> None:
    """Raises: DataError when weights that were not kept would be read by what is left to do."""
    folder, mark = folder_of(study), {"cell": fingerprint(identity(study))}
    if not (study.mixture.samples and handover.missing(folder)):
        return
    pushed = handover.settled(replace(study, export=replace(study.export, keep="export")), folder, mark)
    handover.require(folder, _waiting(study, folder, mark) + ([] if pushed else ["export.push"]))


def _waiting(study: Study, folder: Path, mark: Mapping[str, str]) -> list[str]:
    """What is asked of the cell's model and not done, in words. Raises: DataError when a file of it is gone."""
    asked_of = {
        f"gauntlet={study.gauntlet.name} ({prompting})": (
            folder / "gauntlet" / prompting,
            _gauntlet_inputs(study, mark, prompting),
        )
        for prompting in study.gauntlet.asked_as
    }
    asked_of["the answers"] = (folder / "answers", _answers_inputs(study, mark))
    return [name for name, (place, inputs) in asked_of.items() if not store.done(place, inputs)]


def hand_over(study: Study) -> Path:
    """The folder of the cell's weights, whole, and pushed where ``export.push`` says so; trains nothing.

    Raises: DataError when they are not there or damaged; ModelError when the Hub does not take them.
    """
    folder, mark = folder_of(study), {"cell": fingerprint(identity(study))}
    if study.mixture.samples:
        if not store.done(folder / "export", mark):
            raise DataError(f"{folder / 'export'} is not there yet: run the same command with do=study first.")
        handover.require(folder, ["do=export"])
        with store.locked(folder, wait=False):
            handover.push(study, folder, mark)
    return model_folder(study)


def model_folder(study: Study) -> Path:
    """The folder whose model the evaluations see: the export, or the base itself for mixture=none."""
    from limit_lab.model.bases import base_folder

    return folder_of(study) / "export" / "model" if study.mixture.samples else base_folder(study)


def ready(study: Study) -> None:
    """Read all that a cell will need before any cell is trained: its mixture, the gauntlet's rows, the open prompts.

    Raises: LimitLabError for what would otherwise stop the study hours later, a model too large to be evaluated too.
    """
    from limit_lab.gauntlet import tasks
    from limit_lab.mixture.mix import mix as mix_rows
    from limit_lab.model.bases import base_folder, gauntlet_data, open_prompts, tokenizer_of, verified

    if not finished(study):
        from limit_lab.model.loading import check_config

        check_config(base_folder(study))
        verified(study)
        layout(study)
        tokenizer = tokenizer_of(study)
        if study.mixture.samples:
            mix_rows(study, tokenizer)
    data = gauntlet_data(study)
    for task in tasks.require_files(study.gauntlet, study.gauntlet.tasks, data):
        tasks.read(task, data)
    open_prompts(study)


def key(number: int, study: Study, stage: str) -> str:
    """Names a stage in the study's progress."""
    return f"cell {number} {study.label}: {stage}"


def make(study: Study, number: int, of: int, progress: Stages, *, onward: bool = False) -> None:
    """Make one cell; an error is recorded in its folder before it goes on. ``onward``: a later export continues its training.

    Raises: BusyError when another process makes it; LimitLabError and its kinds.
    """
    folder = folder_of(study)
    try:
        _make(study, number, of, progress, onward)
    except BusyError:
        raise
    except LimitLabError as error:
        with contextlib.suppress(DataError):  # on a full disk the error itself matters more than its record
            store.write_json(folder / FAILED, {"error": str(error)})
        raise
    (folder / FAILED).unlink(missing_ok=True)


def _make(study: Study, number: int, of: int, progress: Stages, onward: bool) -> None:
    """Make cell ``number`` of ``of``, skipping the stages that are done."""
    from limit_lab.model.bases import verified

    folder = folder_of(study)
    with store.locked(folder, wait=False):
        require_weights(study)
        print(f"cell {number}/{of}  {folder.name}", flush=True)
        if not finished(study):  # an older summary would stand for records that are about to be replaced
            (folder / "summary.json").unlink(missing_ok=True)
        mark = {"cell": fingerprint(identity(study))}
        at = partial(key, number, study)
        trained: dict[str, Any] = {"card": _no_card(study), "finetune": None}
        if study.mixture.samples:
            trained = _trained(study, folder, mark, partial(progress.begin, at("finetune")), onward)
            progress.end(at("finetune"))
            if not onward:
                trainings.close(study, identity(study))
        gauntlet: dict[str, Any] = {"suite": study.gauntlet.name}
        for prompting in study.gauntlet.asked_as:
            gauntlet[prompting] = _gauntlet(study, folder, mark, prompting, partial(progress.begin, at(prompting)))
            progress.end(at(prompting))
        answers = _answers(study, folder, mark, partial(progress.begin, at("answers")))
        progress.end(at("answers"))
        summary = {
            "schema": store.SCHEMA,
            "kind": "cell",
            "id": folder.name,
            "fingerprint": mark["cell"],
            "identity": identity(study),
            "label": study.mixture.name,
            "model": study.model.title,
            "verified": verified(study),
            "samples": study.mixture.samples,
            "seeds": study.seeds,
            "asked": fingerprint(asked(study)),
            "command": command(),
            "config": stated(study),
            **trained,
            "gauntlet": gauntlet,
            "answers": answers,
            "provenance": provenance.collect(),
        }
        store.write_json(folder / "summary.json", summary)
        handover.settle(study, folder, mark)


def _no_card(study: Study) -> dict[str, Any]:
    return {"documents": 0, "tokens": 0, "target_tokens": 0, "sources": {}, "prompt_format": study.prompt.format}


def _trained(study: Study, folder: Path, mark: Mapping[str, str], begin: Begin, onward: bool) -> dict[str, Any]:
    """Mix, fine-tune and export, each as a stage; the export is what makes the training count."""
    if store.done(folder / "export", mark):
        outputs: dict[str, Any] = store.read_json(folder / "export" / "manifest.json")["outputs"]
        return outputs
    from limit_lab.mixture.mix import mix as mix_rows
    from limit_lab.model.bases import tokenizer_of

    tokenizer = tokenizer_of(study)
    mixed = mix_rows(study, tokenizer)
    beside = {**handover.texts(study, tokenizer), "README.md": _readme(study, mixed.card, mark)}

    def work(place: Path) -> dict[str, Any]:
        return _finetune(study, mixed, beside, folder, mark, place, begin(), onward)

    return store.stage(folder / "export", mark, work)


def _finetune(
    study: Study,
    mixed: Mixed,
    beside: Mapping[str, str],
    folder: Path,
    mark: Mapping[str, str],
    place: Path,
    move: Move,
    onward: bool,
) -> dict[str, Any]:
    how, staying = study.finetune, study.export.keep == "all"

    def work(own: Path) -> dict[str, Any]:
        from limit_lab.finetune import checkpoint

        print(
            f"  finetune: {mixed.card['documents']:,} documents, {mixed.card['tokens']:,} tokens, {how.export or how.duration}"
        )
        with trainings.opened(study, identity(study), own) as state:
            places = Places(state=state, export=place / "model", beside=beside, keep=onward or staying)
            outcome = fine_tuning.run(study, mixed, places, move)
        if not staying:
            checkpoint.remove(own)
        return outcome

    if not (place / "model").is_dir():  # a training whose export was deleted has to be done again
        (folder / "finetune" / "manifest.json").unlink(missing_ok=True)
    outcome = store.stage(folder / "finetune", mark, work)
    files = sorted((place / "model").glob("*.safetensors"))
    return {"card": mixed.card, "finetune": outcome, "weights": {file.name: store.sha256(file) for file in files}}


def _readme(study: Study, card: Mapping[str, Any], mark: Mapping[str, str]) -> str:
    """The model card of the export."""
    from limit_lab import model_card
    from limit_lab.model.bases import verified

    known = verified(study)
    return model_card.written(
        study, card, fingerprint=mark["cell"], verified=known, command=command(), provenance=provenance.collect()
    )


def _gauntlet(study: Study, folder: Path, mark: Mapping[str, str], prompting: str, begin: Begin) -> dict[str, Any]:
    def work(place: Path) -> dict[str, Any]:
        print(f"  gauntlet: {study.gauntlet.name}, {prompting}", flush=True)
        found = evaluating.run(study, _evaluation(study, folder, prompting, place), begin())
        for category, labels in found["removed"].items():
            print(f"  warning: {category} is in no average, because it has no result for {', '.join(labels)}", flush=True)
        return found

    return store.stage(folder / "gauntlet" / prompting, _gauntlet_inputs(study, mark, prompting), work)


def _evaluation(study: Study, folder: Path, prompting: str | None, place: Path) -> Evaluation:
    state = folder / "ranks" / (prompting or "answers")
    return Evaluation(prompting=prompting, model=model_folder(study), out=place, state=state)


def _gauntlet_inputs(study: Study, mark: Mapping[str, str], prompting: str) -> dict[str, Any]:
    from limit_lab.gauntlet.tasks import require_files
    from limit_lab.model.bases import gauntlet_data

    data, wanted = gauntlet_data(study), asked(study)
    suite = {key: value for key, value in wanted["suite"].items() if key != "shots"}  # the prompting tells them
    present = require_files(study.gauntlet, study.gauntlet.tasks, data)
    tasks = {task.label: store.sha256(data / task.file) for task in present}
    return {**mark, "suite": suite, "files": tasks, "prompting": prompting, "part": wanted["part"]}


def _answers(study: Study, folder: Path, mark: Mapping[str, str], begin: Begin) -> dict[str, Any]:
    from limit_lab.model.bases import open_prompts

    def work(place: Path) -> dict[str, Any]:
        print(f"  answers: {len(open_prompts(study))} prompts", flush=True)
        return evaluating.run(study, _evaluation(study, folder, None, place), begin())

    return store.stage(folder / "answers", _answers_inputs(study, mark), work)


def _answers_inputs(study: Study, mark: Mapping[str, str]) -> dict[str, Any]:
    from limit_lab.model.bases import open_prompts

    world = study.microworld
    if study.answers.prompts is None:
        prompts = _world_prompts(world.seed, world.part, study.answers.limit)
    else:
        prompts = fingerprint(open_prompts(study))
    return {**mark, "decoding": asked(study)["decoding"], "prompts": prompts}


@cache
def _world_prompts(seed: int, part: str, limit: int | None) -> str:
    """The fingerprint of what `open_prompts` gives for an embedded world."""
    from limit_lab.microworld import samples
    from limit_lab.microworld.world import World

    return fingerprint(samples.open_prompts(World(seed), part)[:limit])


def command() -> str:
    """The command line of this process, as a user would type it."""
    return shlex.join(["python", "-m", "limit_lab", *sys.argv[1:]])
