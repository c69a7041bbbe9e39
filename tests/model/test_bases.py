"""Base weights, gauntlet files and open prompts are found where the study says, or the sentence names what is missing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from limit_lab import store
from limit_lab.compose import compose
from limit_lab.config import Study
from limit_lab.errors import DataError, ModelError
from limit_lab.microworld.checkpoint import SHIPPED
from limit_lab.model.bases import base_folder, content, gauntlet_data, open_prompts, tokenizer_of
from limit_lab.model.loading import load_model


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A tiny random model with the shipped tokenizer."""
    shape = ["model=random_mpt", "model.d_model=16", "model.n_layers=1", "model.n_heads=2", "model.vocab_size=2048"]
    return compose([*shape, f"model.tokenizer={SHIPPED}", f"runs={tmp_path / 'runs'}"])


def with_model(study: Study, **changes: Any) -> Study:
    return replace(study, model=replace(study.model, **changes))


def test_random_weights_are_written_once_for_each_shape_and_seed(study: Study) -> None:
    folder = base_folder(study)
    written = (folder / "model.safetensors").stat().st_ino
    assert base_folder(study) == folder
    assert (folder / "model.safetensors").stat().st_ino == written
    others = {base_folder(with_model(study, init_seed=1)), base_folder(with_model(study, d_model=32))}
    assert len(others | {folder}) == 3
    first, second = (load_model(base_folder(with_model(study, init_seed=seed))) for seed in (0, 1))
    assert not torch.equal(first.transformer.wte.weight, second.transformer.wte.weight)
    assert tokenizer_of(study).encode("a lake") == tokenizer_of(with_model(study, embedded=True)).encode("a lake")


def test_the_same_random_weights_are_made_anywhere(study: Study, tmp_path: Path) -> None:
    elsewhere = replace(study, runs=str(tmp_path / "elsewhere"))
    assert base_folder(elsewhere) != base_folder(study)
    assert content(base_folder(elsewhere)) == content(base_folder(study))


def test_the_embedded_base_is_the_shipped_one(study: Study) -> None:
    assert base_folder(with_model(study, embedded=True)) == SHIPPED


def test_a_given_folder_is_used_as_it_is(study: Study) -> None:
    assert base_folder(with_model(study, path=str(SHIPPED))) == SHIPPED


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"path": "no/such/folder"}, "model.path=no/such/folder is no folder: point it at"),
        ({"tokenizer": None}, "has neither path nor tokenizer: set model.path=FOLDER"),
        ({"tokenizer": "no/such/folder"}, "model.tokenizer=no/such/folder has no tokenizer.json: point it at"),
    ],
)
def test_a_base_that_is_not_there_is_one_sentence(study: Study, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError) as caught:
        base_folder(with_model(study, **changes))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path(study.runs).exists()


def test_a_world_without_a_base_names_the_command_that_makes_it(study: Study) -> None:
    other = replace(with_model(study, embedded=True), microworld=replace(study.microworld, seed=77))
    with pytest.raises(ModelError, match=r"do=pretrain_micro microworld.seed=77"):
        base_folder(other)


def test_the_content_of_a_base_is_what_its_files_hash_to(study: Study) -> None:
    found = content(SHIPPED)
    assert set(found) == {"config.json", "tokenizer.json", "model.safetensors"}
    assert found["model.safetensors"] == store.sha256(SHIPPED / "model.safetensors")
    assert content(base_folder(study))["model.safetensors"] != found["model.safetensors"]


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "*.safetensors"])
def test_content_wants_configuration_tokenizer_and_weights(tmp_path: Path, missing: str) -> None:
    for name in {"config.json", "tokenizer.json", "model.safetensors"} - {missing.replace("*", "model")}:
        (tmp_path / name).write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match=rf"has no {missing.replace('*', '.')}: "):
        content(tmp_path)


def test_the_embedded_gauntlet_is_written_once_for_each_part(study: Study, tmp_path: Path) -> None:
    parts = [replace(study, microworld=replace(study.microworld, part=part)) for part in ("development", "test")]
    folders = [gauntlet_data(part) for part in parts]
    assert folders[0] != folders[1]
    for part, folder in zip(parts, folders, strict=True):
        assert all((folder / task.file).is_file() for task in part.gauntlet.tasks)
        written = [path.stat().st_ino for path in sorted(folder.iterdir())]
        assert gauntlet_data(part) == folder
        assert [path.stat().st_ino for path in sorted(folder.iterdir())] == written
    assert gauntlet_data(replace(study, gauntlet=replace(study.gauntlet, data=str(tmp_path)))) == tmp_path


def asked(study: Study, rows: list[dict[str, Any]], tmp_path: Path, limit: int | None = None) -> list[dict[str, Any]]:
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return open_prompts(replace(study, answers=replace(study.answers, prompts=str(file), limit=limit)))


FRAMED = "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "Name a lake."}, "Name a lake."),
        ({"prompt": f"{FRAMED}### Instruction:\nName a lake.\n\n### Response:\n"}, "Name a lake."),
        ({"instruction": "Name a lake.", "dataset": "x"}, "Name a lake."),
        ({"instruction": "Add.", "input": "1 and 2", "output": "3"}, "Add.\n1 and 2"),
        ({"instruction": "Add 1 and 2.", "input": ""}, "Add 1 and 2."),
        ({"conversations": ["Name a lake.", "Baikal"], "source": "x"}, "Name a lake."),
    ],
)
def test_open_prompts_are_read_in_every_layout(study: Study, row: dict[str, Any], prompt: str, tmp_path: Path) -> None:
    assert asked(study, [row], tmp_path) == [{"prompt": prompt, "cluster": "0", "unseen": True}]


def test_open_prompts_are_limited(study: Study, tmp_path: Path) -> None:
    rows = [{"prompt": f"{number}?"} for number in range(9)]
    assert [row["prompt"] for row in asked(study, rows, tmp_path, 3)] == ["0?", "1?", "2?"]
    assert len(asked(study, rows, tmp_path)) == 9
    embedded = open_prompts(replace(study, answers=replace(study.answers, limit=4)))
    assert len(embedded) == 4
    assert all({"prompt", "cluster", "unseen"} <= set(row) for row in embedded)


@pytest.mark.parametrize("row", [{"text": "x"}, {"conversations": []}, {"conversations": [{"from": "human", "value": "x"}]}])
def test_a_row_without_a_prompt_is_refused_with_its_line(study: Study, row: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"prompts.jsonl line 2 has no prompt, instruction or conversations"):
        asked(study, [{"prompt": "x"}, row], tmp_path)
