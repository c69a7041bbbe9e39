"""One evaluation: every task of a suite asked in one prompting mode, its records written as soon as it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limit_lab import store
from limit_lab.config import NUMERICS, Gauntlet, Task
from limit_lab.errors import EvalError
from limit_lab.fingerprints import fingerprint, stated
from limit_lab.gauntlet import files
from limit_lab.gauntlet.aggregate import composite, task_result
from limit_lab.gauntlet.clusters import clusters
from limit_lab.gauntlet.prompts import Prompt, raw_prompts, template_prompts
from limit_lab.gauntlet.results import Results
from limit_lab.gauntlet.sequences import prefix_space, scorables
from limit_lab.gauntlet.tasks import Row, asked, parts, read, require_files, strip
from limit_lab.gauntlet.tokenised import tokenised
from limit_lab.model.team import ALONE, Team
from limit_lab.prompt import Tokenizer

if TYPE_CHECKING:
    from limit_lab.model.causal import CausalLM

Progress = Callable[[str, int, int], None]


def evaluate(
    model: CausalLM,
    tokenizer: Tokenizer,
    suite: Gauntlet,
    data: Path,
    out: Path,
    *,
    prompting: str,
    prompt_format: str,
    progress: Progress | None = None,
    team: Team = ALONE,
    prompts: Path | None = None,
) -> dict[str, Any]:
    """Score ``model`` on the tasks of ``suite`` whose files lie under ``data``; return scores, categories and average.

    ``prompting``: ``raw`` shows ``task.shots`` examples as llm-foundry does, ``raw_0_shot`` none; ``template`` puts the bare
    question into the instruction template ``prompt_format``. Records go to ``out/items/<label>.jsonl``; a task whose
    records were written for the same task, data and prompting is not asked again, so ``out`` must belong to one model.
    ``progress`` gets a label with the sequences done and to do, and when a task is finished its rows as both. Every process
    of ``team`` calls this for the same model, and gets the same; the first one reads and writes the records. ``prompts`` is a
    folder that keeps prompts as ids of this one tokenizer, for the next model that is asked the same.

    Raises: EvalError when a task has no data or cannot be scored; DataError for a malformed row.
    """
    tasks = require_files(suite, asked(suite, prompting), data)
    written = [task.label for task in tasks if task.type == "generation"]
    if written and tokenizer.eos_token_id is None:
        raise EvalError(f"the tokenizer has no eos token, with which an answer of {written[0]} would end: set its eos_token.")
    results: dict[str, dict[str, Any]] = {}
    for task in tasks:
        inputs = _inputs(suite, task, data, prompting, prompt_format)
        under_way = Results(file=out / "items" / f".{task.label}.partial", inputs=inputs)
        ask = partial(_ask, model, tokenizer, suite, task, data, prompting, prompt_format, progress, team, under_way, prompts)
        records = _once(team, out / "items", task, inputs, ask)
        if team.first:
            under_way.file.unlink(missing_ok=True)
        if progress is not None:
            progress(task.label, len(records), len(records))
        results[task.label] = task_result(task, records, prompting=prompting, data=files.stated(data, task.file))
    return {"prompting": prompting, "tasks": results, **composite(suite, results, prompting=prompting)}


def _inputs(suite: Gauntlet, task: Task, data: Path, prompting: str, prompt_format: str) -> dict[str, Any]:
    """Everything but the model that decides a task's records; batching is outside."""
    return {
        "task": stated(task),
        "data": store.sha256(data / task.file),
        "max_seq_tokens": suite.max_seq_tokens,
        "prompting": prompting,
        "prompt_format": prompt_format if prompting == "template" else None,
    }


def _once(
    team: Team, folder: Path, task: Task, inputs: Mapping[str, Any], ask: Callable[[], list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """The task's records, from disk if they are there for the same inputs. The mark is removed first and written last."""
    rows, mark = folder / f"{task.label}.jsonl", folder / f"{task.label}.inputs.json"
    known = team.agreed(lambda: _known(rows, mark, inputs))
    if known is not None:
        return known
    if team.first:
        mark.unlink(missing_ok=True)
    records = ask()
    if team.first:
        store.write_rows(rows, records)
        store.write_json(mark, {"fingerprint": fingerprint(inputs), "inputs": inputs})
    return records


def _known(rows: Path, mark: Path, inputs: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    if rows.is_file() and mark.is_file() and store.read_json(mark)["fingerprint"] == fingerprint(inputs):
        return store.read_rows(rows)
    return None


def _ask(
    model: CausalLM,
    tokenizer: Tokenizer,
    suite: Gauntlet,
    task: Task,
    data: Path,
    prompting: str,
    prompt_format: str,
    progress: Progress | None,
    team: Team,
    results: Results,
    kept: Path | None,
) -> list[dict[str, Any]]:
    from limit_lab.gauntlet import generation, scoring

    unstripped = read(task, data)
    rows = strip(unstripped)
    prompts = partial(_prompts, tokenizer, task, rows, prompting, prompt_format)
    report = None if progress is None else partial(progress, task.label)
    if task.type == "generation":
        found = generation.outcomes(model, tokenizer, task, rows, unstripped, prompts(), suite, report, team, results)
    else:
        asked_alike = {**results.inputs, "numerics": NUMERICS}
        items = tokenised(kept, asked_alike, lambda: [scorables(tokenizer, one, suite.max_seq_tokens) for one in prompts()])
        found = scoring.outcomes(model, tokenizer, task, rows, items, suite, report, team, results)
    return [one | outcome for one, outcome in zip(_identities(task, rows), found, strict=True)]


def _prompts(tokenizer: Tokenizer, task: Task, rows: Sequence[Row], prompting: str, prompt_format: str) -> Sequence[Prompt]:
    """Prompts in the order of ``rows``; each category samples its shots from itself, with a fresh generator."""
    if prompting == "template":
        return template_prompts(task, rows, prompt_format)
    blank = prefix_space(tokenizer)
    by_row: dict[int, Prompt] = {}
    for part in parts(task, rows):
        by_row.update(zip(part, raw_prompts(task, [rows[index] for index in part], prefix_space=blank), strict=True))
    return [by_row[index] for index in range(len(rows))]


def _identities(task: Task, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Which items the records are: items of one cluster are not independent, and groups are reported apart."""
    return [
        {"index": index, "cluster": cluster, "group": row.get("group"), "category": row.get("category")}
        for index, (row, cluster) in enumerate(zip(rows, clusters(task, rows), strict=True))
    ]
