"""The shape of a base model: stated, or read from a folder without loading it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from limit_lab import estimate, plan
from limit_lab.compose import compose
from limit_lab.config import Model
from limit_lab.errors import ModelError
from limit_lab.microworld.checkpoint import SHIPPED
from limit_lab.shapes import shape_of
from tests.model.networks import NETWORKS, llama, saved


def at(folder: Path) -> Model:
    return Model(name="hf", d_model=0, path=str(folder))


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_parameters_are_counted_from_the_files(name: str, tmp_path: Path) -> None:
    network = NETWORKS[name]()
    shape = shape_of(at(saved(network, tmp_path / "model")))
    assert shape.parameters == sum(value.numel() for value in network.parameters())
    assert (shape.kind, shape.d_model, shape.n_layers, shape.vocab_size) == (name, 16, 2, 61)
    assert shape.vocabulary == 2 * 61 * 16
    assert shape.body == shape.parameters - shape.vocabulary


def test_tied_embeddings_count_once(tmp_path: Path) -> None:
    tied, untied = (
        shape_of(at(saved(llama(tied=tied), tmp_path / name))) for tied, name in ((True, "tied"), (False, "untied"))
    )
    assert untied.parameters - tied.parameters == tied.vocabulary == 61 * 16
    assert untied.body == tied.body


def test_an_mpt_folder_has_the_size_that_its_stated_shape_gives() -> None:
    stated = shape_of(compose(["model=micro"]).model)
    read = shape_of(at(SHIPPED))
    assert read.parameters == stated.parameters
    assert (read.d_model, read.n_layers, read.n_heads, read.vocab_size) == (128, 4, 4, 2048)


def test_a_stated_shape_stands_in_for_a_folder_that_is_elsewhere() -> None:
    assert shape_of(Model(name="m", path="/no/where", d_model=8, parameters=1e9)).parameters == 1e9


def test_the_arithmetic_follows_the_folder(tmp_path: Path) -> None:
    folder = saved(llama(), tmp_path / "model")
    study = compose(["+experiment=real_rows_hf", f"model.path={folder}"])
    shape = shape_of(study.model)
    held = estimate.memory(replace(study, finetune=replace(study.finetune, precision="fp32")))
    assert held.weights * estimate.GIB == 4 * shape.parameters
    text = plan.describe([study])
    size = f"{shape.parameters:,.0f} parameters"
    assert f"base       llama: 2 layers of 16 with 4 heads, 61 tokens, {size}, read from {folder}" in text


def reconfigured(folder: Path, drop: str) -> None:
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del raw[drop]
    (folder / "config.json").write_text(json.dumps(raw), encoding="utf-8")


def index(folder: Path, text: str) -> None:
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "config.json").write_text("["), "config.json is not JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "config.json is no JSON object"),
        (lambda folder: reconfigured(folder, "hidden_size"), "states no hidden_size or d_model or n_embd"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no *.safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\x10"), "model.safetensors is damaged"),
        (lambda folder: index(folder, '{"weight_map": {"a": "model-2.safetensors"}}'), "has no model-2.safetensors, which its"),
        (lambda folder: index(folder, "[]"), "is no index of weights"),
    ],
)
def test_a_folder_whose_size_cannot_be_read_is_one_sentence(damage: object, said: str, tmp_path: Path) -> None:
    folder = saved(llama(), tmp_path / "model")
    assert callable(damage)
    damage(folder)
    with pytest.raises(ModelError) as caught:
        shape_of(at(folder))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_a_folder_the_remedy_names_the_path() -> None:
    with pytest.raises(ModelError, match=r"model=hf states no shape: pass a local folder of weights with model.path="):
        shape_of(compose(["model=hf"]).model)
    with pytest.raises(ModelError, match=r"model.path=/no/where is no folder here: pass the one with weights"):
        shape_of(at(Path("/no/where")))
