from __future__ import annotations

import gzip
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limit_lab.config import Task
from limit_lab.errors import EvalError
from limit_lab.gauntlet.generation import answer_room
from limit_lab.gauntlet.prompts import Prompt, raw_prompts, template_prompts
from limit_lab.gauntlet.sequences import Scorable, batches, prefix_space, prompt_tokens, scorables
from limit_lab.gauntlet.tasks import Row, parts, read, strip
from limit_lab.prompt import Tokenizer, document
from tests.gauntlet.conftest import read_case, task_of
from tests.gauntlet.test_parity import CASES
from tests.gauntlet.test_suites import shipped

MAX = 2048


def check_ids(
    tokenizer: Tokenizer, task: Task, unstripped: list[Row], prompts: list[Prompt], wanted: list[dict[str, Any]]
) -> None:
    for example in wanted:
        prompt = prompts[example["index"]]
        if task.type == "generation":
            room = answer_room(tokenizer, task, unstripped)
            assert prompt_tokens(tokenizer, prompt, MAX - room) == example["sequences"][0]["input_ids"]
            continue
        check_sequences(scorables(tokenizer, prompt, MAX), example["sequences"])


def check_sequences(found: list[Scorable], wanted: list[dict[str, Any]]) -> None:
    assert [list(sequence.ids) for sequence in found] == [one["input_ids"] for one in wanted]
    spans = [one["span" if "span" in one else "continuation_span"] for one in wanted]
    assert [[sequence.start, len(sequence.ids)] for sequence in found] == spans


@pytest.mark.parametrize("name", CASES)
def test_first_prompts_of_the_recorded_cases(name: str, golden: Path, golden_tokenizer: Tokenizer) -> None:
    case = read_case(golden, name)
    unstripped = read(case.task, case.rows)
    rows = strip(unstripped)
    for part, evaluator in zip(parts(case.task, rows), sorted(case.evaluators), strict=True):
        prompts = raw_prompts(case.task, [rows[index] for index in part], prefix_space=prefix_space(golden_tokenizer))
        wanted = case.evaluators[evaluator]["prompts_first20"]
        check_ids(golden_tokenizer, case.task, unstripped, prompts, wanted)
        for example in wanted:
            assert prompts[example["index"]].preamble == example["preamble"]


def recorded_prompts(golden: Path) -> list[list[dict[str, Any]]]:
    """The recorded examples of the full files, one list for each evaluator."""
    with gzip.open(golden / "units" / "prompts_full.jsonl.gz", "rt", encoding="utf-8") as lines:
        examples = [json.loads(line) for line in lines]
    by_evaluator: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for one in examples:
        by_evaluator.setdefault((one["evaluator"], one["file"], json.dumps(one["task"])), []).append(one)
    return list(by_evaluator.values())


def test_prompts_on_the_full_files(golden: Path, shared: Path, golden_tokenizer: Tokenizer) -> None:
    data = shared / "data" / "gauntlet"
    checked = 0
    for wanted in recorded_prompts(golden):
        task = task_of(wanted[0]["task"], wanted[0]["file"])
        if not (data / task.file).is_file():
            continue
        rows = read(task, data)
        if task.has_categories:
            rows = [row for row in rows if row["category"] == wanted[0]["evaluator"].rsplit("/", 1)[1]]
        assert len(rows) == wanted[0]["n"]
        prompts = raw_prompts(task, strip(rows), prefix_space=True)
        check_ids(golden_tokenizer, task, rows, prompts, wanted)
        checked += len(wanted)
    assert checked == 108


def test_ids_of_the_full_files_that_are_elsewhere(golden: Path, shared: Path, golden_tokenizer: Tokenizer) -> None:
    """Versions 0.1 to 0.3: the texts, recorded for the first row of each, give the recorded ids, spans and cuts."""
    checked = 0
    for wanted in recorded_prompts(golden):
        if (shared / "data" / "gauntlet" / wanted[0]["file"]).is_file():
            continue
        preamble, context, sequences = wanted[0]["preamble"], wanted[0]["context"].rstrip(), wanted[0]["sequences"]
        if "max_answer_length" in sequences[0]:
            room = MAX - sequences[0]["max_answer_length"]
            found = prompt_tokens(golden_tokenizer, Prompt(preamble, (context,), ()), room)
            assert found == sequences[0]["input_ids"]
        else:
            scored = [one["input_ids"][one["span"][0] : one["span"][1]] for one in sequences]
            texts = tuple(golden_tokenizer.decode(ids, skip_special_tokens=False) for ids in scored)
            check_sequences(scorables(golden_tokenizer, Prompt(preamble, (context,) * len(texts), texts), MAX), sequences)
        checked += 1
    assert checked == (160 - 108) / 4


def test_chains_of_thought_of_version_0_2(golden: Path, shared: Path, golden_tokenizer: Tokenizer) -> None:
    """The grade-school problems as their authors publish them hold all that the gauntlet's file does."""
    wanted = next(one for one in recorded_prompts(golden) if one[0]["evaluator"] == "gsm8k/5-shot")
    task = next(task for task in shipped("v0_2").tasks if task.label == "gsm8k/5-shot")
    rows: list[Row] = []
    for line in (shared / "data" / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines():
        published = json.loads(line)
        thought, answer = published["answer"].split("\n#### ")
        rows.append({"context": published["question"], "chain_of_thought": thought, "answer": answer})
    assert len(rows) == wanted[0]["n"]
    prompts = raw_prompts(task, strip(rows), prefix_space=True)
    assert prompts[wanted[0]["index"]].preamble == wanted[0]["preamble"]
    check_ids(golden_tokenizer, task, rows, prompts, wanted)
    assert answer_room(golden_tokenizer, task, rows) == wanted[0]["sequences"][0]["max_answer_length"]


def test_a_long_pair_loses_the_left_of_its_own_context(toy_tokenizer: Tokenizer) -> None:
    prompt = Prompt("abcd", ("efgh", "efgh"), ("xy", "x"))
    long, short = scorables(toy_tokenizer, prompt, max_seq_tokens=6)
    assert toy_tokenizer.decode(list(long.ids)) == "efghxy"
    assert toy_tokenizer.decode(list(short.ids)) == "defghx"
    assert (long.start, short.start) == (4, 5)
    with pytest.raises(EvalError, match="max_seq_tokens=2"):
        scorables(toy_tokenizer, prompt, max_seq_tokens=2)


def test_an_empty_context_predicts_nothing(toy_tokenizer: Tokenizer) -> None:
    with pytest.raises(EvalError, match="0 tokens of context"):
        scorables(toy_tokenizer, Prompt("", ("",), (" x",)), MAX)


class Closing:
    """A tokenizer that ends every text with its eos token, as some do."""

    eos_token_id = 0

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return [ord(letter) for letter in text] + ([0] if add_special_tokens else [])

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = False) -> str:
        return "".join(chr(token) for token in token_ids if token or not skip_special_tokens)


def test_an_eos_after_the_preamble_is_dropped_unless_it_is_all_there_is() -> None:
    assert scorables(Closing(), Prompt("ab", ("c",), ("d",)), MAX)[0].ids == (97, 98, 99, 100)
    assert scorables(Closing(), Prompt("", ("c",), ("d",)), MAX)[0].ids == (0, 99, 100)


@pytest.mark.parametrize("answer", ["The sea is blue.", "  two leading blanks", "1"])
def test_template_ids_are_the_training_ids_without_eos(answer: str, toy_tokenizer: Tokenizer) -> None:
    task = Task(label="t", type="language_modeling", file="t.jsonl", category="c")
    prompt = template_prompts(task, [{"context": "What colour?", "continuation": answer}], "alpaca")[0]
    trained = document(toy_tokenizer, "What colour?", answer, "alpaca", source="s", row=0)
    asked = scorables(toy_tokenizer, prompt, MAX)[0]
    assert [*asked.ids, toy_tokenizer.eos_token_id] == trained.ids
    assert asked.start == trained.prompt_tokens


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 120), st.sampled_from([0, 7]), st.none() | st.integers(1, 90))
def test_batches_hold_every_index_once_within_the_budget(
    lengths: list[int], budget: int, columns: int, enough: int | None
) -> None:
    made = list(batches(lengths, budget, columns=columns, enough=enough))
    assert sorted(index for batch in made for index in batch) == list(range(len(lengths)))
    for batch in made:
        own = [lengths[index] for index in batch]
        assert len(batch) == 1 or len(batch) * (columns + max(own)) <= budget
        if enough is not None and len(batch) * max(own) > enough + max(own):
            assert max(own) <= 1.05 * min(own), "more than enough is taken only where padding adds little"
    flat = [lengths[index] for batch in made for index in batch]
    assert all(left >= right for left, right in pairwise(flat))
