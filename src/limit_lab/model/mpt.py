"""MPT in plain PyTorch: Hugging Face parameter names, ALiBi, no biases, tied head, scaled-dot-product attention.

The mathematics is that of transformers' `MptForCausalLM` (the oracle of the parity tests): pre-norm blocks, exact GELU,
fused Wqkv, ALiBi with bias max 8 (Press et al. 2022). Unlike it, attention takes a document index per token, so packed
documents cannot see one another, and a sequence may be longer than the pretraining context.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from limit_lab import store
from limit_lab.model.attention import Attend, Cache, Dense, Heads, alibi_slopes, automatic, causal_bias, packed
from limit_lab.model.causal import CausalLM
from limit_lab.model.mpt_config import MPTConfig


class Attention(nn.Module):
    """Multi-head self-attention; how heads attend is given with every call."""

    def __init__(self, config: MPTConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.clip_qkv = config.clip_qkv
        self.Wqkv = nn.Linear(config.d_model, 3 * config.d_model, bias=False)
        self.out_proj = nn.Linear(config.d_model, config.d_model, bias=False)

    def forward(self, x: Tensor, attend: Attend, layer: int) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.Wqkv(x)
        if self.clip_qkv is not None:
            qkv = qkv.clamp(-self.clip_qkv, self.clip_qkv)
        query, key, value = (
            part.view(batch, tokens, self.n_heads, width // self.n_heads).transpose(1, 2) for part in qkv.chunk(3, -1)
        )
        mixed = attend(query, key, value, layer)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return out


class FeedForward(nn.Module):
    """Two projections around an exact GELU."""

    def __init__(self, config: MPTConfig) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.d_model, 4 * config.d_model, bias=False)
        self.down_proj = nn.Linear(4 * config.d_model, config.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.gelu(self.up_proj(x)))
        return out


class Block(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, config: MPTConfig) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon, bias=False)
        self.attn = Attention(config)
        self.norm_2 = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon, bias=False)
        self.ffn = FeedForward(config)

    def forward(self, x: Tensor, attend: Attend, layer: int) -> Tensor:
        x = x + self.attn(self.norm_1(x), attend, layer)
        out: Tensor = x + self.ffn(self.norm_2(x))
        return out


class Trunk(nn.Module):
    """Embedding, blocks and final norm: everything below the vocabulary projection."""

    def __init__(self, config: MPTConfig) -> None:
        super().__init__()
        self.wte = nn.Embedding(config.vocab_size, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm_f = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon, bias=False)


class MPT(CausalLM):
    """MPT with random weights until they are initialised or loaded."""

    slopes: Tensor

    def __init__(self, config: MPTConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = Trunk(config)
        self.attention = "auto"
        self.recompute = False
        self.register_buffer("slopes", alibi_slopes(config.n_heads), persistent=False)

    def initialise(self, seed: int) -> None:
        """Random weights: N(0, 0.02), residual projections divided by sqrt(2 n_layers) (GPT-2's scheme)."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                residual = name.endswith(("out_proj.weight", "down_proj.weight"))
                std = 0.02 / (math.sqrt(2 * self.config.n_layers) if residual else 1.0)
                nn.init.normal_(parameter, std=std, generator=generator)

    @property
    def device(self) -> torch.device:
        return self.slopes.device

    @property
    def heads(self) -> Heads:
        return Heads(self.slopes, self.config.softmax_scale)

    def run(self, *, attention: str, recompute: bool) -> None:
        self.attention, self.recompute = attention, recompute

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    def bias(self, queries: int, keys: int, document: Tensor | None, left_pad: Tensor | None) -> Tensor:
        """ALiBi and masks as one additive bias, float32 [1 or batch, heads, queries, keys]."""
        bias = causal_bias(self.slopes, queries, keys)[None]
        if document is not None:
            bias = bias.masked_fill((document[:, None, :, None] != document[:, None, None, :]), -torch.inf)
        if left_pad is not None:
            hidden = torch.arange(keys, device=self.device)[None, :] < left_pad[:, None]
            bias = bias.masked_fill(hidden[:, None, None, :], torch.finfo(torch.float32).min)
        return bias

    def hidden(
        self,
        ids: Tensor,
        *,
        document: Tensor | None = None,
        left_pad: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        backend = automatic(self.device) if self.attention == "auto" else self.attention
        if document is not None and backend != "mask" and bool((document >= 0).any()):
            return self._packed(ids, document, backend)
        keys = ids.shape[1] + (cache.tokens if cache is not None else 0)
        return self._through(ids, Dense(self.heads, self.bias(ids.shape[1], keys, document, left_pad), cache))

    def _packed(self, ids: Tensor, document: Tensor, backend: str) -> Tensor:
        """The documents of all rows one after another, without padding; its hidden states are 0."""
        real = document >= 0
        lengths = torch.unique_consecutive(document[real], return_counts=True)[1].tolist()
        attend = packed(backend, self.heads, lengths, self.config.d_model // self.config.n_heads)
        states = self._through(ids[real][None], attend)[0]
        return states.new_zeros(*ids.shape, states.shape[-1]).masked_scatter(real[..., None], states)

    def _through(self, ids: Tensor, attend: Attend) -> Tensor:
        x: Tensor = self.transformer.wte(ids)
        for layer, block in enumerate(self.transformer.blocks):
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, attend, layer, use_reentrant=False)
            else:
                x = block(x, attend, layer)
        out: Tensor = self.transformer.norm_f(x)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.head(hidden, lambda states: F.linear(states, self.transformer.wte.weight))
        return out

    def projection(self) -> Tensor:
        return self.transformer.wte.weight

    def new_cache(self) -> Cache:
        return Cache(self.config.n_layers)

    def blocks(self) -> list[nn.Module]:
        return list(self.transformer.blocks)

    def vocabulary(self) -> list[nn.Parameter]:
        return list(self.transformer.wte.parameters())

    def weights(self) -> dict[str, Tensor]:
        return dict(self.named_parameters())

    def write_config(self, folder: Path, dtype: torch.dtype) -> None:
        config = self.config.to_hugging_face() | {"dtype": str(dtype).removeprefix("torch.")}
        store.write_json(folder / "config.json", config)
