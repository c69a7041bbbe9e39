from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from limit_lab.config import Task
from limit_lab.errors import ConfigError, DataError, EvalError
from limit_lab.gauntlet.tasks import asked, parts, read, require_files, strip
from tests.gauntlet.conftest import suite_of, write_rows

CHOICE = {"query": "q", "choices": ["a", "b"], "gold": 1}


def make(kind: str = "multiple_choice", **settings: Any) -> Task:
    return Task(label="t", type=kind, file="sub/t.jsonl", category="c", **{"template": kind != "schema"} | settings)


@pytest.mark.parametrize(
    ("kind", "row", "complaint"),
    [
        ("multiple_choice", {"query": "q", "choices": ["a"]}, "the field 'gold' is missing"),
        ("multiple_choice", CHOICE | {"gold": 2}, "the field 'gold' must be the index of a choice, not 2"),
        ("multiple_choice", CHOICE | {"gold": True}, "the field 'gold' must be the index of a choice, not True"),
        ("multiple_choice", CHOICE | {"choices": ["a", 3]}, "the field 'choices' must be a list of texts"),
        ("multiple_choice", CHOICE | {"choices": ["", "b"]}, "the field 'choices' holds an empty text"),
        ("multiple_choice", CHOICE | {"query": " \n"}, "the field 'query' holds an empty text"),
        ("multiple_choice", CHOICE | {"choices": [], "gold": 0}, "the index of a choice, not 0"),
        ("schema", {"context_options": ["a"], "continuation": "c", "gold": 1}, "the index of an option, not 1"),
        ("language_modeling", {"context": "c", "continuation": "  "}, "the field 'continuation' holds an empty text"),
        ("language_modeling", {"context": "", "continuation": "c"}, "the field 'context' holds an empty text"),
        (
            "schema",
            {"context_options": ["a", ""], "continuation": "c", "gold": 0},
            "the field 'context_options' holds an empty",
        ),
        ("generation", {"context": "c", "answer": " "}, "the field 'answer' holds an empty text"),
        ("language_modeling", {"context": None, "continuation": "c"}, "the field 'context' must be text, not None"),
        ("generation", {"context": "c", "answer": "a", "aliases": "b"}, "the field 'aliases' must be a list of texts"),
    ],
)
def test_a_wrong_field_is_named_with_its_line(kind: str, row: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    good = {"context": "c", "answer": "a"} | CHOICE | {"context_options": ["a", "b"], "continuation": "c"}
    write_rows(tmp_path, "sub/t.jsonl", [good, row])
    with pytest.raises(DataError, match=f"t.jsonl line 2: .*{complaint}.* of the {kind} task t"):
        read(make(kind), tmp_path)


def test_a_chain_of_thought_is_in_every_row_or_in_none(tmp_path: Path) -> None:
    write_rows(
        tmp_path, "sub/t.jsonl", [{"context": "c", "answer": "a"}, {"context": "c", "answer": "a", "chain_of_thought": "x"}]
    )
    with pytest.raises(DataError, match="line 2: the field 'chain_of_thought' must be in every row or in none"):
        read(make("generation"), tmp_path)


def test_a_reduction_takes_the_first_rows_and_never_fewer(tmp_path: Path) -> None:
    write_rows(tmp_path, "sub/t.jsonl", [CHOICE | {"query": str(number)} for number in range(5)])
    assert [row["query"] for row in read(make(rows=3), tmp_path)] == ["0", "1", "2"]
    with pytest.raises(DataError, match="has 5 rows, and the task t needs 6"):
        read(make(rows=6), tmp_path)


def test_an_empty_file_is_no_task(tmp_path: Path) -> None:
    write_rows(tmp_path, "sub/t.jsonl", [])
    with pytest.raises(DataError, match="has 0 rows"):
        read(make(), tmp_path)


def test_stripping_reaches_top_level_texts_only() -> None:
    assert strip([{"query": " q\n", "choices": [" a "], "gold": 0}]) == [{"query": "q", "choices": [" a "], "gold": 0}]


def test_categories_come_in_code_point_order_with_rows_in_file_order() -> None:
    rows = [{"category": name} for name in ("b", "a", "B", "b")]
    assert parts(make(has_categories=True), rows) == [[2], [1], [0, 3]]
    assert parts(make(), rows) == [[0, 1, 2, 3]]


def test_every_absent_file_is_named_at_once(tmp_path: Path) -> None:
    suite = suite_of(make(), name="half")
    with pytest.raises(EvalError, match=r"gauntlet=half has no data for t \(sub/t.jsonl\)"):
        require_files(suite, suite.tasks, tmp_path)


def test_strict_goes_on_with_the_files_that_are_there(tmp_path: Path) -> None:
    write_rows(tmp_path, "sub/t.jsonl", [CHOICE])
    there, absent = make(), replace(make(), label="u", file="u.jsonl")
    suite = replace(suite_of(there, absent), compat="strict")
    assert require_files(suite, suite.tasks, tmp_path) == [there]
    with pytest.raises(EvalError, match=r"no data for u \(u.jsonl\)"):
        require_files(suite, [absent], tmp_path)


def test_only_template_tasks_are_asked_in_the_template() -> None:
    suite = suite_of(make(template=False))
    assert asked(suite, "template") == []
    assert asked(suite, "raw") == suite.tasks


def test_without_shots_a_task_is_asked_once() -> None:
    further = replace(make(shots=5, template=False), label="t/5-shot")
    suite = suite_of(make(shots=3), further)
    assert [(task.label, task.shots) for task in asked(suite, "raw")] == [("t", 3), ("t/5-shot", 5)]
    assert [(task.label, task.shots) for task in asked(suite, "raw_0_shot")] == [("t", 0)]
    assert [task.label for task in asked(suite, "template")] == ["t"]


def test_an_unknown_way_of_asking_is_refused() -> None:
    suite = suite_of(make())
    with pytest.raises(ConfigError, match="prompting='chat' is unknown"):
        asked(suite, "chat")


@pytest.mark.parametrize(
    ("kind", "settings", "complaint"),
    [
        ("schema", {"template": True}, "set template: false"),
        ("generation", {"has_categories": True}, "leave has_categories out"),
        ("multiple_choice", {"baseline": 1.0}, "use less than 1"),
        ("multiple_choice", {"rows": 0}, "0 rows"),
    ],
)
def test_a_task_that_cannot_be_asked_is_refused(kind: str, settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        make(kind, **settings)
