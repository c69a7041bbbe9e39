"""Recipes: their fingerprints, the steps that they come to, exports as cells, and what the plan makes of all that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from limit_lab import estimate, plan, preflight
from limit_lab.cell import folder_of, identity
from limit_lab.compose import compose
from limit_lab.config import Study
from limit_lab.finetune.module import learning_rate_factor
from limit_lab.fingerprints import fingerprint
from limit_lab.frozen import base, fixed
from limit_lab.grid import cells
from limit_lab.recipe import Finetune, Lora, Loss, Schedule, in_steps, misfits
from limit_lab.recipe import identity as identity_of
from limit_lab.shapes import shape_of

PAPER = ["+experiment=paper_7b_lima_plus_instruct"]


def study_of(*overrides: str) -> list[Study]:
    return cells(compose(list(overrides)), list(overrides))


def test_cells_that_were_recorded_keep_their_names() -> None:
    """Records are found by them: an option that is added later leaves them alone while it stands at its default."""
    assert [folder_of(one).name for one in study_of("+experiment=micro_limit")] == [
        "none-dbc662500608",
        "lima-17805adf8f94",
        "instruct-dadf68eb5609",
        "lima_plus_instruct-4c39e451bcdc",
    ]


@pytest.mark.parametrize(
    ("given", "known"),
    [
        (["finetune=micro"], "4a41587f26f7"),
        (["finetune=real_rows"], "ffdf409f9efb"),  # with what is called truncate_tail now
        (["finetune=real_rows_hf"], "832b2b5ab650"),
        (["finetune.duration=10ep", "finetune.export_at=[4ep]"], "fa40f4d0e04a"),  # where finetune.stop said so
        (["finetune.duration=10ep", "finetune.export_at=[2ep,4ep]"], "fa40f4d0e04a"),  # whatever was exported before
        (["finetune=micro", "finetune.note=mine", "finetune.log_every_steps=1"], "4a41587f26f7"),
    ],
)
def test_recipes_that_were_recorded_keep_their_fingerprints(given: list[str], known: str) -> None:
    assert fingerprint(identity_of(compose(given).finetune)) == known


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule_over": "20ep"},
        {"last_batch": "drop"},
        {"rows": "padded"},
        {"on_too_long": "truncate_head"},
        {"loss": Loss(weight="document")},
        {"optimizer": "lionw"},
        {"lora": Lora(rank=4)},
        {"lora": Lora(rank=4, targets=["Wqkv"])},
        {"batch": "9ktok"},
    ],
)
def test_every_option_makes_another_cell(changes: dict[str, Any]) -> None:
    known = Finetune(name="x", lora=Lora(rank=4, alpha=32))
    assert identity_of(replace(known, **changes)) != identity_of(known)


PAPER_STEPS = [
    ("mpt_7b", "paper_7b", "lima", 200),
    ("mpt_7b", "paper_7b", "instruct_v1_5k", 1040),
    ("mpt_7b", "paper_7b", "lima_plus_instruct_v1_5k", 1250),
    ("mpt_7b", "paper_7b", "instruct_v1", 12350),
    ("mpt_30b", "paper_30b", "lima", 130),
    ("mpt_30b", "paper_30b", "instruct_v3_1k", 130),
    ("mpt_30b", "paper_30b", "lima_plus_instruct_v3_1k", 270),
    ("mpt_30b", "paper_30b", "instruct_v3", 7800),
]


@pytest.mark.parametrize(("model", "recipe", "mixture", "steps"), PAPER_STEPS)
def test_the_eight_cells_of_the_paper_take_its_steps(model: str, recipe: str, mixture: str, steps: int) -> None:
    study = compose([*PAPER, f"model={model}", f"finetune={recipe}", f"mixture={mixture}"])
    found = estimate.schedule(study)
    assert found is not None
    assert (found.steps, found.whole, found.warmup) == (steps, steps, 50)
    assert found.stop == steps * {"paper_7b": 4, "paper_30b": 6}[recipe] // 10
    assert not list(misfits(study.finetune, found))


@pytest.mark.parametrize(
    ("recipe", "steps", "share"),
    [("paper_7b", 200, 0.8), ("paper_7b", 12350, 0.6), ("paper_30b", 130, 0.65), ("paper_30b", 7800, 0.4)],
)
def test_the_exports_of_the_paper_stand_where_its_learning_rate_did(recipe: str, steps: int, share: float) -> None:
    """Composer lets the rate fall from the end of the warm-up, so short trainings were exported at a higher one."""
    how = compose([f"finetune={recipe}"]).finetune
    stop = steps * {"paper_7b": 4, "paper_30b": 6}[recipe] // 10
    found = learning_rate_factor(stop, steps=steps, warmup=how.warmup_steps(steps), schedule=how.schedule)
    assert found == pytest.approx(share, abs=0.005)


def test_the_paper_recipes_say_what_is_not_known_of_them() -> None:
    for name, epoch in (("paper_7b", 4), ("paper_30b", 6)):
        recipe = compose([f"finetune={name}"]).finetune
        assert recipe.note == f"evaluated after epoch {epoch} of 10 as in LIMIT, selection rule unknown"
        assert (recipe.export_at, recipe.duration, recipe.warmup) == ([f"{epoch}ep"], "10ep", "50step")
    assert (recipe.optimizer, recipe.learning_rate, recipe.betas, recipe.batch) == ("lionw", 1e-6, [0.9, 0.95], "72doc")


def test_schedule_duration_and_exports_are_apart() -> None:
    recipe = Finetune(
        name="x", duration="6ep", schedule_over="10ep", export_at=["2ep", "4ep"], batch="48doc", last_batch="drop", warmup="0.1"
    )
    found = in_steps(recipe, 1000, 0.0)
    assert found == Schedule(epoch=20, steps=200, whole=120, begun=40, stop=80, warmup=20)
    assert in_steps(replace(recipe, export_at=[]), 1000, 0.0) == replace(found, begun=0, stop=120)


def test_steps_of_token_sized_batches_follow_from_the_tokens() -> None:
    recipe = Finetune(name="x", duration="3ep", batch="9ktok", warmup="0.05")
    assert in_steps(recipe, 100, 90_000.0).whole == 30
    assert in_steps(recipe, 100, 90_001.0).whole == 33
    assert in_steps(replace(recipe, last_batch="drop"), 100, 98_999.0).whole == 30
    assert in_steps(replace(recipe, duration="1Mtok"), 100, 90_000.0).whole == 111
    (study,) = study_of(*PAPER, "finetune=tokens", "mixture=lima", "study.baseline=null")
    assert f"~{3 * -(-750_000 // 9000)} steps of 9,000 tokens (3ep, linear); warm-up" in plan.describe([study])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["finetune.batch=9ktok", "mixture.samples.lima=24"], "steps of finetune.batch=9ktok, fewer than 20: use a smaller"),
        (["finetune.warmup=500step"], "finetune.duration=6ep is 192 steps and finetune.warmup=500step is 500: train longer"),
        (["finetune.export_at=[250step]"], "finetune.export_at=250step lies beyond finetune.duration=6ep: export earlier."),
        (["finetune.schedule_over=150step"], "finetune.schedule_over=150step ends before the training (6ep)"),
        (
            ["finetune.last_batch=drop", "finetune.batch=1001doc"],
            "finetune.last_batch=drop leaves nothing of a mixture below finetune.batch=1001doc",
        ),
        (["finetune.lora.rank=2", "finetune.lora.targets=[Wkqv]"], "no linear layer of micro; did you mean 'Wqkv'?"),
    ],
)
def test_a_recipe_that_does_not_suit_its_mixture_is_one_sentence(given: list[str], said: str, tmp_path: Path) -> None:
    study = study_of("mixture=lima", "study.baseline=null", f"runs={tmp_path}", *given)
    (problem,) = preflight.problems(study)
    assert said in problem
    assert "\n" not in problem


@pytest.mark.parametrize("given", [["finetune.batch=1ktok"], ["finetune.lora.rank=2"], ["finetune.optimizer=lionw"]])
def test_a_recipe_that_suits_its_mixture_has_nothing_in_its_way(given: list[str], tmp_path: Path) -> None:
    assert not preflight.problems(study_of("mixture=lima", "study.baseline=null", f"runs={tmp_path}", *given))


def test_dropping_short_batches_may_leave_rows_to_later_epochs(tmp_path: Path) -> None:
    drop = ["mixture=lima", "study.baseline=null", f"runs={tmp_path}", "finetune.last_batch=drop", "finetune.batch=48doc"]
    assert not preflight.problems(study_of(*drop, "finetune.duration=1ep"))
    (problem,) = preflight.problems(study_of(*drop, "finetune.duration=0.5ep"))
    assert "finetune.duration=0.5ep of 48 documents reads 480: use 20step or more" in problem


def test_every_export_is_a_cell_that_tells_its_point() -> None:
    study = study_of("mixture=instruct", "study.mixtures=[none]", "finetune.export_at=[2ep,4ep,6ep]")
    labels = ["lima, 2ep", "lima, 4ep", "lima, 6ep", "none", "none", "none", "instruct, 2ep", "instruct, 4ep", "instruct, 6ep"]
    assert [one.label for one in study] == labels
    assert study[-1].finetune.export_at == ["2ep", "4ep", "6ep"]
    assert study[-2].finetune.export_at == ["2ep", "4ep"]
    assert len({fingerprint(identity(one)) for one in study}) == 7
    assert len(estimate.distinct(study)) == 7
    assert folder_of(study[-2]).name.startswith("instruct-4ep-")
    assert estimate.pairs(study) == 6
    text = plan.describe(study)
    assert "cell 7 of 7: model=micro mixture=instruct, 6ep" in text
    assert ", exported at 6ep = 192 steps, continued from 4ep; warm-up" in text


def test_an_export_takes_the_time_from_the_one_before_it() -> None:
    study = study_of("mixture=lima", "study.baseline=null", "finetune.export_at=[2ep,6ep]")
    (whole,) = study_of("mixture=lima", "study.baseline=null")
    first, second = (estimate.flops(one) or 0.0 for one in study)
    assert first + second == pytest.approx(estimate.flops(whole))
    assert second == pytest.approx(2 * first)


def test_another_export_is_another_study_beforehand() -> None:
    one, other = (study_of("mixture=lima", f"finetune.export_at=[{points}]") for points in ("2ep,6ep", "4ep,6ep"))
    assert fixed(one, base(one)) != fixed(other, base(other))


def test_padded_rows_cost_their_whole_length() -> None:
    lima = [*PAPER, "mixture=lima", "finetune.export_at=[]"]
    padded, packed = (compose([*lima, f"finetune.rows={rows}"]) for rows in ("padded", "packed"))
    assert (estimate.flops(padded) or 0) / (estimate.flops(packed) or 1) == pytest.approx(2048 / 750, rel=0.1)
    assert "1,000 of 2,048 tokens a pass, ~36.6% of them not padding" in plan.describe([padded])


def test_lion_holds_one_moment() -> None:
    adam, lion = (compose([f"finetune.optimizer={name}", "finetune.freeze_embeddings=false"]) for name in ("adamw", "lionw"))
    weights = 4 * shape_of(lion.model).parameters / estimate.GIB
    assert estimate.memory(lion).optimizer == pytest.approx(weights)
    assert estimate.memory(adam).optimizer == pytest.approx(2 * weights)
    assert estimate.disk_gib(adam) - estimate.disk_gib(lion) == pytest.approx(2 * weights)


def test_adapters_alone_need_gradients_and_moments() -> None:
    study = compose(["finetune.lora.rank=2", "model=micro"])
    adapters = 2 * 4 * 16 * 128  # rank x layers x (inputs and outputs of the four linear layers in widths) x width
    assert estimate.learning(study) == adapters
    held = estimate.memory(study)
    assert held.gradients == pytest.approx(4 * adapters / estimate.GIB)
    assert held.optimizer == pytest.approx(8 * adapters / estimate.GIB)
    assert held.weights == estimate.memory(compose(["model=micro"])).weights / 3  # bf16 alone, no fp32 beside it
    only = replace(study, finetune=replace(study.finetune, lora=Lora(rank=2, targets=["Wqkv"])))
    assert estimate.learning(only) == adapters / 4
    assert "adapters of rank 2 (16,384 parameters)" in plan.describe([study])


def test_the_weight_of_a_loss_is_an_axis(tmp_path: Path) -> None:
    (tmp_path / "grid").mkdir()
    text = "# @package _global_\nstudy: {baseline: null, axes: {finetune.loss.weight: [token, document]}}\n"
    (tmp_path / "grid" / "mine.yaml").write_text(text, encoding="utf-8")
    given = ["+grid=mine", "mixture=lima"]
    found = cells(compose(given, tmp_path), given, tmp_path)
    assert [one.finetune.loss.weight for one in found] == ["token", "document"]
    assert len({folder_of(one) for one in found}) == 2
