"""do=harness: lm-evaluation-harness as a second suite. Prompts and scores are its own, and enter no average of ours.

It asks through its own model class (``HFLM``) on transformers' network, in float32, so that its numbers are those that other
people get from it. Each task is a stage below the cell's ``harness``: its manifest, one row per metric, and its items.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any

from limit_lab import cell, handover, provenance, store
from limit_lab.config import Harness, Study
from limit_lab.errors import ConfigError, DataError, EvalError, ModelError, did_you_mean
from limit_lab.fingerprints import fingerprint
from limit_lab.layout import layout

#: Resamples behind the standard error of a metric that is no mean.
RESAMPLES = 1000

#: The seeds that lm-evaluation-harness starts from unless it is told others: of Python, and of all else.
SEEDS = (0, 1234)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One task, group or tag as lm-evaluation-harness loads it, with the fingerprint of its definition and rows."""

    name: str
    loaded: Mapping[str, Any]
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One model that is asked: its folder, where its records go, and what they are of."""

    name: str
    model: Path
    records: Path
    mark: Mapping[str, str]


def run(cells: list[Study]) -> None:
    """Ask every cell's model, or the one in ``harness.path``, the tasks of ``harness.tasks``; prints each result.

    Raises: ConfigError without tasks or without lm-eval; DataError for a study of which nothing is made; EvalError for a task
    that cannot be loaded; ModelError for a folder that holds no causal language model. All before a model is loaded.
    """
    study = cells[-1]
    if not study.harness.tasks:
        raise ConfigError("do=harness has nothing to ask: name tasks of lm-evaluation-harness, as in harness.tasks=[piqa].")
    places = _cells(cells) if study.harness.path is None else [_folder(study, Path(study.harness.path))]
    tasks = load(study.harness)
    for place in places:
        with store.locked(place.records, wait=False):
            _ask(study, place, tasks)


def _cells(cells: Sequence[Study]) -> list[Place]:
    """The models of the cells that are made. Raises: DataError when none is, or a model's weights were not kept."""
    found = {}
    for study in cells:
        folder = cell.folder_of(study)
        if not (folder / "summary.json").is_file():
            print(f"{folder.name} is not made yet and is left out: do=study makes it.")
            continue
        handover.require(folder, ["do=harness"])
        mark = {"cell": fingerprint(cell.identity(study))}
        found[folder] = Place(name=folder.name, model=cell.model_folder(study), records=folder / "harness", mark=mark)
    if not found:
        name, runs = cells[-1].study.name, cells[-1].runs
        raise DataError(f"no cell of the study {name} is made under {runs}: run the same command with do=study first.")
    return list(found.values())


def _folder(study: Study, folder: Path) -> Place:
    from limit_lab.model.bases import content

    if not folder.is_dir():
        raise ModelError(f"harness.path={folder} is no folder: pass one that holds config.json, tokenizer.json and weights.")
    mark = {"model": fingerprint(content(folder))}
    records = Path(study.runs) / "harness" / f"{folder.resolve().name}-{mark['model']}"
    return Place(name=str(folder), model=folder, records=records, mark=mark)


def load(harness: Harness) -> list[Asked]:
    """The tasks with their rows.

    Raises: ConfigError without lm-eval and for an unknown task; EvalError for one that cannot be loaded or asked so.
    """
    manager = _manager(harness)
    require(harness.tasks, manager.all_tasks)
    found = []
    for name in harness.tasks:
        try:
            loaded = manager.load([name])
        except Exception as error:  # data sets, the Hub's client and files of tasks each raise their own
            reason = " ".join(str(error).split())[:300].rstrip(".")
            raise EvalError(
                f"lm-evaluation-harness cannot load {name!r} ({reason}): run it once with a network, without "
                "HF_HUB_OFFLINE=1, which fills the local cache, or correct the task where it is one of your own."
            ) from error
        for task in loaded["tasks"].values():
            _set(task, harness)
        found.append(Asked(name=name, loaded=loaded, content=_content(loaded["tasks"], with_shots=harness.shots != 0)))
    return found


def require(names: Sequence[str], known: Sequence[str]) -> None:
    """Raises: ConfigError for the first name that is no task, group or tag."""
    for name in names:
        if name not in known:
            raise ConfigError(
                f"harness.tasks names {name!r}, which lm-evaluation-harness does not have{did_you_mean(name, known)}"
            )


def _manager(harness: Harness) -> Any:
    """The index of tasks; that of all its own takes about a minute, and is left out where ``include`` holds every one asked."""
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise ConfigError(f"do=harness needs lm-evaluation-harness ({error}): pip install 'limit-lab[lm-eval]'.") from error
    if harness.include is not None:
        if not Path(harness.include).is_dir():
            raise ConfigError(f"harness.include={harness.include} is no folder: pass the one with your task files (YAML).")
        own = TaskManager(include_path=harness.include, include_defaults=False)
        if set(harness.tasks) <= set(own.all_subtasks):
            return own
    print("reading the list of tasks of lm-evaluation-harness (about a minute)", flush=True)
    return TaskManager(include_path=harness.include)


def _set(task: Any, harness: Harness) -> None:
    """The number of shots and their seed, as ``lm_eval.simple_evaluate`` sets them."""
    own = task.get_config("num_fewshot")
    if own == 0 and harness.shots:
        raise EvalError(f"{task.task_name} is asked without shots by its own definition: leave out harness.shots for it.")
    if task.get_config("unsafe_code"):
        raise EvalError(f"{task.task_name} runs the code that a model writes, which this does not: leave it out.")
    task.set_config(key="num_fewshot", value=harness.shots if harness.shots is not None else own or 0)
    task.set_fewshot_seed(seed=SEEDS[1])


def _content(tasks: Mapping[str, Any], *, with_shots: bool) -> str:
    """Definitions and rows of tasks; where a file lies never counts, what it says does."""
    found = {}
    for name, task in tasks.items():
        config = {key: value for key, value in task.dump_config().items() if key not in ("metadata", "dataset_kwargs")}
        rows = [task.eval_docs, task.fewshot_docs() if with_shots and task.get_config("num_fewshot") else []]
        found[name] = [repr(config), str(task.VERSION), *(fingerprint([repr(row) for row in part]) for part in rows)]
    return fingerprint(found)


def _ask(study: Study, place: Place, tasks: Sequence[Asked]) -> None:
    how = study.harness
    suffix = ("" if how.shots is None else f"-{how.shots}shot") + ("" if how.limit is None else f"-first{how.limit}")
    model = cache(lambda: _model(study, place.model))
    for asked in tasks:
        name = asked.name.replace("/", "-") + suffix
        record = {"lm_eval": metadata.version("lm-eval"), "name": name, "shots": how.shots, "limit": how.limit}
        work = partial(_record, place, asked, record, model)
        rows = store.stage(place.records / name, {**place.mark, **record, "content": asked.content}, work)["rows"]
        for row in rows:
            print(f"{place.name}: {told(row)}", flush=True)


def _record(
    place: Place, asked: Asked, record: Mapping[str, Any], model: Callable[[], Any], folder: Path
) -> dict[str, list[dict[str, Any]]]:
    """Ask one task and write it down, the items first."""
    print(f"  harness: {record['name']}, {place.name}", flush=True)
    rows, items = _evaluate(model(), asked, record["limit"])
    for task, own in items.items():
        store.write_rows(folder / "items" / f"{task.replace('/', '-')}.jsonl", own)
    head = {"schema": store.SCHEMA, "kind": "harness", **place.mark, **record}
    store.write_json(folder / "results.json", {**head, "rows": rows, "provenance": provenance.collect()})
    return {"rows": rows}


def told(row: Mapping[str, Any]) -> str:
    """One result in words."""
    error = "" if row["stderr"] is None else f" ± {row['stderr']:.2g}"
    return f"{row['task']}, {row['shots']} shots, {row['metric']} {row['value']:.4g}{error} (n = {row['n']:,})"


def _model(study: Study, folder: Path) -> Any:
    """The folder's model as lm-evaluation-harness' own class, with the tokenizer that the gauntlet has. Raises: ModelError."""
    from lm_eval.models.huggingface import HFLM

    from limit_lab.model.loading import check_config, load_tokenizer

    check_config(folder)
    on_gpu = study.hardware.accelerator == "gpu"
    try:
        return HFLM(
            pretrained=str(folder),
            tokenizer=load_tokenizer(folder),
            device="cuda" if on_gpu else "cpu",
            dtype="float32",
            batch_size=study.harness.batch,
            parallelize=on_gpu and layout(study).devices > 1,
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ModelError(f"{folder} cannot be loaded by transformers ({reason}): export or download it again.") from error


def _evaluate(model: Any, asked: Asked, limit: int | None) -> tuple[list[dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """One row per metric, and by task the items. Raises: EvalError when a score is not a number."""
    import lm_eval
    import numpy
    import torch

    random.seed(SEEDS[0])
    numpy.random.seed(SEEDS[1])
    torch.manual_seed(SEEDS[1])
    found = lm_eval.evaluate(lm=model, task_dict=asked.loaded, limit=limit, bootstrap_iters=RESAMPLES, log_samples=True)
    for task, own in found["samples"].items():
        if any(isinstance(said, tuple) and math.isnan(said[0]) for row in own for said in row["filtered_resps"]):
            raise EvalError(
                f"{task}: the model gives losses that are not numbers (NaN), so it has no score: check its weights."
            )
    return list(_rows(found)), {task: [_item(row) for row in own] for task, own in found["samples"].items()}


def _rows(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The metrics of groups where lm-evaluation-harness states any (their tasks stand in the items), else of every task."""
    for task, scores in (found.get("groups") or found["results"]).items():
        for key, value in scores.items():
            metric, _, pipeline = key.partition(",")
            if pipeline and not metric.endswith("_stderr"):
                error = scores.get(f"{metric}_stderr,{pipeline}")
                yield {
                    "task": task,
                    "version": str(found["versions"].get(task, "not stated")),
                    "shots": found["n-shot"].get(task, 0),
                    "metric": metric if pipeline == "none" else f"{metric} ({pipeline})",
                    "n": scores["sample_len"],
                    "value": float(value),
                    "stderr": float(error) if isinstance(error, int | float) else None,
                }


def _item(row: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of an item: hashes of what was asked, what the model made of it, and its metrics."""
    kept = ("doc_id", "doc_hash", "prompt_hash", "target", "filter", "filtered_resps", *row["metrics"])
    return {key: row[key] if isinstance(row[key], int | float | str | list | tuple) else str(row[key]) for key in kept}
