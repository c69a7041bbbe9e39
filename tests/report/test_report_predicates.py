"""Verdicts on constructed records: yes, no, and not determined with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from limit_lab.config import Predicate
from limit_lab.report.predicates import Finding, findings
from tests.report import report_world as world


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], list[str]]:
    root = tmp_path_factory.mktemp("runs")
    return root, *world.write_study(root)


def judge(study: tuple[Path, list[str], list[str]], **words: Any) -> Finding:
    return findings([Predicate(claim="a claim", **words)], *world.read(*study))[0]


@pytest.mark.parametrize(
    ("words", "verdict"),
    [
        ({"measure": "gauntlet", "kind": "better", "left": "instruct", "right": "lima", "margin": 0.05}, "yes"),
        ({"measure": "gauntlet", "kind": "better", "left": "lima", "right": "instruct"}, "no"),
        ({"measure": "gauntlet", "kind": "better", "left": "instruct_5k", "right": "instruct"}, "not determined"),
        ({"measure": "gauntlet", "kind": "within", "left": "instruct", "right": "instruct_5k", "margin": 0.2}, "yes"),
        ({"measure": "gauntlet", "kind": "within", "left": "lima", "right": "instruct", "margin": 0.05}, "no"),
        (
            {
                "measure": "gauntlet",
                "kind": "keeps",
                "left": "instruct",
                "right": "instruct_5k",
                "over": "none",
                "share": 0.5,
            },
            "yes",
        ),
        ({"measure": "gauntlet", "kind": "keeps", "left": "lima", "right": "instruct", "over": "none", "share": 0.5}, "no"),
        ({"measure": "win_rate", "kind": "better", "left": "lima", "right": "instruct", "margin": 0.1}, "yes"),
        ({"measure": "win_rate", "kind": "better", "left": "instruct", "right": "lima"}, "no"),
        ({"measure": "win_rate", "kind": "better", "left": "instruct", "right": "none"}, "not determined"),
        ({"measure": "win_rate", "kind": "within", "left": "lima_plus_instruct", "right": "lima", "margin": 0.15}, "yes"),
        (
            {"measure": "win_rate", "kind": "within", "left": "lima_plus_instruct", "right": "lima", "margin": 0.05},
            "not determined",
        ),
        ({"measure": "win_rate", "kind": "within", "left": "instruct", "right": "lima", "margin": 0.05}, "no"),
        (
            {
                "measure": "win_rate",
                "kind": "keeps",
                "left": "lima_plus_instruct",
                "right": "lima",
                "over": "none",
                "share": 0.5,
            },
            "yes",
        ),
        (
            {"measure": "judge_score", "kind": "better", "left": "lima_plus_instruct", "right": "instruct", "margin": 0.05},
            "yes",
        ),
        ({"measure": "judge_score", "kind": "better", "left": "instruct", "right": "lima"}, "no"),
    ],
)
def test_a_verdict_follows_the_fixed_rule(
    study: tuple[Path, list[str], list[str]], words: dict[str, Any], verdict: str
) -> None:
    found = judge(study, **words)
    assert (found.verdict, found.reason) == (verdict, "")
    assert found.estimate is not None


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"measure": "gauntlet", "kind": "better", "left": "instruct", "right": "gone"}, "there is no cell gone"),
        ({"measure": "win_rate", "kind": "better", "left": "gone", "right": "lima"}, "there is no cell gone"),
        (
            {"measure": "gauntlet", "kind": "keeps", "left": "instruct", "right": "lima", "over": "none"},
            "no clear gain over none",
        ),
    ],
)
def test_what_cannot_be_judged_says_why(study: tuple[Path, list[str], list[str]], words: dict[str, Any], reason: str) -> None:
    found = judge(study, **words)
    assert found.verdict == "not determined"
    assert reason in found.reason


def test_a_reversed_pair_gives_the_complement(study: tuple[Path, list[str], list[str]]) -> None:
    one = judge(study, measure="win_rate", kind="better", left="instruct", right="lima").estimate
    other = judge(study, measure="win_rate", kind="better", left="lima", right="instruct").estimate
    assert one is not None
    assert other is not None
    assert (one.value, one.low, one.high) == pytest.approx((1 - other.value, 1 - other.high, 1 - other.low))


def test_a_cell_equals_itself_exactly(study: tuple[Path, list[str], list[str]]) -> None:
    found = judge(study, measure="gauntlet", kind="within", left="lima", right="lima", margin=0.01)
    assert found.estimate is not None
    assert (found.estimate.low, found.estimate.high, found.verdict) == (0.0, 0.0, "yes")


def test_a_heuristic_decides_no_preference(tmp_path: Path) -> None:
    one, other = (world.write_cell(tmp_path, label, world.ACCURACY[label]) for label in ("instruct", "lima"))
    pair = world.write_pair(tmp_path, one, other, [1.0] * 60, judge="length", plain=True)
    found = judge((tmp_path, [one, other], [pair]), measure="win_rate", kind="better", left="instruct", right="lima")
    assert (found.verdict, found.reason) == ("not determined", "length is no preference judge")


def test_averages_over_different_questions_are_not_compared(tmp_path: Path) -> None:
    one = world.write_cell(tmp_path, "instruct", world.ACCURACY["instruct"])
    other = world.write_cell(tmp_path, "lima", world.ACCURACY["lima"], items=80)
    found = judge((tmp_path, [one, other], []), measure="gauntlet", kind="better", left="instruct", right="lima")
    assert (found.verdict, found.reason) == ("not determined", "the cells were asked different questions")
