from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limit_lab.config import Task
from limit_lab.gauntlet.prompts import raw_prompts, shot_indices, template_prompts
from limit_lab.prompt import render


def make(kind: str, **settings: object) -> Task:
    return Task(label="t", type=kind, file="t.jsonl", category="c", template=kind != "schema", **settings)


def test_recorded_shot_indices(golden: Path) -> None:
    for unit in json.loads((golden / "units" / "fewshot_indices.json").read_text()):
        drawn = shot_indices(unit["N"], unit["k"], seed=unit["seed"])
        assert list(islice(drawn, len(unit["order"]))) == unit["order"], (unit["N"], unit["k"])


@given(st.integers(1, 60), st.integers(0, 12))
def test_a_row_never_shows_itself(rows: int, shots: int) -> None:
    for index, drawn in enumerate(shot_indices(rows, shots)):
        assert index not in drawn
        assert len(set(drawn)) == len(drawn)
        assert set(drawn) <= set(range(rows))
        assert len(drawn) in ({shots} if rows - 1 > shots else {rows - 1, rows - 2, 0} if shots else {0})


def test_only_the_asked_question_loses_its_trailing_blanks() -> None:
    rows = [{"query": f"q{n}", "choices": ["yes", " no"], "gold": 1} for n in range(2)]
    task = make("multiple_choice", shots=1, prelimiter="Q: ", continuation_delimiter="\nA:\n ")
    prompt = raw_prompts(task, rows, prefix_space=True)[0]
    assert prompt.preamble == "Q: q1\nA:\n  no"
    assert prompt.contexts == ("\nQ: q0\nA:",) * 2
    assert prompt.continuations == (" yes", " no")


def test_a_tokenizer_without_prefix_space_gets_none() -> None:
    task = make("language_modeling")
    prompt = raw_prompts(task, [{"context": "a", "continuation": "b"}], prefix_space=False)[0]
    assert prompt.continuations == ("b",)


def test_schema_quirks() -> None:
    rows = [{"context_options": [f"x{n}", f"y{n}"], "continuation": "z", "gold": 1} for n in range(2)]
    bare = raw_prompts(make("schema", prelimiter="> ", continuation_delimiter=" - "), rows, prefix_space=True)[0]
    assert bare.contexts == ("> x0", "> y0")
    shown = raw_prompts(make("schema", prelimiter="> ", continuation_delimiter=" - ", shots=1), rows, prefix_space=True)[0]
    assert shown.preamble == "> y1 - z"
    assert shown.contexts == ("> \nx0 -", "> \ny0 -")


def test_shots_show_their_chain_of_thought() -> None:
    rows = [{"context": f"c{n}", "answer": str(n), "chain_of_thought": f"w{n}"} for n in range(2)]
    prompt = raw_prompts(make("generation", shots=1, cot_delimiter=" so "), rows, prefix_space=True)[0]
    assert prompt.preamble == "c1 w1 so 1"
    assert prompt.contexts == ("\nc0",)
    assert prompt.continuations == ()


@pytest.mark.parametrize("format_name", ["alpaca", "alpaca_tight", "bare"])
def test_the_template_holds_the_bare_question(format_name: str) -> None:
    task = make("multiple_choice", shots=5, prelimiter="Q: ", continuation_delimiter="\nAnswer: ")
    prompt = template_prompts(task, [{"query": "q", "choices": ["a", "b"], "gold": 0}], format_name)[0]
    assert prompt.preamble == render("q", format_name)
    assert prompt.contexts == ("", "")
    assert prompt.continuations == ("a", "b")
