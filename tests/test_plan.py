"""The arithmetic of the plan against numbers worked out by hand, and a preflight that lists everything at once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from limit_lab import estimate, plan, preflight
from limit_lab.compose import compose, config_dir
from limit_lab.config import Study, Task
from limit_lab.errors import PreflightError
from limit_lab.grid import cells
from limit_lab.shapes import shape_of
from tests.folders import user_configs

PAPER = "+experiment=paper_7b_lima_plus_instruct"


@pytest.fixture
def user(tmp_path: Path) -> Path:
    return user_configs(tmp_path / "groups")


def study_of(overrides: list[str], user: Path) -> list[Study]:
    return cells(compose(overrides, user), overrides, user)


def problems_of(found: list[Study]) -> list[str]:
    with pytest.raises(PreflightError) as caught:
        plan.preflight(found)
    return caught.value.problems


def test_the_plan_of_the_paper_in_words(user: Path) -> None:
    text = plan.describe(study_of([PAPER], user))
    for part in (
        "2 cells, 1 pair",
        "6,000 = 1,000 lima + 5,000 instruct_v1",
        "1,250 steps of 48 documents (10ep, linear_after_warmup), exported at 4ep = 500 steps; ",
        "warm-up 50 steps, 4.0% of the schedule",
        "adamw at 5e-06; padded rows, truncate_head, short last batches dropped; loss by paper_microbatch",
        "evaluated after epoch 4 of 10 as in LIMIT, selection rule unknown",
        "~1,608,000 a pass",
        "6,000 of 2,048 tokens a pass, ~13.1% of them not padding",
        "~67.2% lima, ~32.8% instruct_v1",
        "8 x gpu, zero3, bf16",
        "300 prompts x 3 generation seeds = 900 answers",
        "alpaca_eval_gpt4: 900 calls, ~$19.53",
    ):
        assert part in text


def test_the_plan_of_a_large_model_names_every_term_and_every_stage(user: Path) -> None:
    text = plan.describe(study_of([PAPER], user)[-1:])
    for part in (
        "GiB        at most ",
        "weights 1.55, gradients 1.55, master weights 3.10, optimizer states 6.19, gathered weights 1.13, buckets 0.75",
        "of memory, most in export: processes 16.00, files mapped 12.38, tensor on its way 1.15",
        "disk       185.77 GiB: two checkpoints 173.39, export 12.38",
        "compute    ~1.98e+18 operations at 40% of 312 TFLOP/s a device",
        "time       load ~12 seconds, fine-tuning ~33.1 minutes, export ~25 seconds, gauntlet unknown, answers ~2.0 minutes",
        "GPU-hours and what is unknown",
    ):
        assert part in text, part


def test_a_grid_states_the_memory_of_its_largest_cell() -> None:
    given = ["+grid=micro_paper"]
    text = plan.describe(cells(compose(given), given))
    assert "  GiB        at most 0.32 a device, in the backward pass: optimizer states 0.01, activations 0.21" in text
    assert " device-hours\n" in text


def test_blocks_that_run_again_take_a_third_more_time(user: Path) -> None:
    once, again = (compose([PAPER, f"hardware.recompute={value}"], user) for value in ("false", "true"))
    assert estimate.flops(again) == estimate.flops(once)
    assert (estimate.hours(again) or 0) / (estimate.hours(once) or 1) == pytest.approx(4 / 3)


def test_evaluation_is_shared_by_the_devices(user: Path) -> None:
    one, eight = (compose([PAPER, f"hardware.devices={count}"], user) for count in (1, 8))
    assert (estimate.seconds(one)["answers"] or 0) / (estimate.seconds(eight)["answers"] or 1) == pytest.approx(8)
    assert estimate.transfers(one) == estimate.transfers(eight)


def test_tokens_of_a_gauntlet_are_told_from_its_files(tmp_path: Path, user: Path) -> None:
    (tmp_path / "task.jsonl").write_text(("x" * 39 + "\n") * 5, encoding="utf-8")
    study = compose([f"gauntlet.data={tmp_path}"], user)
    task = Task(label="a", type="language_modeling", file="task.jsonl", category="c", shots=2)
    suite = replace(study.gauntlet, tasks=[task, replace(task, label="b", rows=3)], average=[], tokens={})
    study = replace(study, gauntlet=suite)
    assert estimate.gauntlet_tokens(study, "raw") == pytest.approx((5 + 3) * 10 * 3)
    assert estimate.gauntlet_tokens(study, "template") == pytest.approx((5 + 3) * 10)
    absent = replace(study.gauntlet, tasks=[replace(task, file="absent.jsonl")])
    assert estimate.gauntlet_tokens(replace(study, gauntlet=absent), "raw") is None
    counted = replace(study.gauntlet, tokens={"raw": 7.0})
    assert estimate.gauntlet_tokens(replace(study, gauntlet=counted), "raw") == 7.0


def test_the_shape_of_mpt_7b_gives_its_published_size(user: Path) -> None:
    model = compose([PAPER], user).model
    assert shape_of(model).parameters == 6.649e9
    assert shape_of(replace(model, parameters=None)).parameters == pytest.approx(6.649e9, rel=1e-4)


def test_sharded_memory_is_sixteen_bytes_a_parameter_over_the_devices(user: Path) -> None:
    held = estimate.memory(compose([PAPER], user))
    assert held.weights + held.gradients + held.optimizer == pytest.approx(16 * 6.649e9 / 8 / 2**30)


@pytest.mark.parametrize(("precision", "bytes_each"), [("bf16", 18), ("fp32", 16)])
def test_memory_of_one_device(precision: str, bytes_each: int, user: Path) -> None:
    study = compose([f"finetune.precision={precision}", "finetune.freeze_embeddings=false"], user)
    held = estimate.memory(study)
    states = held.weights + held.gradients + held.optimizer
    assert states * 2**30 == pytest.approx(bytes_each * shape_of(study.model).parameters)


def test_frozen_embeddings_need_no_gradients(user: Path) -> None:
    frozen, free = (estimate.memory(compose([f"finetune.freeze_embeddings={value}"], user)) for value in ("true", "false"))
    assert frozen.weights == free.weights
    assert frozen.gradients < free.gradients


def test_operations_of_one_token_of_mpt_7b(user: Path) -> None:
    """39.9 GFLOP a token when every token carries loss, and 1.6 more for attention at 2,048."""
    overrides = [PAPER, "mixture=lima", "finetune.duration=1ep", "finetune.export_at=[]", "finetune.batch=1doc"]
    overrides += ["data.sources.lima.prompt_tokens=0", "data.sources.lima.response_tokens=2048"]
    study = compose(overrides, user)
    work = estimate.flops(study)
    assert work is not None
    assert work / (1000 * 2048) == pytest.approx(39.9e9 + 1.6e9, rel=0.01)
    assert estimate.hours(study) == pytest.approx(work / (312e12 * 0.4 * 8) / 3600)


def test_the_seconds_of_each_stage_follow_from_weights_and_tokens(user: Path) -> None:
    study = compose(["mixture=lima", "hardware.tflops=1", "hardware.mfu=0.5"], user)
    found, weights = estimate.seconds(study), 12 * 4 * 128**2
    assert found["finetune"] == pytest.approx(3600 * (estimate.hours(study) or 0))
    assert found["raw"] == pytest.approx(2 * weights * study.gauntlet.tokens["raw"] / 0.5e12)
    assert found["answers"] == pytest.approx(2 * shape_of(study.model).parameters * 300 * 120 / (0.5e12 * estimate.DECODING))
    assert "finetune" not in estimate.seconds(compose(["mixture=none"], user))


def test_long_means_are_cut_at_the_sequence_length(user: Path) -> None:
    expected = estimate.tokens(compose(["+experiment=real_rows", "mixture=lima_small"], user))
    assert expected is not None
    assert expected.total == pytest.approx(200 * 512)
    mixed = estimate.tokens(compose(["+experiment=real_rows"], user))
    assert mixed is not None
    assert mixed.loss["lima"] == pytest.approx(200 * (512 - 53.6))  # so that the shares of the loss add up to one
    assert mixed.response == sum(mixed.loss.values())


def test_every_model_of_a_grid_is_looked_at(tmp_path: Path, user: Path) -> None:
    (user / "grid").mkdir()
    axes = f"{{model.path: [{tmp_path}/absent, {tmp_path}/gone, null]}}"
    text = f"# @package _global_\nstudy: {{mixtures: [lima], axes: {axes}}}\n"
    (user / "grid" / "mine.yaml").write_text(text, encoding="utf-8")
    found = problems_of(study_of(["+grid=mine", "model.embedded=false", f"runs={tmp_path}/runs"], user))
    assert [name for name in ("absent", "gone") if any(f"{tmp_path}/{name} is no folder" in one for one in found)] == [
        "absent",
        "gone",
    ]


def test_what_is_unknown_is_said(user: Path) -> None:
    unknown = "data.sources.instruct.response_tokens=null"
    text = plan.describe(study_of(["+experiment=micro_limit", "finetune.duration=1Mtok", unknown], user))
    assert "tokens     unknown until the rows are read" in text
    assert "steps      unknown" in text
    assert "the untouched base is evaluated as it is" in text


def test_rows_and_prompts_are_counted_from_files(tmp_path: Path, user: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"a": 1}\n\n{"a": 2}\n', encoding="utf-8")
    (tmp_path / "task.jsonl").write_text("{}\n" * 5, encoding="utf-8")
    study = compose([f"answers.prompts={tmp_path}/prompts.jsonl", f"gauntlet.data={tmp_path}"], user)
    task = Task(label="a", type="schema", file="task.jsonl", category="c", template=False)
    tasks = [task, replace(task, label="b", rows=3), replace(task, label="d", file="absent.jsonl")]
    study = replace(study, gauntlet=replace(study.gauntlet, tasks=tasks, average=[]))
    assert estimate.prompts(study) == 2
    assert estimate.gauntlet_rows(study) == (8, 1)
    assert "3 tasks, 8 rows in the files that are here, 1 files are not" in plan.describe([study])
    assert any("has no data for d (absent.jsonl) in" in problem for problem in problems_of([study]))


def test_the_paper_lists_everything_at_once(tmp_path: Path, user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "gpus", lambda: 0)
    blocked = tmp_path / "file"
    blocked.touch()
    found = problems_of(study_of([PAPER, f"runs={blocked}"], user))
    for part in (
        "needs 8 GPUs in each node and this machine has no NVIDIA GPU",
        "December 2025; pass a local copy with model.path=",
        "data.sources.lima.kind=file data.sources.lima.file=",
        "data.sources.instruct_v1.kind=file",
        "answers.prompts=",
        "gpt-4-0613 was shut down by OpenAI on 2026-10-23",
        "cannot be written",
    ):
        assert sum(part in problem for problem in found) == 1, part
    assert any("gauntlet" in problem for problem in found)
    assert all(problem.endswith(".") for problem in found)


def test_the_micro_world_has_nothing_in_its_way(tmp_path: Path, user: Path) -> None:
    plan.preflight(study_of(["+experiment=micro_limit", f"runs={tmp_path}/not/yet"], user))


def test_a_missing_data_folder_is_one_sentence(user: Path) -> None:
    found = problems_of(study_of(["+experiment=real_rows"], user))
    assert sum("data.dir is not set, and lima, instruct_v1, the tokenizer" in problem for problem in found) == 1
    assert not [problem for problem in found if "None/" in problem]


def test_local_rows_are_looked_at(tmp_path: Path, user: Path) -> None:
    (tmp_path / "lima").mkdir()
    (tmp_path / "lima" / "train.jsonl").write_text(json.dumps({"prompt": "a", "response": "b"}) + "\n", encoding="utf-8")
    found = problems_of(study_of(["+experiment=real_rows", f"data.dir={tmp_path}"], user))
    assert any("takes 200 samples of lima, which has 1 usable rows" in problem for problem in found)
    assert any("the rows of the source instruct_v1 are not at" in problem for problem in found)
    assert any("model.tokenizer=" in problem for problem in found)


def test_too_little_memory_is_found_before_it_is_needed(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "gpus", lambda: 1)
    found = problems_of(study_of([PAPER, "hardware=gpu", "hardware.gpu_gib=40"], user))
    (told,) = (problem for problem in found if "GiB a device and hardware.gpu_gib=40" in problem)
    assert " most are " in told
    assert told.count(" GiB)") == 3


def test_too_little_disk_names_its_largest_term_and_three_remedies(
    tmp_path: Path, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    found = problems_of(study_of([f"runs={tmp_path}"], user))
    assert any(
        "of a cell being its two checkpoints, and " in problem and "finetune.lora.rank=16" in problem for problem in found
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            ["mixture=instruct_5k", "finetune.duration=96step"],
            "instruct_5k holds 5,000 samples and finetune.duration=96step of 32 documents reads 3,072: use 157step or more",
        ),
        (
            ["mixture=instruct_5k", "finetune.export_at=[96step]"],
            "instruct_5k holds 5,000 samples and finetune.export_at=96step of 32 documents reads 3,072: use 157step or more",
        ),
        (
            ["mixture=instruct_5k", "finetune.duration=100step", "finetune.export_at=[96step]"],
            "finetune.export_at=96step with finetune.duration=100step of 32 documents reads 3,072: use 157step or more",
        ),
        (["mixture=lima", "finetune.duration=0.5ep"], "finetune.duration=0.5ep of 32 documents reads 512: use 32step or more"),
        (["mixture=instruct_5k", "finetune.duration=157step"], None),
        (["mixture=instruct_5k", "finetune.duration=1ep"], None),
    ],
)
def test_updates_that_never_see_all_samples_are_refused(given: list[str], said: str | None, tmp_path: Path, user: Path) -> None:
    given = ["study.baseline=null", f"runs={tmp_path}", *given]
    found = preflight.problems(study_of(given, user))
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


def test_every_arm_of_a_grid_that_is_cut_short_is_named_once(tmp_path: Path) -> None:
    given = ["+grid=micro_updates", "finetune.duration=192step", f"runs={tmp_path}"]
    found = problems_of(cells(compose(given), given))
    assert found == [
        "mixture instruct_20000 holds 20,000 samples and finetune.duration=192step of 32 documents reads 6,144: use 625step or "
        "more, or a smaller mixture."
    ]


SHIPPED = [
    f"+{path.parent.name}={path.stem}" for kind in ("experiment", "grid") for path in (config_dir() / kind).glob("*.yaml")
]


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_no_shipped_study_is_cut_short(name: str) -> None:
    found = preflight.problems(cells(compose([name]), [name]))
    assert not [problem for problem in found if " reads " in problem]


def test_an_axis_that_only_asks_otherwise_is_refused(tmp_path: Path, user: Path) -> None:
    (user / "grid").mkdir()
    text = "# @package _global_\nstudy: {mixtures: [lima], axes: {answers.limit: [10, 20]}}\n"
    (user / "grid" / "mine.yaml").write_text(text, encoding="utf-8")
    (problem,) = problems_of(study_of(["+grid=mine", f"runs={tmp_path}"], user))
    assert problem.startswith(
        "the axis answers.limit asks the same cell in several ways, and its folder holds one: run a study"
    )


def test_visible_devices_limit_what_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert preflight.gpus() == 0


def test_disk_follows_what_is_kept() -> None:
    paper = ["+experiment=paper_7b_lima_plus_instruct"]
    one_cell = compose(paper)
    some = [replace(one_cell, seeds=replace(one_cell.seeds, training=seed)) for seed in range(60)]

    def kept(keep: str) -> list[Study]:
        return [replace(study, export=replace(study.export, keep=keep)) for study in some]

    one, whole = estimate.kept_gib(some[0]), estimate.kept_gib(kept("all")[0])
    disk = {keep: estimate.study_gib(kept(keep)) for keep in ("records", "export", "all")}
    assert one == pytest.approx(2 * 6.649e9 / 2**30)
    assert whole - one == pytest.approx(14 * 6.649e9 / 2**30)
    assert disk["records"] == estimate.disk_gib(some[0])  # the one that is being made
    assert disk["export"] - disk["records"] == pytest.approx(59 * one)
    assert disk["all"] - disk["records"] == pytest.approx(59 * whole)
    assert f"bf16, keep=all: {whole:.2f} GiB stay" in plan.describe(kept("all")[:1])
