from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from limit_lab.config import Task
from limit_lab.gauntlet.generation import answer_room, answers, clean, greedy, labels, normalise
from limit_lab.gauntlet.prompts import raw_prompts
from limit_lab.gauntlet.sequences import prompt_tokens
from limit_lab.gauntlet.tasks import read, strip
from limit_lab.model.mpt import MPT
from limit_lab.prompt import Tokenizer
from tests.gauntlet.conftest import read_case


def make(**settings: object) -> Task:
    return Task(label="t", type="generation", file="t.jsonl", category="c", **settings)


def test_recorded_matches(golden: Path) -> None:
    for unit in json.loads((golden / "units" / "generation_metric.json").read_text()):
        batch = unit["batch"]
        task = make(
            cot_delimiter=batch.get("cot_delimiter", ""),
            stop=batch.get("stopping_criteria") or [],
            normalise=batch.get("do_normalization", True),
        )
        text = clean(task, unit["output"])
        gold = labels(task, {"answer": unit["labels"][0], "aliases": unit["labels"]})
        assert (text, gold) == (unit["cleaned_output"], sorted(unit["cleaned_labels"]))
        assert any(text.startswith(label) for label in gold) == bool(unit["correct"])


@pytest.mark.parametrize("name", ["synthetic_gen_greedy", "svamp_v0.3"])
def test_recorded_generations(name: str, golden: Path, golden_model: MPT, golden_tokenizer: Tokenizer) -> None:
    case = read_case(golden, name)
    unstripped = read(case.task, case.rows)
    (evaluator,) = case.evaluators.values()
    room = answer_room(golden_tokenizer, case.task, unstripped)
    assert room == evaluator["max_answer_length"]
    prompts = raw_prompts(case.task, strip(unstripped), prefix_space=True)[:25]
    ids = [prompt_tokens(golden_tokenizer, prompt, 2048 - room) for prompt in prompts]
    written = greedy(golden_model, ids, max_new_tokens=room, eos=0, batch_tokens=4096)
    assert written == [example["generated_ids"] for example in evaluator["examples"][:25]]


def alone(model: MPT, prompt: list[int], max_new_tokens: int, eos: int) -> list[int]:
    """Greedy decoding without cache, padding or batch."""
    ids = list(prompt)
    while len(ids) < len(prompt) + max_new_tokens:
        with torch.inference_mode():
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
        if ids[-1] == eos:
            break
    return ids[len(prompt) :]


@pytest.mark.parametrize("batch_tokens", [1, 40, 1000])
def test_batches_of_uneven_prompts_with_rows_that_end(toy_model: MPT, batch_tokens: int) -> None:
    prompts = [[5], [7, 8, 9, 10], [3, 4] * 6, [11, 200, 31]]
    free = [alone(toy_model, prompt, 8, eos=-1) for prompt in prompts]
    eos = free[2][3]
    wanted = [alone(toy_model, prompt, 8, eos) for prompt in prompts]
    assert len({len(tokens) for tokens in wanted}) > 1
    assert greedy(toy_model, prompts, max_new_tokens=8, eos=eos, batch_tokens=batch_tokens) == wanted


def test_normalise_keeps_words_and_drops_what_does_not_count() -> None:
    assert normalise(" The_Answer: an  `Apple`, a day‘s ") == "answer apple day s"


def test_answers_are_unique_and_sorted() -> None:
    assert answers({"answer": "b", "aliases": ["a", "b"]}) == ["a", "b"]
    assert labels(make(), {"answer": "The b", "aliases": ["B", "a c"]}) == ["b", "c"]


def test_room_counts_the_thought_and_ten_more(toy_tokenizer: Tokenizer) -> None:
    rows = [{"context": "c", "answer": "12", "chain_of_thought": "abc"}]
    assert answer_room(toy_tokenizer, make(cot_delimiter="#"), rows) == 6 + 10
    assert answer_room(toy_tokenizer, make(), [{"context": "c", "answer": "12", "aliases": ["1234 "]}]) == 5
