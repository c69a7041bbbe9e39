"""What config.json of an MPT may say: every field is read, harmless or refused, whoever wrote it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import MptConfig

from limit_lab.compose import compose
from limit_lab.errors import ModelError
from limit_lab.model.mpt import MPT
from limit_lab.model.mpt_config import REQUIRED, REQUIRED_ATTENTION, SIZES, MPTConfig
from limit_lab.shapes import shape_of
from tests.model.oracle import SHAPE, SHAPES


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES.keys())
def test_the_configuration_survives_transformers(config: MPTConfig) -> None:
    theirs = MptConfig.from_dict(config.to_hugging_face())
    assert MPTConfig.from_hugging_face(theirs.to_dict()) == config
    assert theirs.architectures == ["MptForCausalLM"]


#: As MosaicML's own code wrote config.json: fields that transformers never knew, and some that it drops.
OLD_HUB: dict[str, Any] = {
    "architectures": ["MPTForCausalLM"],
    "attn_config": {
        "alibi": True,
        "alibi_bias_max": 8,
        "attn_impl": "triton",
        "attn_pdrop": 0,
        "attn_type": "multihead_attention",
        "attn_uses_sequence_id": True,
        "clip_qkv": 6.0,
        "kv_n_heads": 4,
        "prefix_lm": False,
        "qk_gn": False,
        "qk_ln": False,
        "rope": False,
        "rope_theta": 10000,
        "sliding_window_size": -1,
        "softmax_scale": None,
    },
    "auto_map": {"AutoConfig": "configuration_mpt.MPTConfig"},
    "d_model": 32,
    "emb_pdrop": 0,
    "embedding_fraction": 1.0,
    "expansion_ratio": 4,
    "fc_type": "torch",
    "ffn_config": {"fc_type": "torch", "ffn_act_fn": None, "ffn_hidden_size": 128, "ffn_type": "mptmlp"},
    "init_config": {"name": "kaiming_normal_", "init_div_is_residual": True, "verbose": 0},
    "init_device": "meta",
    "learned_pos_emb": False,
    "logit_scale": None,
    "max_seq_len": 64,
    "model_type": "mpt",
    "n_heads": 4,
    "n_layers": 2,
    "no_bias": True,
    "norm_type": "low_precision_layernorm",
    "resid_pdrop": 0,
    "tokenizer_name": "some/tokenizer",
    "torch_dtype": "bfloat16",
    "use_cache": False,
    "use_pad_tok_in_ffn": True,
    "verbose": 0,
    "vocab_size": 61,
}

UNSUPPORTED: list[tuple[str, Any]] = [
    ("expansion_ratio", 2),
    ("no_bias", False),
    ("logit_scale", "inv_sqrt_d_model"),
    ("emb_pdrop", 0.1),
    ("resid_pdrop", 0.1),
    ("tie_word_embeddings", False),
    ("norm_type", "low_precision_rmsnorm"),
    ("attn_config.alibi", False),
    ("attn_config.alibi_bias_max", 16),
    ("attn_config.attn_pdrop", 0.1),
    ("attn_config.attn_type", "multiquery_attention"),
    ("attn_config.prefix_lm", True),
    ("attn_config.qk_ln", True),
    ("attn_config.rope", True),
    ("attn_config.kv_n_heads", 2),
    ("attn_config.sliding_window_size", 128),
    ("attn_config.clip_qkv", 0),
    ("attn_config.softmax_scale", -1.0),
    ("attn_config.alibi_bias_max", True),
    ("embedding_fraction", 0.5),
    ("norm_eps", 1e-6),
    ("final_logit_softcapping", 30.0),
    ("block_overrides", {"order": []}),
    ("layer_norm_epsilon", None),
    ("n_layers", 0),
    ("d_model", "32"),
    ("attn_config", "alibi"),
    ("ffn_config", {"ffn_type": "mptglu"}),
]


def changed(raw: dict[str, Any], field: str, value: Any) -> dict[str, Any]:
    group, _, key = field.rpartition(".")
    return {**raw, group: {**raw[group], key: value}} if group else {**raw, key: value}


@pytest.mark.parametrize(("field", "value"), UNSUPPORTED, ids=lambda value: str(value))
def test_an_unsupported_field_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ModelError) as caught:
        MPTConfig.from_hugging_face(changed(SHAPE.to_hugging_face(), field, value))
    if field == "ffn_config":
        field, value = "ffn_config.ffn_type", "mptglu"
    assert f" {field}={value!r};" in str(caught.value)


@pytest.mark.parametrize("field", ["rotary_dim", "attn_config.rotary_dim", "quantization_config"])
def test_an_unknown_field_is_refused_by_name(field: str) -> None:
    with pytest.raises(ModelError) as caught:
        MPTConfig.from_hugging_face(changed(SHAPE.to_hugging_face(), field, 8))
    assert f" {field}=8 (an unknown field);" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_configuration_of_the_old_hub_is_read() -> None:
    assert MPTConfig.from_hugging_face(OLD_HUB) == replace(SHAPE, clip_qkv=6.0)


def test_a_configuration_of_transformers_4_is_read_and_exported_for_5() -> None:
    generation = {"do_sample": False, "max_length": 20, "temperature": 1.0, "torchscript": False, "pruned_heads": {}}
    raw = changed({**SHAPE.to_hugging_face(), **generation, "torch_dtype": "float32"}, "attn_config.attn_pdrop", 0.0)
    raw["attn_config"] |= {**generation, "model_type": "", "is_encoder_decoder": False, "tie_word_embeddings": True}
    config = MPTConfig.from_hugging_face(raw)
    assert config == SHAPE
    assert type(config.to_hugging_face()["attn_config"]["attn_pdrop"]) is int


def test_the_described_weights_are_those_of_the_module() -> None:
    described = {name: torch.Size(shape) for name, shape in SHAPE.tensors()}
    assert described == {name: value.shape for name, value in MPT(SHAPE).state_dict().items()}


@pytest.mark.parametrize(
    ("name", "published", "heads"),
    [
        ("mpt_125m", 125e6, 12),
        ("mpt_350m", 356e6, 16),
        ("mpt_760m", 760e6, 12),
        ("mpt_1b", 1.316e9, 16),
        ("mpt_3b", 2.65e9, 20),
        ("mpt_7b", 6.66e9, 32),
        ("mpt_30b", 29.98e9, 64),
    ],
)
def test_a_shipped_shape_has_its_published_size(name: str, published: float, heads: int) -> None:
    """The published counts include learned positions for 2,048 tokens, which ALiBi replaces."""
    stated = compose([f"model={name}", "data.dir=/d"]).model
    sizes = {size: getattr(stated, size) for size in SIZES}
    with torch.device("meta"):
        model = MPT(MPTConfig(**sizes))
    count = sum(value.numel() for value in model.parameters())
    assert count + 2048 * stated.d_model == pytest.approx(published, rel=3e-3)
    assert count == pytest.approx(shape_of(stated).parameters, rel=1e-4)
    assert stated.n_heads == heads


def test_every_field_with_one_supported_value_is_tried() -> None:
    assert {*REQUIRED, *(f"attn_config.{key}" for key in REQUIRED_ATTENTION)} <= {field for field, _ in UNSUPPORTED}


def test_all_unsupported_fields_are_named_at_once() -> None:
    raw, several = SHAPE.to_hugging_face(), UNSUPPORTED[:13]
    for field, value in several:
        raw = changed(raw, field, value)
    with pytest.raises(ModelError) as caught:
        MPTConfig.from_hugging_face(raw)
    assert all(f"{field}={value!r}" in str(caught.value) for field, value in several)


def test_missing_fields_are_named() -> None:
    raw = {key: value for key, value in SHAPE.to_hugging_face().items() if key not in ("d_model", "n_heads")}
    with pytest.raises(ModelError, match="lacks d_model, n_heads"):
        MPTConfig.from_hugging_face(raw)


def test_a_width_that_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ModelError, match=r"d_model=32 .* n_heads=5"):
        MPTConfig.from_hugging_face({**SHAPE.to_hugging_face(), "n_heads": 5})
