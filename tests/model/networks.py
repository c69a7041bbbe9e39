"""Tiny random networks of transformers, each in a folder of its own with a tokenizer."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from limit_lab.microworld.checkpoint import SHIPPED

#: Weights large enough for every part to matter.
SPREAD = 0.3


def llama(vocab_size: int = 61, *, tied: bool = False) -> Any:
    """Grouped queries, rotary positions, no biases."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        initializer_range=SPREAD,
        eos_token_id=0,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


def gpt_neox(vocab_size: int = 61) -> Any:
    """Parallel residuals, biases, partial rotary positions, dropout in training."""
    torch.manual_seed(1)
    config = GPTNeoXConfig(
        vocab_size=vocab_size,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        rotary_pct=0.5,
        hidden_dropout=0.2,
        attention_dropout=0.2,
        initializer_range=SPREAD,
        eos_token_id=0,
        bos_token_id=None,
    )
    return GPTNeoXForCausalLM(config).eval()


def grouped(kind: str, vocab_size: int = 61, **more: Any) -> Any:
    """A network of another family: grouped queries, rotary positions, whatever norms and biases are its own."""
    torch.manual_seed(2)
    config = AutoConfig.for_model(
        kind,
        vocab_size=vocab_size,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
        initializer_range=SPREAD,
        eos_token_id=0,
        bos_token_id=None,
        pad_token_id=None,
        **more,
    )
    return AutoModelForCausalLM.from_config(config).eval()


NETWORKS = {
    "llama": llama,
    "gpt_neox": gpt_neox,
    "olmo2": partial(grouped, "olmo2"),
    "qwen2": partial(grouped, "qwen2"),
    "qwen3": partial(grouped, "qwen3", head_dim=8),
}


def saved(network: Any, folder: Path) -> Path:
    """``folder`` with the network and the tokenizer of the embedded world."""
    network.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(SHIPPED / name, folder / name)
    return folder
