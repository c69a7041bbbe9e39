"""The shape of an MPT, and what its config.json may say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from limit_lab.errors import ModelError

#: Configuration fields that change the mathematics, with the only value this module implements.
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
        """Read config.json of an MPT folder.

        Raises: ModelError naming every field that is missing or whose value is not supported.
        """
        attention = raw.get("attn_config") or {}
        wrong = [f"{key}={raw[key]!r}" for key, value in REQUIRED.items() if raw.get(key, value) != value]
        wrong += [f"attn_config.{k}={attention[k]!r}" for k, v in REQUIRED_ATTENTION.items() if attention.get(k, v) != v]
        if raw.get("norm_type", NORMS[0]) not in NORMS:
            wrong.append(f"norm_type={raw['norm_type']!r}")
        if wrong:
            raise ModelError(f"this MPT configuration is not supported: {', '.join(wrong)}; use a model without them.")
        missing = [key for key in SIZES if key not in raw]
        if missing:
            raise ModelError(f"this MPT configuration lacks {', '.join(missing)}: take config.json from the model's source.")
        if raw["d_model"] % raw["n_heads"]:
            raise ModelError(f"d_model={raw['d_model']} cannot be shared by n_heads={raw['n_heads']}: use a divisor of it.")
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
