"""The gauntlet files: readable by every task of the suite, right, and of one part."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from limit_lab.config import Gauntlet
from limit_lab.errors import ConfigError
from limit_lab.gauntlet.prompts import raw_prompts
from limit_lab.gauntlet.tasks import parts, read, require_files, strip
from limit_lab.microworld import benchmarks, samples, templates
from limit_lab.microworld.sentences import RESERVED_QUESTION, short
from limit_lab.microworld.world import Sum, World, answer
from tests.gauntlet.test_suites import shipped
from tests.microworld.checks import foreign_names

INJECTION = ("injection_em", "injection_mc")


@pytest.fixture(scope="module")
def suite() -> Gauntlet:
    return shipped("microworld")


@pytest.fixture(scope="module", params=benchmarks.EVALUATED)
def part(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def tasks(world: World, part: str) -> dict[str, list[benchmarks.Row]]:
    return benchmarks.tasks(world, part)


def test_every_task_of_the_suite_reads_its_file(world: World, suite: Gauntlet, part: str, tmp_path: Path) -> None:
    written = benchmarks.write(world, part, tmp_path)
    assert {path.name for path in written} == {task.file for task in suite.tasks}
    require_files(suite, suite.tasks, tmp_path)
    for task in suite.tasks:
        rows = read(task, tmp_path)
        assert all(row["entity"] and row["group"] in ("elicitation", "injection") for row in rows)
        assert len(raw_prompts(task, strip(rows), prefix_space=True)) == len(rows)


def test_files_are_the_same_for_the_same_seed(part: str, tasks: dict[str, list[benchmarks.Row]]) -> None:
    assert benchmarks.tasks(World(0), part) == tasks


def test_injection_and_what_no_cell_answers_are_outside_the_average(suite: Gauntlet) -> None:
    assert len(suite.average) == 5
    assert {task.category for task in suite.tasks} - set(suite.average) == {"injection", "yes_no_questions"}
    assert {task.label for task in suite.tasks if task.category == "injection"} == set(INJECTION)
    labels = {task.label: task for task in suite.tasks}
    assert all(labels[task.partner].partner == task.label for task in suite.tasks if task.partner)


def test_rows_are_of_their_part(world: World, part: str, tasks: dict[str, list[benchmarks.Row]]) -> None:
    for label, rows in tasks.items():
        own = "finetuning" if label in INJECTION else part
        assert foreign_names(world, own, map(json.dumps, ({**row, "group": ""} for row in rows))) == set()
        assert {row["group"] for row in rows} == {"injection" if label in INJECTION else "elicitation"}


def test_gold_is_right(world: World, tasks: dict[str, list[benchmarks.Row]]) -> None:
    for label in ("facts_em", "injection_em"):
        for row in tasks[label]:
            assert row["continuation"] == short(world.entity(row["entity"]), row["attribute"])
    for label in ("facts_mc", "injection_mc", "completion_mc"):
        for row in tasks[label]:
            right = short(world.entity(row["entity"]), row["attribute"])
            bare = right.removeprefix("to ") if label == "completion_mc" else right
            assert row["choices"].count(bare) == 1
            assert row["choices"][row["gold"]] == bare
    for row in tasks["kinds_mc"]:
        assert row["choices"][row["gold"]].split()[-1] == world.entity(row["entity"]).type
    for row in tasks["yesno_mc"]:
        right = short(world.entity(row["entity"]), row["attribute"])
        assert (row["choices"][row["gold"]] == "yes") == row["query"].endswith(f" Is it {right}?")


def test_only_the_right_option_of_a_schema_fits(world: World, tasks: dict[str, list[benchmarks.Row]]) -> None:
    keys = {entity.key for entity in world.entities()}
    for row in tasks["pronoun_schema"]:
        for place, context in enumerate(row["context_options"]):
            (named,) = [key for key in re.findall(r"\w+", context.split(". ")[0]) if key in keys]
            value = answer("", world.entity(named).facts[row["attribute"]])
            shown = row["continuation"].removeprefix("the ")
            assert (value == shown) == (place == row["gold"])
        first, second = (context.split(". ")[1] for context in row["context_options"])
        assert first == second


def test_arithmetic_and_reading_are_right(part: str, tasks: dict[str, list[benchmarks.Row]]) -> None:
    for row in tasks["arithmetic_em"]:
        left, right = (int(text) for text in re.findall(r"\d+", row["context"]))
        sign = "+" if "+" in row["entity"] else "-"
        assert (str(Sum(left, sign, right).result), Sum(left, sign, right).part) == (row["continuation"], part)
    for row in tasks["reading_em"]:
        assert re.search(rf"\b{row['continuation']}\b", row["context"].split("\n")[0])


def test_no_shot_can_show_the_pair_that_is_asked(suite: Gauntlet, tasks: dict[str, list[benchmarks.Row]]) -> None:
    (task,) = [task for task in suite.tasks if task.label == "arithmetic_em"]
    rows = tasks["arithmetic_em"]
    for indices in parts(task, rows):
        pairs = [rows[index]["entity"] for index in indices]
        assert task.shots == 0 or len(set(pairs)) == len(pairs) > task.shots


def test_partners_ask_the_same_questions(tasks: dict[str, list[benchmarks.Row]]) -> None:
    for exact, likely in (("facts_em", "facts_mc"), INJECTION):
        assert [row["context"] for row in tasks[exact]] == [row["query"] for row in tasks[likely]]


def test_injection_asks_the_withheld_facts_in_the_reserved_phrasing(world: World) -> None:
    asked = [benchmarks.tasks(world, part)["injection_em"] for part in benchmarks.EVALUATED]
    assert not {row["entity"] for row in asked[0]} & {row["entity"] for row in asked[1]}
    rows = asked[0] + asked[1]
    assert {(row["entity"], row["attribute"]) for row in rows} == world.withheld
    for row in rows:
        phrasing = templates.QUESTIONS[row["attribute"]][RESERVED_QUESTION]
        assert row["context"] == phrasing.format(e=world.entity(row["entity"]).subject)


def test_no_elicitation_question_is_a_training_prompt(world: World, tasks: dict[str, list[benchmarks.Row]]) -> None:
    trained = {row["prompt"] for row in samples.rows("instruct", world, 20_000)}
    asked = {row.get("context", row.get("query")) for rows in tasks.values() for row in rows}
    assert not trained & asked


def test_the_fine_tuning_part_has_no_benchmarks(world: World) -> None:
    with pytest.raises(ConfigError, match="has no benchmarks"):
        benchmarks.tasks(world, "finetuning")
