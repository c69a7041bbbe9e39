"""What a suite can tell: shares of variance, detectable differences and chance, against worked numbers and the bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limit_lab.report import quantities as q
from limit_lab.report.chance import Chance, chance
from limit_lab.report.records import Cell, Suite, Task
from limit_lab.report.resolution import resolutions
from limit_lab.report.suite_table import INDENT, suite_tables
from tests.report import report_world as world

answers = st.lists(st.sampled_from([0.0, 1.0]), min_size=8, max_size=40)


def task(label: str, correct: Sequence[float], **more: object) -> Task:
    told = {"type": "multiple_choice", "category": "c", "baseline": 0.0, "partner": None, "groups": [None] * len(correct)}
    clusters = [f"{label} {place}" for place in range(len(correct))]
    made = {"clusters": clusters, **told, **more}
    return Task(label=label, correct=correct, **{"categories": [made["category"]], **made})


def cell(name: str, *tasks: Task, average: Sequence[str] = ("c",)) -> Cell:
    suite = Suite(name="s", tasks={one.label: one for one in tasks}, average=average, not_asked=[])
    return Cell(id=name, label=name, name=name, summary={}, suites={"raw": suite}, answers=[])


def coins(right: int, count: int) -> list[float]:
    return [1.0] * right + [0.0] * (count - right)


def test_worked_numbers() -> None:
    """100 items at 50 % and 25 at 20 %: errors 5 and 8 points; the average of two has variance (0.0025 + 0.0064) / 4."""
    found = resolutions([cell("a", task("x", coins(50, 100)), task("y", coins(5, 25)))], "raw")
    x, y, average = found["tasks"]["x"], found["tasks"]["y"], found["average"]["average"]
    assert (x.error, y.error) == pytest.approx((0.05, 0.08))
    assert average.error == pytest.approx((0.0089 / 4) ** 0.5)
    assert (x.share, y.share) == pytest.approx((25 / 89, 64 / 89))
    assert x.unpaired == pytest.approx(2.801585 * 2**0.5 * 0.05)
    assert (x.paired, average.paired) == (None, None)
    assert found["categories"]["c"].share == pytest.approx(1.0)


def test_rescaling_and_categories_weigh_a_tasks_noise() -> None:
    """A choice of two counts twice its accuracy; a category of its own counts half the average; one outside has no share."""
    parts = [
        task("x", coins(50, 100), baseline=0.5),
        task("y", coins(50, 100), category="d"),
        task("z", coins(50, 100), category="outside"),
    ]
    found = resolutions([cell("a", *parts, average=("c", "d"))], "raw")
    assert [found["tasks"][label].share for label in "xyz"] == [pytest.approx(0.8), pytest.approx(0.2), None]
    assert [found["tasks"][label].error for label in "xyz"] == pytest.approx([0.05] * 3)
    assert [one.error for one in found["categories"].values()] == pytest.approx([0.1, 0.05, 0.05])
    assert found["average"]["average"].error == pytest.approx(0.05 * 5**0.5 / 2)


def test_pairing_counts_only_the_items_that_change() -> None:
    """Of 100 items 2 turn right and none wrong: the difference has the variance 0.02 * 0.98 / 100."""
    one, other = coins(50, 100), coins(52, 100)
    found = resolutions([cell("a", task("x", one)), cell("b", task("x", other))], "raw")["tasks"]["x"]
    assert found.paired == pytest.approx(2.801585 * (0.02 * 0.98 / 100) ** 0.5)
    assert found.unpaired == pytest.approx(2.801585 * (2 * (0.5 * 0.5 + 0.52 * 0.48) / 2 / 100) ** 0.5)
    elsewhere = cell("b", task("x", other, clusters=[f"other {place}" for place in range(100)]))
    assert resolutions([cell("a", task("x", one)), elsewhere], "raw")["tasks"]["x"].paired is None


def test_nothing_is_detectable_where_all_items_are_alike() -> None:
    found = resolutions([cell("a", task("x", coins(20, 20))), cell("b", task("x", coins(20, 20)))], "raw")
    assert found["tasks"]["x"].unpaired is None
    assert found["average"]["average"].share is None


@settings(max_examples=25)
@given(answers, answers, st.integers(1, 3))
def test_shares_sum_to_one_and_errors_are_those_of_the_bootstrap(one: list[float], other: list[float], together: int) -> None:
    """Items in clusters of up to three that both tasks share: the linear form and the resampling agree."""
    tasks = [
        task(label, values * 4, clusters=[f"e{place // together}" for place in range(4 * len(values))], baseline=chance_level)
        for label, values, chance_level in (("x", one, 0.25), ("y", other, 0.0))
    ]
    asked = cell("a", *tasks)
    found = resolutions([asked], "raw")
    measured = q.average(asked, "raw").estimate()
    assert found["average"]["average"].error == pytest.approx(measured.error, rel=0.15, abs=1e-9)
    for label in "xy":
        own = q.accuracy(asked, "raw", asked.suites["raw"].tasks[label]).estimate()
        assert found["tasks"][label].error == pytest.approx(own.error, rel=0.15, abs=1e-9)
    shares = [found["tasks"][label].share for label in "xy"]
    assert shares == [None, None] or sum(shares) == pytest.approx(1.0)


@settings(max_examples=15)
@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=30, max_size=80))
def test_the_paired_error_is_that_of_the_bootstrapped_difference(values: list[tuple[float, float]]) -> None:
    left, right = (cell(name, task("x", [pair[at] for pair in values])) for at, name in enumerate("ab"))
    found = resolutions([left, right], "raw")["average"]["average"].paired or 0.0
    measured = (q.average(left, "raw") - q.average(right, "raw")).estimate()
    assert found == pytest.approx(2.801585 * measured.error, rel=0.15, abs=1e-9)


def test_a_task_with_categories_is_resampled_within_them() -> None:
    """90 items of one category at 50 %, 10 of another at 50 %: the mean of both has the variance of the mean of two means."""
    parts = ["m"] * 90 + ["n"] * 10
    one = task("x", [*coins(45, 90), *coins(5, 10)], parts=parts)
    found = resolutions([cell("a", one)], "raw")["tasks"]["x"]
    assert found.error == pytest.approx(((0.25 / 90 + 0.25 / 10) / 4) ** 0.5)
    assert q.accuracy(cell("a", one), "raw", one).estimate().error == pytest.approx(found.error, rel=0.06)


@pytest.mark.parametrize(
    ("golds", "choices", "parts", "expected"),
    [
        ([0, 0, 1, 2], [4, 4, 4, 2], (), Chance((0.75 + 0.5) / 4, 0.5)),
        ([0] * 5, [4] * 5, (), Chance(0.25, 1.0)),
        ([" yes", " no", " yes"], [0] * 3, (), Chance(None, 2 / 3)),
        ([["5", "five"], ["6"], ["five"]], [0] * 3, (), Chance(None, 2 / 3)),
        ([0, 0, 0, 1], [2] * 4, ["m", "m", "m", "n"], Chance(0.5, 0.5)),
        ([1, None], [2, 2], (), None),
        ([], [], (), None),
    ],
)
def test_chance_is_counted_in_the_items(
    golds: list[object], choices: list[int], parts: Sequence[str], expected: Chance | None
) -> None:
    found = chance(task("x", [1.0] * len(golds), golds=golds, choices=choices, parts=parts))
    if expected is None or found is None:
        assert found is expected
    else:
        assert found.same == pytest.approx(expected.same)
        assert found.drawn == (None if expected.drawn is None else pytest.approx(expected.drawn))


def test_the_table_names_every_task_with_its_chance(tmp_path: Path) -> None:
    cells, pairs = world.write_study(tmp_path)
    arms, _ = world.read(tmp_path, cells, pairs)
    (sentences, table), (template, _) = suite_tables(arms)
    assert sentences.startswith("Raw prompts: Two cells that answer the same items differ detectably from ")
    assert template.startswith("In the template: ")
    names = [str(row[0]).strip() for row in table.rows]
    assert names[0] == "average"
    assert set(world.TASKS) <= set(names)
    assert all(len(row) == len(table.columns) for row in table.rows)
    shares = [float(str(row[6]).removesuffix(" %")) for row in table.rows if str(row[0]).startswith(INDENT)]
    assert sum(shares) == pytest.approx(100, abs=0.3)
    assert table.rows[names.index("letters_mc")][3:6] == ["25", "–", "–"]
