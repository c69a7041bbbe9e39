"""Clusters: questions about one passage stand together, boilerplate and chance resemblances do not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limit_lab.config import Task
from limit_lab.gauntlet.clusters import clusters
from limit_lab.gauntlet.tasks import read, strip

INSTRUCTION = (
    "Read the following passage with care, and then choose among the answers the one that fits it best of all to you.\n"
)
RIVERS = (
    "The river rises in the northern hills. "
    + "It runs past two mills and a ford, and reaches the sea after ninety miles. " * 2
)
BRIDGES = (
    "The bridge was built by a guild of masons. " + "It fell in the great flood, and was built again in iron after long. " * 2
)


def task(kind: str = "language_modeling", **more: object) -> Task:
    return Task(label="reading", type=kind, file="rows.jsonl", category="reading", **more)


def asked(*texts: str) -> list[dict[str, str]]:
    return [{"context": text, "continuation": "x"} for text in texts]


def test_questions_about_one_passage_stand_together_in_any_order() -> None:
    rows = asked(
        INSTRUCTION + RIVERS + "\nHow long is it?",
        INSTRUCTION + BRIDGES + "\nWho built it?",
        INSTRUCTION + RIVERS + "\nWhere does it rise?",
        INSTRUCTION + "What is a mill?",
        INSTRUCTION + "What is a ford?",
    )
    found = clusters(task(), rows)
    assert found[0] == found[2]
    assert len(set(found)) == 4


def test_a_long_text_with_a_short_beginning_in_common_is_another() -> None:
    """130 characters of instruction that only most rows share are less than half of what they go on to say."""
    rest = [" ".join([word] * 60) for word in ("stone", "mills", "flood")]
    assert len(set(clusters(task(), asked(*(INSTRUCTION + text for text in rest), "Why?")))) == 4


def test_equal_questions_and_twins_of_a_schema_stand_together() -> None:
    found = clusters(task(), asked("Why?", "How?", "Why?"))
    assert found[0] == found[2] != found[1]
    options = ["The cup broke because the cup", "The cup broke because the table"]
    twins = [
        {"context_options": options, "continuation": "was thin.", "gold": 0},
        {"context_options": options[::-1], "continuation": "was hard.", "gold": 0},
    ]
    assert len(set(clusters(task("schema", template=False), twins))) == 1


def test_a_named_entity_goes_before_the_text_and_categories_are_apart() -> None:
    rows = [{**row, "entity": "e1"} for row in asked("Why?", "How?")] + asked("Why?")
    found = clusters(task(), rows)
    assert found[:2] == ["e1", "e1"]
    assert found[2] != "e1"
    parted = [
        {**row, "category": "ab"[place % 2]} for place, row in enumerate(asked(RIVERS + "Why?", "x", RIVERS + "How?", "y"))
    ]
    split = clusters(task(has_categories=True), parted)
    assert split[0] != split[2]  # all that the category asks begins this way: an instruction
    assert clusters(task(), parted)[0] == clusters(task(), parted)[2]


@given(st.lists(st.text(max_size=6), max_size=30), st.randoms())
def test_clusters_follow_the_rows(texts: list[str], random: object) -> None:
    order = list(range(len(texts)))
    random.shuffle(order)
    straight, mixed = clusters(task(), asked(*texts)), clusters(task(), asked(*(texts[place] for place in order)))
    assert [straight[place] for place in order] == mixed
    assert all((straight[a] == straight[b]) == (texts[a] == texts[b]) for a in order for b in order)


@pytest.mark.parametrize(
    ("file", "kind", "count", "most"),
    [
        ("gauntlet/reading_comprehension/boolq.jsonl", "multiple_choice", 2926, 9),
        ("gauntlet/reading_comprehension/pubmed_qa_labeled.jsonl", "language_modeling", 1000, 1),
        ("gauntlet/language_understanding/winograd_wsc.jsonl", "schema", 171, 2),
        ("gauntlet/language_understanding/bigbench_conlang_translation.jsonl", "language_modeling", 8, 23),
        ("gauntlet/symbolic_problem_solving/bigbench_cs_algorithms.jsonl", "language_modeling", 1320, 1),
        ("gauntlet/symbolic_problem_solving/bigbench_logical_deduction.jsonl", "multiple_choice", 299, 7),
        ("gauntlet_derived/reading_comprehension/squad_1000.jsonl", "language_modeling", 803, 5),
        ("gauntlet_derived/reading_comprehension/coqa_998.jsonl", "language_modeling", 499, 5),
    ],
)
def test_clusters_of_real_files(file: str, kind: str, count: int, most: int, shared: Path) -> None:
    one = Task(label="x", type=kind, file=file, category="x", template=False)
    sizes = Counter(clusters(one, strip(read(one, shared / "data"))))
    assert (len(sizes), max(sizes.values())) == (count, most)
