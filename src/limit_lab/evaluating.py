"""A cell's gauntlet or answers as one piece of work: load the exported model, ask it; by one process or by each rank."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limit_lab import store, suite
from limit_lab.config import Study
from limit_lab.layout import layout
from limit_lab.progress import Move, by_part
from limit_lab.prompt import prompt_ids

if TYPE_CHECKING:
    from limit_lab.model.causal import CausalLM
    from limit_lab.model.team import Team


#: Rows of a suite for which no further process is started.
FEW = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What is asked of the model in the folder ``model``: the gauntlet in one ``prompting``, or without one the answers.

    Records go to ``out``; ``state`` holds what several processes need to tell each other.
    """

    prompting: str | None
    model: Path
    out: Path
    state: Path


def run(study: Study, evaluation: Evaluation, move: Move) -> dict[str, Any]:
    """Ask the model, here or with a process for every device that can hold it; returns the stage's outputs.

    Raises: as `gauntlet.evaluate` and `model.load_on` do; ConfigError when the devices cannot hold the model.
    """
    processes = layout(study).processes
    if processes * study.hardware.nodes == 1 or _few(study, evaluation):
        from limit_lab.model.team import ALONE

        return here(study, evaluation, ALONE, move)
    from limit_lab.ranks import start

    return start.evaluate(study, evaluation, processes, move)


def _few(study: Study, evaluation: Evaluation) -> bool:
    """Whether so little is asked that starting processes would take longer: one batch of answers, or a few rows in all."""
    from limit_lab.model.bases import open_prompts

    if evaluation.prompting is None:
        return len(open_prompts(study)) <= study.answers.batch
    return sum(FEW if task.rows is None else task.rows for task in study.gauntlet.tasks) < FEW


def here(study: Study, evaluation: Evaluation, team: Team, move: Move) -> dict[str, Any]:
    """The work of this process: all of it, or its share in a ``team``. Raises: as `run` does."""
    if evaluation.prompting is None:
        return _answers(study, evaluation, team, move)
    return _gauntlet(study, evaluation, evaluation.prompting, team, move)


def _loaded(study: Study, folder: Path) -> CausalLM:
    """The model on this process's devices: of those of its node, the next that no rank before it has."""
    import torch

    from limit_lab.model.placement import load_on

    if study.hardware.accelerator == "cpu":
        return load_on(folder, [torch.device("cpu")])
    own = layout(study).devices
    first = int(os.environ.get("LOCAL_RANK", "0")) * own
    return load_on(folder, [torch.device("cuda", first + place) for place in range(own)])


def _gauntlet(study: Study, evaluation: Evaluation, prompting: str, team: Team, move: Move) -> dict[str, Any]:
    from limit_lab.gauntlet import evaluate
    from limit_lab.model.bases import gauntlet_data, tokenizer_mark, tokenizer_of

    return evaluate(
        _loaded(study, evaluation.model),
        tokenizer_of(study),
        study.gauntlet,
        gauntlet_data(study),
        evaluation.out,
        prompting=prompting,
        prompt_format=study.prompt.format,
        progress=by_part(move, [task.label for task in suite.asked(study.gauntlet, prompting)]),
        team=team,
        prompts=Path(study.runs) / "prompts" / tokenizer_mark(study),
    )


def _answers(study: Study, evaluation: Evaluation, team: Team, move: Move) -> dict[str, Any]:
    from limit_lab.model.answering import Decoding, answer
    from limit_lab.model.bases import open_prompts, tokenizer_of

    how, tokenizer, model, prompts = study.answers, tokenizer_of(study), _loaded(study, evaluation.model), open_prompts(study)
    ids = [prompt_ids(tokenizer, row["prompt"], study.prompt.format) for row in prompts]
    eos = tokenizer.eos_token_id
    rows: list[dict[str, Any]] = []
    by_seed = by_part(move, [str(seed) for seed in how.seeds])
    for seed in how.seeds:
        shape = Decoding(
            max_new_tokens=how.max_new_tokens, temperature=how.temperature, top_p=how.top_p, top_k=how.top_k, seed=seed
        )
        written = answer(model, ids, eos, shape, batch=how.batch, progress=partial(by_seed, str(seed)), team=team)
        for index, (asked, out) in enumerate(zip(prompts, written, strict=True)):
            text = tokenizer.decode(out, skip_special_tokens=True).strip()
            row = {"index": index, "prompt": asked["prompt"], "answer": text, "ended": out[-1] == eos, "tokens": len(out)}
            rows.append({**row, "seed": seed, "cluster": asked["cluster"], "unseen": asked["unseen"]})
    if team.first:
        store.write_rows(evaluation.out / "answers.jsonl", rows)
    ended_share = sum(row["ended"] for row in rows) / len(rows)
    return {
        "prompts": len(prompts),
        "words_mean": sum(len(str(row["answer"]).split()) for row in rows) / len(rows),
        "hit_limit_share": 1 - ended_share,
        "ended_share": ended_share,
    }
