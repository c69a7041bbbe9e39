"""Small MPTs with weights large enough for every part to matter, and transformers' model on the same weights."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from transformers import MptConfig, MptForCausalLM

from limit_lab.model.mpt import MPT
from limit_lab.model.mpt_config import MPTConfig

SHAPE = MPTConfig(d_model=32, n_layers=2, n_heads=4, vocab_size=61, max_seq_len=64)
SHAPES = {
    "plain": SHAPE,
    "six heads": replace(SHAPE, d_model=48, n_heads=6),
    "one head": replace(SHAPE, n_heads=1),
    "64 heads": replace(SHAPE, d_model=128, n_heads=64, n_layers=1),
    "seven heads of width 112": replace(SHAPE, d_model=784, n_heads=7, n_layers=1),
    "clip_qkv": replace(SHAPE, clip_qkv=0.7),
    "softmax_scale": replace(SHAPE, softmax_scale=0.9),
    "epsilon": replace(SHAPE, layer_norm_epsilon=0.3),
}


@torch.no_grad()
def random_model(config: MPTConfig = SHAPE, seed: int = 0) -> MPT:
    """An MPT without gradients whose logits are of order one, its norms far from the identity."""
    model = MPT(config).eval()
    generator = torch.Generator().manual_seed(seed)
    spread = 0.15 * min(1.0, math.sqrt(48 / config.d_model))
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(spread * noise if parameter.dim() > 1 else 1 + 0.3 * noise)
    return model.requires_grad_(False)


def oracle(model: MPT, *, max_seq_len: int | None = None) -> MptForCausalLM:
    """transformers' model with the same weights; its ALiBi table ends at ``max_seq_len``."""
    config = replace(model.config, max_seq_len=max_seq_len or model.config.max_seq_len)
    theirs = MptForCausalLM(MptConfig.from_dict(config.to_hugging_face())).eval()
    state = model.state_dict()
    theirs.load_state_dict({**state, "lm_head.weight": state["transformer.wte.weight"]}, strict=True)
    return theirs.requires_grad_(False)


def random_ids(*shape: int, vocab: int = SHAPE.vocab_size, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, vocab, shape, generator=torch.Generator().manual_seed(seed))
