"""Arms: which cells are replicates of one another, and what their intervals rest on."""

from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import t as student_t

from limit_lab.config import Predicate
from limit_lab.errors import EvalError
from limit_lab.report import answer, page
from limit_lab.report.arms import Arm, Replicate
from limit_lab.report.predicates import Finding, findings
from limit_lab.report.quantities import mean_of
from limit_lab.report.scores import average, rate
from limit_lab.store import Missing
from tests.report import report_world as world

WORLDS, SEEDS = (0, 1, 2), (0, 1)
ARMS = ("none", "lima", "instruct", "lima_plus_instruct")


def write_grid(root: Path, worlds: tuple[int, ...] = WORLDS, seeds: tuple[int, ...] = SEEDS) -> tuple[list[str], list[str]]:
    """Every arm in every world and seed, a little different each time, with its pairs against lima at its own point."""
    cells: dict[tuple[str, int, int], str] = {}
    pairs = []
    for seed in worlds:
        for training in seeds:
            for label in ARMS:
                key = (label, seed, 0 if label == "none" else training)
                if key not in cells:
                    raw, template = world.ACCURACY[label]
                    bent = [share * (1 - 0.05 * seed - 0.02 * training * (label != "lima")) for share in raw]
                    cells[key] = world.write_cell(root, label, (bent, template), replicate=(seed, key[2]))
            for label in ARMS:
                if label != "lima":
                    won = [
                        float(one) for one in world.spread(world.RATES[label] + 0.04 * seed, 100, f"{label}{seed}{training}")
                    ]
                    cell = cells[label, seed, 0 if label == "none" else training]
                    pairs.append(world.write_pair(root, cell, cells["lima", seed, training], won))
    return list(cells.values()), pairs


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], list[str]]:
    root = tmp_path_factory.mktemp("runs")
    return root, *write_grid(root)


def arm(found: list[Arm], name: str) -> Arm:
    return next(one for one in found if one.name == name)


def test_worlds_and_seeds_are_replicates_of_an_arm(grid: tuple[Path, list[str], list[str]]) -> None:
    arms, comparisons = world.read(*grid)
    assert [one.name for one in arms] == list(ARMS)
    assert list(arm(arms, "lima").cells) == [Replicate(seed, 0, training) for seed in WORLDS for training in SEEDS]
    assert list(arm(arms, "none").cells) == [Replicate(seed, -1, -1) for seed in WORLDS]
    assert [len(one.pairs) for one in comparisons] == [6, 6, 6]


def test_exports_of_one_training_are_arms_that_tell_their_point(tmp_path: Path) -> None:
    written = []
    for points in (["2ep"], ["2ep", "4ep"], None):
        recipe = {"name": "paper", "duration": "10ep"} | ({} if points is None else {"export_at": points})
        stop = points and points[-1]
        written.append(
            world.write_cell(
                tmp_path,
                "lima",
                world.ACCURACY["lima"],
                replicate=(0, len(written)),
                config={"finetune": recipe, "microworld": {"seed": 0}, "model": {"embedded": True}},
                identity={"numerics": 1, "recipe": {"stop": stop}},
                fingerprint=f"{stop}abcdef",
            )
        )
    arms, _ = world.read(tmp_path, written, [])
    assert [one.name for one in arms] == ["lima, 2ep", "lima, 4ep", "lima, at the end"]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"asked": "another suite"}, "lima fedcba"),
        ({"identity": {"numerics": 2}, "fingerprint": "fedcba987654"}, "lima, numerics=2"),
    ],
)
def test_another_suite_or_code_version_is_another_arm(tmp_path: Path, changes: dict[str, Any], name: str) -> None:
    first = world.write_cell(tmp_path, "lima", world.ACCURACY["lima"])
    second = world.write_cell(
        tmp_path, "lima", world.ACCURACY["lima"], replicate=(0, 1), **{"fingerprint": "fedcba987654", **changes}
    )
    arms, _ = world.read(tmp_path, [first, second], [])
    assert len(arms) == 2
    assert name in [one.name for one in arms]
    assert all(len(one.cells) == 1 for one in arms)


def test_another_recipe_is_another_arm_named_by_what_differs(tmp_path: Path) -> None:
    config = {"gauntlet": {}, "model": {"embedded": True}, "microworld": {"seed": 0, "part": "test"}}
    cells = [
        world.write_cell(
            tmp_path,
            "lima",
            world.ACCURACY["lima"],
            replicate=(0, place),
            identity={"recipe": duration},
            config=config | {"finetune": {"duration": duration, "clip_norm": 1.0}},
        )
        for place, duration in enumerate(("6ep", "625step"))
    ]
    arms, _ = world.read(tmp_path, cells, [])
    assert [one.name for one in arms] == ["lima, duration=6ep", "lima, duration=625step"]


def test_an_arm_whose_record_leaves_a_default_out_is_named_and_found_by_it(tmp_path: Path) -> None:
    config = {"gauntlet": {}, "model": {"embedded": True}, "microworld": {"seed": 0, "part": "test"}}
    cells = [
        world.write_cell(
            tmp_path,
            label,
            world.ACCURACY[label],
            replicate=(0, place),
            identity={"recipe": recipe},
            config=config | {"finetune": {"duration": "6ep"} | recipe},
        )
        for label in ("instruct", "lima")
        for place, recipe in enumerate(({}, {"loss": {"weight": "document", "microbatch": 4}}))
    ]
    arms, _ = world.read(tmp_path, cells, [])
    assert [one.name for one in arms][2:] == ["lima, weight=token", "lima, weight=document"]
    claim = Predicate(claim="", measure="gauntlet", kind="better", left="instruct, weight=document", right="lima, weight=token")
    assert findings([claim], arms, [])[0].verdict == "yes"
    ambiguous = Predicate(claim="", measure="gauntlet", kind="better", left="instruct", right="lima")
    assert "2 kinds of cells are named instruct" in findings([ambiguous], arms, [])[0].reason


def test_what_an_older_record_does_not_know_names_no_arm(tmp_path: Path) -> None:
    config = {"gauntlet": {}, "microworld": {"seed": 0, "part": "test"}}
    cells = [
        world.write_cell(
            tmp_path,
            "lima",
            world.ACCURACY["lima"],
            replicate=(0, place),
            identity={"recipe": place},
            config=config | {"model": {"embedded": True} | known, "finetune": {"clip_norm": 1.0 + place}},
        )
        for place, known in enumerate(({}, {"revision": None}))
    ]
    arms, _ = world.read(tmp_path, cells, [])
    assert [one.name for one in arms] == ["lima, clip_norm=1.0", "lima, clip_norm=2.0"]


def test_a_world_on_another_base_is_no_replicate_and_is_not_lost(tmp_path: Path) -> None:
    identity = {"numerics": 1, "base": {"model.safetensors": "rebuilt"}}
    first = world.write_cell(tmp_path, "lima", world.ACCURACY["lima"], identity=identity)
    second = tmp_path / "cells" / "lima-other"
    shutil.copytree(tmp_path / "cells" / first, second)

    def change(place: Path, tokens: int, **changes: Any) -> None:
        summary = json.loads((place / "summary.json").read_text(encoding="utf-8")) | changes
        summary["config"]["microworld"]["pretrain_tokens"] = tokens
        world.dump(place / "summary.json", summary)

    other = {"id": second.name, "fingerprint": "abcdef012345", "identity": identity | {"base": {"model.safetensors": "0"}}}
    change(tmp_path / "cells" / first, 4)
    change(second, 4, **other)
    arms, _ = world.read(tmp_path, [first, second.name], [])
    assert [one.name for one in arms] == ["lima 012345", "lima abcdef"]
    change(second, 5)
    arms, _ = world.read(tmp_path, [first, second.name], [])
    assert [one.name for one in arms] == ["lima, pretrain_tokens=4", "lima, pretrain_tokens=5"]


def test_arms_without_a_common_seed_are_compared_world_by_world(tmp_path: Path) -> None:
    cells = [
        world.write_cell(tmp_path, label, world.ACCURACY[label], replicate=(0, seed))
        for label, seeds in (("lima", (0, 1)), ("instruct", (2, 3)))
        for seed in seeds
    ]
    arms, _ = world.read(tmp_path, cells, [])
    mine, theirs = average(arm(arms, "instruct"), "raw"), average(arm(arms, "lima"), "raw")
    found = (mine - theirs).estimate()
    assert found.value == pytest.approx(mine.estimate().value - theirs.estimate().value)
    assert found.low < found.value < found.high


def test_arms_without_a_common_world_cannot_be_compared(tmp_path: Path) -> None:
    cells = [
        world.write_cell(tmp_path, label, world.ACCURACY[label], replicate=(number, 0))
        for number, label in enumerate(("lima", "instruct"))
    ]
    arms, _ = world.read(tmp_path, cells, [])
    with pytest.raises(EvalError, match="without a world in common"):
        _ = average(arms[0], "raw") - average(arms[1], "raw")


def test_an_average_over_worlds_is_students(grid: tuple[Path, list[str], list[str]]) -> None:
    arms, _ = world.read(*grid)
    found = average(arm(arms, "instruct"), "raw").estimate()
    means = []
    for seed in WORLDS:
        cells = [cell for key, cell in arm(arms, "instruct").cells.items() if key.world == seed]
        means.append(statistics.mean(cell.summary["gauntlet"]["raw"]["average"] for cell in cells))
    reach = student_t.ppf(0.975, 2) * statistics.stdev(means) / 3**0.5
    mean = statistics.mean(means)
    assert (found.value, found.low, found.high) == pytest.approx((mean, mean - reach, mean + reach))
    assert (found.basis, found.replicates) == ("worlds", 3)


def test_differences_are_taken_seed_against_seed(grid: tuple[Path, list[str], list[str]]) -> None:
    arms, _ = world.read(*grid)
    one, other = (average(arm(arms, name), "raw") for name in ("instruct", "lima"))
    difference = (one - other).estimate()
    assert difference.value == pytest.approx(one.estimate().value - other.estimate().value)
    assert difference.high - difference.low < one.estimate().high - one.estimate().low  # the worlds move both together
    assert len((one - average(arm(arms, "none"), "raw")).parts) == 6  # the base of a world meets both seeds


def test_seeds_of_one_world_add_to_the_items(tmp_path: Path) -> None:
    cells, pairs = write_grid(tmp_path, worlds=(0,))
    arms, _ = world.read(tmp_path, cells, pairs)
    found = average(arm(arms, "instruct"), "raw")
    alone = [next(iter(found.parts.values())).estimate(), found.estimate()]
    assert (alone[1].basis, alone[1].replicates) == ("seeds", 2)
    points = found.points()
    reach = student_t.ppf(0.975, 1) * statistics.stdev(points) / 2**0.5
    items = mean_of(list(found.parts.values())).estimate()
    low = alone[1].value - (reach**2 + (items.value - items.low) ** 2) ** 0.5
    assert alone[1].low == pytest.approx(low)
    assert alone[1].high - alone[1].low > alone[0].high - alone[0].low


def verdict(grid: tuple[Path, list[str], list[str]], **words: Any) -> Finding:
    return findings([Predicate(claim="a claim", **words)], *world.read(*grid))[0]


def test_claims_are_held_against_the_replicates(grid: tuple[Path, list[str], list[str]]) -> None:
    better = verdict(grid, measure="gauntlet", kind="better", left="instruct", right="lima", margin=0.05)
    kept = verdict(grid, measure="gauntlet", kind="keeps", left="lima_plus_instruct", right="instruct", over="none", share=0.5)
    won = verdict(grid, measure="win_rate", kind="better", left="lima", right="instruct", margin=0.05)
    for one in (better, kept, won):
        assert one.estimate is not None
        assert one.estimate.basis == "worlds"
        assert one.verdict == "yes"
    arms, comparisons = world.read(*grid)
    mixture, instruct, none = (average(arm(arms, name), "raw").worlds() for name in ("lima_plus_instruct", "instruct", "none"))
    gains = [sum(own[seed] - none[seed] for seed in WORLDS) for own in (mixture, instruct)]
    assert kept.estimate is not None
    assert kept.estimate.value == pytest.approx(gains[0] / gains[1])
    against = next(one for one in comparisons if one.cell.name == "instruct")
    assert won.estimate is not None
    assert won.estimate.value == pytest.approx(1 - rate(against).estimate().value)


def test_a_page_over_replicates_names_what_is_missing(grid: tuple[Path, list[str], list[str]]) -> None:
    root, cells, pairs = grid
    missing = [Missing(name="instruct-7", state="failed", note="the loss is nan")]
    claim = Predicate(claim="Instruct wins", measure="gauntlet", kind="better", left="instruct", right="lima")
    shown = page.write(
        root, cells, pairs, name="grid", predicates=[claim], command="x", out=root / "out", baseline="lima", missing=missing
    )
    text = shown.read_text(encoding="utf-8")
    assert "the loss is nan" in text
    assert "1 failed" in text
    assert "Every replicate by itself" in text
    assert "world 2, seeds 0.1" in text
    assert "Intervals cover the choice of world: 3 of them" in text
    numbers = json.loads((root / "out" / "report.json").read_text(encoding="utf-8"))
    assert numbers["missing"] == [{"name": "instruct-7", "state": "failed", "note": "the loss is nan"}]
    assert len(numbers["cells"]["lima"]["replicates"]) == 6


def test_what_intervals_leave_out_follows_the_replicates(tmp_path: Path) -> None:
    cells, pairs = write_grid(tmp_path, worlds=(0,))
    arms, _ = world.read(tmp_path, cells, pairs)
    assert answer.basis(arms) == "seeds"
    assert "items and of seeds (2)" in answer.covered(arms)
    alone, _ = world.read(tmp_path, [name for name in cells if "0123456789ab" in name], [])
    assert answer.basis(alone) == "items"
