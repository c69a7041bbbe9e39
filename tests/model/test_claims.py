"""A folder goes under a published model's name only in its stated shape, and is marked where no hash vouches for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from limit_lab import plan, store
from limit_lab.compose import compose
from limit_lab.config import Model, Study
from limit_lab.errors import ModelError
from limit_lab.microworld.checkpoint import SHIPPED
from limit_lab.model import claims
from limit_lab.model.bases import base_folder, verified
from limit_lab.model.export import export
from limit_lab.shapes import shape_of
from tests.model.networks import llama, saved
from tests.model.oracle import SHAPE, random_model

SIZES: dict[str, Any] = {name: getattr(SHAPE, name) for name in ("d_model", "n_layers", "n_heads", "vocab_size", "max_seq_len")}
NAMED = Model(name="mpt_tiny", parameters=26_688, **SIZES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    export(random_model(), SHIPPED, tmp_path / "model", beside={"README.md": "# card\n"})
    return tmp_path / "model"


def study_on(folder: Path, **changes: Any) -> Study:
    study = compose([])
    return replace(study, model=replace(NAMED, path=str(folder), **changes))


def reconfigure(folder: Path, **changes: object) -> None:
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(raw | changes), encoding="utf-8")


def reshape(name: str, *shape: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        save_file({**state, name: torch.zeros(shape)}, folder / "model.safetensors")

    return change


UP = "transformer.blocks.1.ffn.up_proj.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: reconfigure(folder, d_model=64), "whose d_model is 32 and here is 64"),
        (lambda folder: reconfigure(folder, n_heads=8), "whose n_heads is 4 and here is 8"),
        (lambda folder: reconfigure(folder, max_seq_len=128), "whose max_seq_len is 64 and here is 128"),
        (lambda folder: reconfigure(folder, model_type="llama"), "whose model_type is mpt and here is llama"),
        (reshape(UP, 96, 32), f"whose weight {UP} is [128, 32] and here is [96, 32]"),
        (reshape("lm_head.weight", 60, 32), "whose weight lm_head.weight is [61, 32] and here is [60, 32]"),
        (reshape("transformer.wpe.weight", 64, 32), "whose weight transformer.wpe.weight is absent and here is [64, 32]"),
    ],
)
def test_the_first_difference_from_the_stated_shape_is_named(change: Callable[[Path], None], said: str, folder: Path) -> None:
    change(folder)
    with pytest.raises(ModelError) as caught:
        base_folder(study_on(folder))
    assert str(caught.value).startswith(f"{folder} is not mpt_tiny, {said}: ")
    assert str(caught.value).endswith("or use model=hf for the model that it is.")


def test_a_copy_that_is_as_stated_is_used_and_marked(folder: Path) -> None:
    study = study_on(folder)
    assert base_folder(study) == folder
    assert verified(study) is False
    assert study.model.title == "mpt_tiny (unverified copy)"
    assert "model=mpt_tiny (unverified copy) mixture=" in plan.describe([study])


def test_published_hashes_lift_the_mark_or_refuse(folder: Path) -> None:
    right = {"model.safetensors": store.sha256(folder / "model.safetensors")}
    study = study_on(folder, sha256=right)
    assert verified(study) is True
    assert study.model.title == "mpt_tiny"
    for wrong in ({"model.safetensors": "0" * 64}, {**right, "model-2.safetensors": "0" * 64}, {"other.safetensors": "0"}):
        with pytest.raises(ModelError, match=r"has the SHA-256 .* as published is .*: fetch the file again"):
            verified(study_on(folder, sha256=wrong))


@pytest.mark.parametrize(
    ("overrides", "marked"),
    [
        (["model=micro"], False),
        (["model=hf", "model.path=/m"], False),
        (["model=mpt_125m", "data.dir=/d"], False),
        (["model=mpt_7b"], False),
        (["model=mpt_7b", "model.path=/m"], True),
        (["model=mpt_30b", "model.hub=owner/name"], True),
        (["model=pythia_160m"], False),
        (["model=pythia_160m", "model.path=/m"], True),
        (["model=pythia_160m", "model.hub=owner/pythia-160m"], True),
    ],
)
def test_the_mark_stands_at_copies_of_published_models(overrides: list[str], marked: bool) -> None:
    model = compose(overrides).model
    assert model.title == model.name + " (unverified copy)" * marked


def test_another_familys_folder_must_have_the_stated_size(tmp_path: Path) -> None:
    folder = saved(llama(), tmp_path / "model")
    count = int(shape_of(Model(name="m", path=str(folder))).parameters)
    stated = Model(name="m", kind="llama", d_model=16, n_layers=2, n_heads=4, vocab_size=61, tied=False, parameters=count)
    claims.check(stated, folder)
    with pytest.raises(ModelError, match=f"number of parameters is {2 * count:,} and here is {count:,}"):
        claims.check(replace(stated, parameters=2 * count), folder)
    with pytest.raises(ModelError, match="model_type is qwen3 and here is llama"):
        claims.check(replace(stated, kind="qwen3"), folder)


#: What the stated shapes leave open, as published: intermediate size, heads of keys and values, width of a head.
PUBLISHED: dict[str, tuple[int, int | None, int | None]] = {
    "pythia_70m": (2048, None, None),
    "pythia_160m": (3072, None, None),
    "pythia_410m": (4096, None, None),
    "pythia_1b": (8192, None, None),
    "pythia_1_4b": (8192, None, None),
    "pythia_2_8b": (10240, None, None),
    "pythia_6_9b": (16384, None, None),
    "pythia_12b": (20480, None, None),
    "olmo2_1b": (8192, 16, None),
    "olmo2_7b": (11008, 32, None),
    "olmo2_13b": (13824, 40, None),
    "smollm2_135m": (1536, 3, None),
    "smollm2_360m": (2560, 5, None),
    "smollm2_1_7b": (8192, 32, None),
    "qwen3_0_6b_base": (3072, 8, 128),
    "qwen3_1_7b_base": (6144, 8, 128),
    "qwen3_4b_base": (9728, 8, 128),
    "qwen3_8b_base": (12288, 8, 128),
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_a_living_base_has_its_stated_size(name: str) -> None:
    model = compose([f"model={name}"]).model
    inner, keys, width = PUBLISHED[name]
    more = {key: value for key, value in (("num_key_value_heads", keys), ("head_dim", width)) if value is not None}
    config = AutoConfig.for_model(
        model.kind,
        vocab_size=model.vocab_size,
        hidden_size=model.d_model,
        num_hidden_layers=model.n_layers,
        num_attention_heads=model.n_heads,
        intermediate_size=inner,
        tie_word_embeddings=model.tied,
        pad_token_id=None,
        **more,
    )
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(config)
    assert sum(value.numel() for value in network.parameters()) == model.parameters


@pytest.mark.parametrize("vocab", [{"a": 0, "b": 70}, [["a", 0.0], ["b", 0.0]]])
def test_a_tokenizer_beyond_the_embedding_is_one_sentence(vocab: object, tmp_path: Path) -> None:
    added = [{"id": 80, "content": "<end>"}] if isinstance(vocab, list) else []
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps({"model": {"vocab": vocab}, "added_tokens": added}), encoding="utf-8")
    highest = 80 if added else 70
    claims.check_tokenizer(tmp_path, highest + 1)
    with pytest.raises(ModelError, match=f"has {highest + 1} tokens and the model's embedding {highest}: use the tokenizer"):
        claims.check_tokenizer(tmp_path, highest)


def test_a_base_with_another_models_tokenizer_is_refused_before_training(tmp_path: Path) -> None:
    folder = saved(llama(), tmp_path / "model")
    study = compose(["+experiment=real_rows_hf", f"model.path={folder}"])
    said = "has 2,048 tokens and the model's embedding 61: use the tokenizer that the model was trained with."
    assert any(said in problem for problem in plan.problems([study]))
    random = compose(["model=random_mpt", "model.vocab_size=61", f"model.tokenizer={SHIPPED}", f"runs={tmp_path / 'runs'}"])
    with pytest.raises(ModelError, match="has 2,048 tokens and the model's embedding 61"):
        base_folder(random)
