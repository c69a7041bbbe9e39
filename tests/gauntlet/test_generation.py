from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limit_lab.config import Task
from limit_lab.gauntlet import generation
from limit_lab.gauntlet.decoding import greedy
from limit_lab.gauntlet.generation import answer_room, answers, clean, labels, normalise
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


def test_normalise_keeps_words_and_drops_what_does_not_count() -> None:
    assert normalise(" The_Answer: an  `Apple`, a day‘s ") == "answer apple day s"


def test_answers_are_unique_and_sorted() -> None:
    assert answers({"answer": "b", "aliases": ["a", "b"]}) == ["a", "b"]
    assert labels(make(), {"answer": "The b", "aliases": ["B", "a c"]}) == ["b", "c"]


def test_room_counts_the_thought_and_ten_more(toy_tokenizer: Tokenizer) -> None:
    rows = [{"context": "c", "answer": "12", "chain_of_thought": "abc"}]
    assert answer_room(toy_tokenizer, make(cot_delimiter="#"), rows) == 6 + 10
    assert answer_room(toy_tokenizer, make(), [{"context": "c", "answer": "12", "aliases": ["1234 "]}]) == 5


@settings(deadline=None, max_examples=60)
@given(text=st.text(alphabet="ab\nQu:. ", max_size=40), stops=st.sampled_from([["\n\n", "Qu:"], ["a", "bb"], ["aba", "b"]]))
def test_what_is_enough_changes_no_answer(text: str, stops: list[str], toy_tokenizer: Tokenizer) -> None:
    task = Task(label="t", type="generation", file="f", category="c", stop=stops, cot_delimiter="Q")
    stopped = generation._enough(toy_tokenizer, task)
    assert stopped is not None
    tokens = toy_tokenizer.encode(text, add_special_tokens=False)
    ends = [end for end in range(1, len(tokens) + 1) if stopped(tokens[:end])]
    if ends:
        assert clean(task, toy_tokenizer.decode(tokens[: ends[0]])) == clean(task, text)
        assert ends == list(range(ends[0], len(tokens) + 1))


def test_a_stop_that_is_a_pattern_is_looked_for_at_the_end_only(toy_tokenizer: Tokenizer) -> None:
    task = Task(label="t", type="generation", file="f", category="c", stop=["a|b"])
    assert generation._enough(toy_tokenizer, task) is None
