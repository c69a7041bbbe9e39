"""The cells of a study: their order, each mixture once, and no mixture changed behind one's back."""

from __future__ import annotations

from pathlib import Path

import pytest

from limit_lab.compose import compose
from limit_lab.errors import ConfigError
from limit_lab.grid import cells
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
