"""The cells of a study: their order, each mixture once, and no mixture changed behind one's back."""

from __future__ import annotations

from pathlib import Path

import pytest

from limit_lab import cell, estimate, plan, store
from limit_lab.compose import compose, directories
from limit_lab.config import Study
from limit_lab.couples import couples
from limit_lab.errors import ConfigError
from limit_lab.grid import cells, shrunk
from limit_lab.microworld.checkpoint import made_at, missing
from limit_lab.overrides import expand
from limit_lab.shapes import shape_of
from tests.folders import user_configs


@pytest.fixture
def user(tmp_path: Path) -> Path:
    return user_configs(tmp_path)


def names(overrides: list[str], user: Path) -> list[str]:
    return [cell.mixture.name for cell in cells(compose(overrides, user), overrides, user)]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], ["lima", "lima_plus_instruct"]),
        (["study.baseline=null"], ["lima_plus_instruct"]),
        (["mixture=lima"], ["lima"]),
        (["+experiment=micro_limit"], ["none", "lima", "instruct", "lima_plus_instruct"]),
        (
            ["+experiment=micro_limit", "study.baseline=instruct_5k"],
            ["instruct_5k", "none", "lima", "instruct", "lima_plus_instruct"],
        ),
        (["+experiment=micro_limit", "mixture=lima"], ["none", "instruct", "lima"]),
        (["study.mixtures=[none,none]"], ["lima", "none", "lima_plus_instruct"]),
        (["+experiment=real_rows"], ["lima_small", "lima_plus_instruct_v1_small"]),
        (["+experiment=paper_7b_lima_plus_instruct"], ["lima", "lima_plus_instruct_v1_5k"]),
    ],
)
def test_further_mixtures_then_the_configured_one_each_once(overrides: list[str], expected: list[str], user: Path) -> None:
    assert names(overrides, user) == expected


def test_values_of_the_configured_mixture_stay_with_it(user: Path) -> None:
    overrides = ["mixture=lima", "mixture.samples.lima=500", "+mixture.samples.instruct=2", "seeds.training=4"]
    first, last = cells(compose(overrides, user), overrides, user)
    assert first.mixture.samples == {"lima": 1000}
    assert last.mixture.samples == {"lima": 500, "instruct": 2}
    assert first.seeds.training == last.seeds.training == 4


def test_the_cells_differ_in_their_mixture_only(user: Path) -> None:
    first, *_, last = cells(compose(["+experiment=micro_limit"], user), ["+experiment=micro_limit"], user)
    different = [name for name in first.__dataclass_fields__ if getattr(first, name) != getattr(last, name)]
    assert different == ["mixture"]


def test_an_absent_baseline_is_refused(user: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'lima'"):
        names(["study.baseline=limaa"], user)


@pytest.mark.parametrize("values", ["{name: other, samples: {lima: 5}}", "{samples: {lima: 5}}"])
def test_an_overlay_may_not_change_every_mixture_at_once(values: str, user: Path) -> None:
    (user / "experiment").mkdir()
    (user / "experiment" / "bad.yaml").write_text(f"# @package _global_\nmixture: {values}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="override /mixture"):
        names(["+experiment=bad"], user)


def grid(user: Path, text: str) -> list[str]:
    (user / "grid").mkdir(exist_ok=True)
    (user / "grid" / "mine.yaml").write_text(f"# @package _global_\nstudy: {text}\n", encoding="utf-8")
    return ["+grid=mine"]


def test_a_grid_is_the_product_of_mixtures_and_axes(user: Path) -> None:
    given = grid(user, "{mixtures: [none, lima, instruct], axes: {microworld.seed: [0, 3], seeds.training: [0, 1, 2]}}")
    found = cells(compose(given, user), given, user)
    points = [(cell.microworld.seed, cell.seeds.training, cell.mixture.name) for cell in found]
    names = ["none", "lima", "instruct", "lima_plus_instruct"]
    assert points == [(world, seed, name) for world in (0, 3) for seed in (0, 1, 2) for name in names]


def test_a_group_can_be_an_axis(user: Path) -> None:
    given = grid(user, "{mixtures: [lima], axes: {prompt.format: [bare, alpaca], answers: [micro, lima_test]}}")
    found = cells(compose([*given, "data.dir=/d"], user), [*given, "data.dir=/d"], user)
    assert {(cell.prompt.format, cell.answers.name) for cell in found} == {
        (form, prompts) for form in ("bare", "alpaca") for prompts in ("micro", "lima_test")
    }
    assert len(found) == 8


def test_a_mixture_can_be_written_out(user: Path) -> None:
    given = ["study.mixtures=['instruct:20000','lima:1000+instruct:7000']"]
    first, second, *_ = cells(compose([*given, "study.baseline=null"], user), [*given, "study.baseline=null"], user)
    assert (first.mixture.name, first.mixture.samples) == ("instruct_20000", {"instruct": 20_000})
    assert (second.mixture.name, second.mixture.samples) == ("lima_1000_plus_instruct_7000", {"lima": 1000, "instruct": 7000})


def test_the_baseline_can_be_written_out(user: Path) -> None:
    given = ["study.baseline='lima:50'", "mixture=instruct"]
    study = compose(given, user)
    assert [cell.mixture.name for cell in cells(study, given, user)] == ["lima_50", "instruct"]
    assert study.study.baseline_name == "lima_50"
    assert estimate.pairs(cells(study, given, user)) == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["study.mixtures=['lima:1000']", "mixture=instruct"], ["lima", "instruct"]),
        (["study.mixtures=['instruct:1000+lima:1000',lima]", "mixture=instruct"], ["lima_plus_instruct", "lima", "instruct"]),
        (["study.mixtures=['instruct:5+lima:6','lima:6+instruct:5']", "mixture=lima"], ["lima_6_plus_instruct_5", "lima"]),
        (["study.baseline='lima:1000'", "mixture=instruct"], ["lima", "instruct"]),
        (["mixture=lima", "mixture.samples.lima=500"], ["lima", "lima_500"]),
        (["mixture=instruct", "mixture.samples.instruct=5000"], ["lima", "instruct_5k"]),
        (["mixture=lima_plus_instruct", "~mixture.samples.instruct"], ["lima"]),
        (["mixture=lima", "mixture.samples.lima=500", "mixture.name=mine"], ["lima", "mine"]),
    ],
)
def test_equal_samples_have_one_name(given: list[str], expected: list[str], user: Path) -> None:
    found = cells(compose(given, user), given, user)
    assert [cell.mixture.name for cell in found] == expected
    assert found[-1].study.baseline_name in expected
    assert all(cell.study == found[-1].study for cell in found)


def test_claims_follow_the_one_name(user: Path) -> None:
    claim = "{claim: c, measure: gauntlet, kind: better, left: instruct_5000, right: lima_250}"
    given = grid(user, f"{{mixtures: ['instruct:5000', 'lima:250'], predicates: [{claim}]}}")
    (found,) = cells(compose(given, user), given, user)[-1].study.predicates
    assert (found.left, found.right) == ("instruct_5k", "lima_250")


def test_a_mixture_of_the_user_gives_its_name(user: Path) -> None:
    (user / "mixture").mkdir()
    (user / "mixture" / "mine.yaml").write_text("name: mine\nsamples: {lima: 77}\n", encoding="utf-8")
    assert names(["study.mixtures=['lima:77']", "mixture=lima"], user) == ["mine", "lima"]


def test_what_follows_the_mixture_is_composed(user: Path) -> None:
    given = ["mixture=lima", "study.mixtures=[instruct]", "judge.name='by_${mixture.name}'"]
    assert [cell.judge.name for cell in cells(compose(given, user), given, user)] == ["by_instruct", "by_lima"]


def test_several_calls_reach_the_folders_of_the_grid(user: Path) -> None:
    given = [*grid(user, "{mixtures: [lima, 'instruct:250'], axes: {seeds.training: [0, 1]}}"), "mixture=instruct"]
    wanted = {cell.folder_of(study) for study in cells(compose(given, user), given, user)}
    lines = (
        ["mixture=lima,instruct", "seeds.training=0,1"],
        ["mixture=instruct", "mixture.samples.instruct=250", "seeds.training=0,1"],
    )
    calls = [call for line in lines for call in expand(line, directories(user))]
    found = [study for call in calls for study in cells(compose(call, user), call, user)]
    assert len(calls) == 6
    assert {cell.folder_of(study) for study in found} == wanted
    assert len(wanted) == 6


def test_an_override_takes_the_place_of_an_axis_and_is_announced(user: Path) -> None:
    given = [*grid(user, "{mixtures: [lima], axes: {seeds.training: [0, 1], seeds.subset: [0, 1]}}"), "seeds.training=5"]
    study = compose(given, user)
    assert {(cell.seeds.training, cell.seeds.subset) for cell in cells(study, given, user)} == {(5, 0), (5, 1)}
    assert shrunk(study, given) == ["seeds.training=5 takes the place of the axis seeds.training: [0, 1]."]
    assert shrunk(study, given[:1]) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "{axes: {seeds.trainin: [0]}}",
            "the axis 'seeds.trainin' is no key of the configuration; did you mean 'seeds.training'",
        ),
        ("{axes: {seeds.training: []}}", "the axis seeds.training has no values, so the grid has no cells"),
        ("{axes: {mixture: [lima]}}", "write the mixtures there, such as lima:1000"),
        ("{axes: {seeds.training: [a]}}", "the axis seeds.training holds 'a', which is no int"),
        ("{axes: {finetune.batch: [0doc]}}", "finetune.batch='0doc' is no batch"),
        ("{mixtures: ['limaa:10']}", "names the source 'limaa', which data=microworld does not have; did you mean 'lima'"),
        ("{mixtures: ['lima:0']}", "mixture.samples.lima=0 is no sample count"),
    ],
)
def test_a_grid_that_cannot_be_is_one_sentence(text: str, said: str, user: Path) -> None:
    given = grid(user, text)
    with pytest.raises(ConfigError) as caught:
        cells(compose(given, user), given, user)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("name", "points", "number"), [("micro_paper", 72, 68), ("micro_sizes", 44, 41), ("sample_sizes", 270, 262)]
)
def test_a_shipped_grid_plans_as_a_whole(name: str, points: int, number: int, tmp_path: Path) -> None:
    given = [f"+grid={name}", f"runs={tmp_path}"]
    found = cells(compose(given), given)
    assert len(found) == points
    assert len(estimate.distinct(found)) == number
    text = plan.describe(found)
    assert f"study {name}: {number} cells" in text
    assert all(f"axis {key}: " in text for key in found[-1].study.axes)
    assert ("made first: the bases of the worlds 1, 2, 3" in text) == (name == "micro_paper")
    if name == "micro_paper":
        assert "  none                     4 cells  the untouched base" in text
        assert "judge      ground_truth: 86,400 calls" in text


def test_the_bases_that_are_made_first_are_planned_with_the_cells(tmp_path: Path) -> None:
    given = ["+grid=micro_paper", f"runs={tmp_path}", "hardware.tflops=0.1", "hardware.mfu=0.5"]
    found = cells(compose(given), given)
    lacking = missing(found)
    each = 6 * shape_of(found[0].model).parameters * 4_300_000 / 0.05e12
    assert [study.microworld.seed for study in lacking] == [1, 2, 3]
    assert [estimate.pretraining(study) for study in lacking] == [pytest.approx(each)] * 3
    alone = sum(time or 0 for study in estimate.distinct(found) for time in estimate.seconds(study).values())
    text = plan.describe(found)
    assert f"time       {plan.time_text(alone + 3 * each)}\n" in text
    assert f"pretrained from nothing, {plan.time_text(each)} each" in text
    assert estimate.study_gib(found, lacking) == pytest.approx(
        estimate.study_gib(found) + 3 * 26 * each * 0.05e12 / 6 / 4.3e6 / 2**30
    )
    plan.preflight(found)
    store.write_json(made_at(lacking[0].microworld, tmp_path) / "manifest.json", {})
    assert [study.microworld.seed for study in missing(found)] == [2, 3]


def test_the_untouched_base_is_one_cell_whatever_the_recipe(user: Path) -> None:
    given = grid(user, "{mixtures: [none], axes: {finetune.learning_rate: [0.001, 0.002], seeds.subset: [0, 1]}}")
    found = cells(compose(given, user), given, user)
    assert sum(study.mixture.name == "none" for study in found) == 4
    assert [study.mixture.name for study in estimate.distinct(found)].count("none") == 1
    assert len(estimate.distinct(found)) == 9


def met(given: list[str], user: Path) -> list[str]:
    def text(cell: Study) -> str:
        return cell.mixture.name + ("" if cell.mixture.name == "none" else f" {cell.seeds.training}")

    return [f"{text(cell)} against {text(other)}" for cell, other in couples(cells(compose(given, user), given, user))]


def test_cells_meet_the_baseline_of_their_own_point(user: Path) -> None:
    given = [*grid(user, "{mixtures: [lima, instruct], axes: {seeds.training: [0, 1]}}"), "mixture=none"]
    assert met(given, user) == [
        "instruct 0 against lima 0",
        "none against lima 0",
        "instruct 1 against lima 1",
        "none against lima 1",
    ]


def test_every_couple_meets_where_a_win_matrix_is_wanted(user: Path) -> None:
    given = [*grid(user, "{mixtures: [lima, instruct], axes: {seeds.training: [0, 1]}, pairs: all}"), "mixture=none"]
    assert met(given, user) == [
        "instruct 0 against lima 0",
        "none against lima 0",
        "instruct 1 against lima 1",
        "none against lima 1",
        "none against instruct 0",
        "none against instruct 1",
    ]
    found = cells(compose(given, user), given, user)
    assert estimate.pairs(found) == 6
