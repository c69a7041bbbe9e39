"""The shape of an MPT, and what its config.json may say.

Every field that transformers or MosaicML's own code ever wrote stands in one table: implemented, harmless whatever its
value, or supported at the values that change nothing. Any other field is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from limit_lab.errors import ModelError

#: Configuration fields that change the mathematics, with the only value this module implements; written on export.
REQUIRED = {
    "expansion_ratio": 4,
    "no_bias": True,
    "logit_scale": None,
    "emb_pdrop": 0,
    "resid_pdrop": 0,
    "tie_word_embeddings": True,
}
NORMS = ("low_precision_layernorm", "layernorm")
SIZES = ("d_model", "n_layers", "n_heads", "vocab_size", "max_seq_len")
REQUIRED_ATTENTION = {
    "alibi": True,
    "alibi_bias_max": 8,
    "attn_pdrop": 0,
    "attn_type": "multihead_attention",
    "prefix_lm": False,
    "qk_ln": False,
}

#: Further fields with the values that mean what this module does.
SUPPORTED: dict[str, tuple[Any, ...]] = {
    **{key: (value,) for key, value in REQUIRED.items()},
    "norm_type": NORMS,
    "norm_eps": (1e-5,),
    "embedding_fraction": (1,),
    "block_overrides": (None,),
    "final_logit_softcapping": (None,),
    "add_cross_attention": (False,),
    "is_encoder_decoder": (False,),
    "pruned_heads": (None, {}),
    "chunk_size_feed_forward": (0,),
}
SUPPORTED_ATTENTION: dict[str, tuple[Any, ...]] = {
    **{key: (value,) for key, value in REQUIRED_ATTENTION.items()},
    "rope": (False,),
    "nope": (False,),
    "kv_dim": (None,),
    "qk_gn": (False,),
    "sliding_window_size": (-1,),
    "attn_logit_softcapping": (None,),
    "attn_temperature_tuning": (None, {}),
    "reuse_kv_layer_idx": (None,),
    "is_encoder_decoder": (False,),
    "pruned_heads": (None, {}),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True, False),
    "chunk_size_feed_forward": (0,),
}
SUPPORTED_FFN: dict[str, tuple[Any, ...]] = {
    "ffn_type": ("mptmlp",),
    "ffn_act_fn": (None, {"name": "gelu"}, {"name": "gelu", "approximate": "none"}),
}

#: Read into `MPTConfig`.
IMPLEMENTED = (*SIZES, "layer_norm_epsilon", "attn_config", "ffn_config")
IMPLEMENTED_ATTENTION = ("clip_qkv", "softmax_scale")

#: How transformers generates, which is not how we do.
GENERATION = frozenset(
    {
        *("bad_words_ids", "begin_suppress_tokens", "decoder_start_token_id", "diversity_penalty", "do_sample"),
        *("early_stopping", "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "forced_bos_token_id"),
        *("forced_eos_token_id", "length_penalty", "max_length", "min_length", "no_repeat_ngram_size", "num_beam_groups"),
        *("num_beams", "num_return_sequences", "output_scores", "remove_invalid_values", "repetition_penalty"),
        *("return_dict_in_generate", "suppress_tokens", "temperature", "top_k", "top_p", "typical_p", "use_cache"),
    }
)
#: What every configuration of transformers may hold and no logit depends on, whatever the value.
ANY = GENERATION | {
    *("_attn_implementation", "_attn_implementation_autoset", "_attn_implementation_internal", "_commit_hash"),
    *("_name_or_path", "architectures", "auto_map", "bos_token_id", "cross_attention_hidden_size", "custom_pipelines", "dtype"),
    *("eos_token_id", "finetuning_task", "id2label", "is_decoder", "label2id", "model_type", "name_or_path", "num_labels"),
    *("output_attentions", "output_hidden_states", "pad_token_id", "prefix", "problem_type", "return_dict", "sep_token_id"),
    *("task_specific_params", "tf_legacy_loss", "tie_encoder_decoder", "tokenizer_class", "tokenizer_name", "torch_dtype"),
    *("torchscript", "transformers_version", "use_bfloat16"),
}
#: The same of MPT: how weights begin, where they lie, how the same numbers are computed; with ALiBi, no learned positions.
ANY_OF_MPT = ANY | {
    *("fc_type", "init_config", "init_device", "initializer_range", "learned_pos_emb", "use_pad_tok_in_ffn", "verbose"),
}
#: Packed documents never see one another here, whatever ``attn_uses_sequence_id`` says; ``rope_*`` mean nothing without rope.
ANY_OF_ATTENTION = ANY | {
    *("attn_impl", "attn_uses_sequence_id", "fused_qkv"),
    *("rope_theta", "rope_impl", "rope_dail_config", "rope_hf_config"),
}
ANY_OF_FFN = frozenset({"fc_type"})


@dataclass(frozen=True, kw_only=True)
class MPTConfig:
    """The shape of an MPT."""

    d_model: int
    n_layers: int
    n_heads: int
    vocab_size: int
    max_seq_len: int = 2048
    clip_qkv: float | None = None
    softmax_scale: float | None = None
    layer_norm_epsilon: float = 1e-5

    @classmethod
    def from_hugging_face(cls, raw: dict[str, Any]) -> MPTConfig:
        """Read config.json of an MPT folder, as transformers or MosaicML's own code wrote it.

        Raises: ModelError naming every field that is missing, unknown, or whose value is not supported.
        """
        wrong = list(_unsupported(raw))
        if wrong:
            raise ModelError(f"this MPT configuration is not supported: {', '.join(wrong)}; use a model without them.")
        missing = [key for key in SIZES if key not in raw]
        if missing:
            raise ModelError(f"this MPT configuration lacks {', '.join(missing)}: take config.json from the model's source.")
        if raw["d_model"] % raw["n_heads"]:
            raise ModelError(f"d_model={raw['d_model']} cannot be shared by n_heads={raw['n_heads']}: use a divisor of it.")
        attention = raw.get("attn_config") or {}
        return cls(
            **{key: raw[key] for key in SIZES},
            clip_qkv=attention.get("clip_qkv"),
            softmax_scale=attention.get("softmax_scale"),
            layer_norm_epsilon=raw.get("layer_norm_epsilon", 1e-5),
        )

    def to_hugging_face(self) -> dict[str, Any]:
        """config.json content that transformers' `MptForCausalLM` loads."""
        attention = {**REQUIRED_ATTENTION, "clip_qkv": self.clip_qkv, "softmax_scale": self.softmax_scale}
        return {
            **REQUIRED,
            "architectures": ["MptForCausalLM"],
            "model_type": "mpt",
            "attn_config": attention,
            "d_model": self.d_model,
            "n_layers": self.n_layers,
            "n_heads": self.n_heads,
            "vocab_size": self.vocab_size,
            "max_seq_len": self.max_seq_len,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "norm_type": NORMS[0],
            "learned_pos_emb": True,
            "use_cache": False,
        }

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of every weight, embeddings first."""
        width = self.d_model
        yield "transformer.wte.weight", (self.vocab_size, width)
        for layer in range(self.n_layers):
            block = f"transformer.blocks.{layer}"
            yield f"{block}.norm_1.weight", (width,)
            yield f"{block}.attn.Wqkv.weight", (3 * width, width)
            yield f"{block}.attn.out_proj.weight", (width, width)
            yield f"{block}.norm_2.weight", (width,)
            yield f"{block}.ffn.up_proj.weight", (4 * width, width)
            yield f"{block}.ffn.down_proj.weight", (width, 4 * width)
        yield "transformer.norm_f.weight", (width,)


def canonical(name: str) -> str:
    """A weight's name as transformers writes it: files of the trunk alone lack the ``transformer.`` prefix."""
    return name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}"


def _unsupported(raw: Mapping[str, Any]) -> Iterator[str]:
    """``field=value`` for every field that is unknown or whose value this module does not implement."""
    for node in ("attn_config", "ffn_config"):
        if not isinstance(raw.get(node) or {}, Mapping):
            yield f"{node}={raw[node]!r}"
            return
    attention, feed = raw.get("attn_config") or {}, raw.get("ffn_config") or {}
    yield from _fields("", raw, {**SUPPORTED, **_sizes(raw)}, {*IMPLEMENTED, *ANY_OF_MPT})
    heads = {"kv_n_heads": (None, raw.get("n_heads"))}
    yield from _fields("attn_config.", attention, {**SUPPORTED_ATTENTION, **heads}, {*IMPLEMENTED_ATTENTION, *ANY_OF_ATTENTION})
    width = raw.get("d_model")
    inner = {"ffn_hidden_size": (None, 4 * width if isinstance(width, int) else None)}
    yield from _fields("ffn_config.", feed, {**SUPPORTED_FFN, **inner}, ANY_OF_FFN)
    positive = {f"attn_config.{key}": attention.get(key) for key in ("clip_qkv", "softmax_scale")}
    positive["layer_norm_epsilon"] = raw.get("layer_norm_epsilon", 1e-5)
    for key, value in positive.items():
        optional = value is None and key != "layer_norm_epsilon"
        if not optional and not (isinstance(value, int | float) and not isinstance(value, bool) and value > 0):
            yield f"{key}={value!r}"


def _sizes(raw: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    """No value is supported for a size that is no positive whole number."""
    return {key: () for key in SIZES if key in raw and (type(raw[key]) is not int or raw[key] < 1)}


def _fields(
    prefix: str, values: Mapping[str, Any], supported: Mapping[str, tuple[Any, ...]], known: Collection[str]
) -> Iterator[str]:
    for key, value in values.items():
        if key in supported:
            # True equals 1, and neither is the other's meaning
            if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in supported[key]):
                yield f"{prefix}{key}={value!r}"
        elif key not in known:
            yield f"{prefix}{key}={value!r} (an unknown field)"
