"""What is fixed beforehand: the shipped study states its fingerprint, and any tuning changes it."""

from __future__ import annotations

import pytest

from limit_lab.compose import compose
from limit_lab.fingerprints import fingerprint
from limit_lab.frozen import base, fixed, statement
from limit_lab.grid import cells
from limit_lab.microworld.checkpoint import SHIPPED
from limit_lab.model.bases import content

SHIPPED_STUDY = ["+experiment=micro_limit"]


def said(*overrides: str) -> str:
    given = [*SHIPPED_STUDY, *overrides]
    return statement(cells(compose(given), given), content(SHIPPED))


def test_the_shipped_study_is_the_one_that_was_fixed() -> None:
    assert said().startswith("As fixed before the numbers were seen: ")
    assert compose(SHIPPED_STUDY).study.frozen == "fefe8df2a237"


@pytest.mark.parametrize(
    "outside", ["seeds.training=3", "runs=elsewhere", "hardware.micro_batch=4doc", "microworld.part=development"]
)
def test_what_the_fixed_rest_is_tried_on_stays_outside(outside: str) -> None:
    assert said(outside) == said()


@pytest.mark.parametrize(
    "tuned",
    [
        "finetune.learning_rate=2e-3",
        "gauntlet.average=[world_knowledge]",
        "gauntlet.tasks.0.shots=1",
        "gauntlet.shots=both",
        "gauntlet.weighting=SAMPLE_SZ",
        "answers.max_new_tokens=60",
        "judge.tie_margin=0.4",
        "study.predicates.0.margin=0.01",
    ],
)
def test_tuning_makes_a_study_exploratory(tuned: str) -> None:
    assert said(tuned).startswith("Exploratory: ")


def test_another_base_makes_a_study_exploratory() -> None:
    study = cells(compose(SHIPPED_STUDY), SHIPPED_STUDY)
    assert statement(study, {"model.safetensors": "other"}).startswith("Exploratory: ")


def test_a_study_without_a_fingerprint_is_told_its_own() -> None:
    study = cells(compose([]), [])
    found = fingerprint(fixed(study, content(SHIPPED)))
    assert f"study.frozen={found}" in statement(study, content(SHIPPED))


@pytest.mark.parametrize(
    ("grid", "stated"),
    [("micro_paper", "dd2e3c7ab33e"), ("micro_updates", "152d145cca12"), ("micro_weights", "54e98696aa8a")],
)
def test_the_shipped_grids_are_the_ones_that_were_fixed(grid: str, stated: str) -> None:
    given = [f"+grid={grid}"]
    study = cells(compose(given), given)
    assert compose(given).study.frozen == stated
    assert statement(study, base(study)).startswith("As fixed before the numbers were seen: ")


def test_more_worlds_and_seeds_of_a_grid_stay_outside() -> None:
    given = ["+grid=micro_paper"]
    study = cells(compose(given), given)
    fewer = [cell for cell in study if cell.microworld.seed < 3 and cell.seeds.training == 0]
    assert fixed(fewer, base(fewer)) == fixed(study, base(study))
