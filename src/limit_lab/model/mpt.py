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
from safetensors.torch import save_file
from torch import Tensor, nn

from limit_lab import store
from limit_lab.model.causal import CausalLM
from limit_lab.model.mpt_config import MPTConfig


def alibi_slopes(n_heads: int, bias_max: int = 8) -> Tensor:
    """Slopes, float32 [n_heads]; interleaved when the head count is no power of two, as in llm-foundry."""
    rounded = 2 ** math.ceil(math.log2(n_heads))
    slopes = 2.0 ** -(torch.arange(1, rounded + 1, dtype=torch.float32) * bias_max / rounded)
    return slopes if rounded == n_heads else torch.cat([slopes[1::2], slopes[::2]])[:n_heads]


class Cache:
    """Keys and values of the tokens read so far, one pair [batch, heads, tokens, head_dim] per layer."""

    def __init__(self, n_layers: int) -> None:
        self.layers: list[tuple[Tensor, Tensor] | None] = [None] * n_layers

    @property
    def tokens(self) -> int:
        first = self.layers[0]
        return 0 if first is None else first[0].shape[2]

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append to one layer; return all its keys and values."""
        held = self.layers[layer]
        if held is not None:
            keys, values = torch.cat([held[0], keys], 2), torch.cat([held[1], values], 2)
        self.layers[layer] = (keys, values)
        return keys, values

    def select(self, rows: Tensor) -> None:
        """Keep (or repeat) the given batch rows, int64 [n]."""
        self.layers = [pair and (pair[0][rows], pair[1][rows]) for pair in self.layers]


class Attention(nn.Module):
    """Multi-head self-attention with a precomputed additive bias."""

    def __init__(self, config: MPTConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.clip_qkv = config.clip_qkv
        self.scale = config.softmax_scale
        self.Wqkv = nn.Linear(config.d_model, 3 * config.d_model, bias=False)
        self.out_proj = nn.Linear(config.d_model, config.d_model, bias=False)

    def forward(self, x: Tensor, bias: Tensor, cache: Cache | None, layer: int) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.Wqkv(x)
        if self.clip_qkv is not None:
            qkv = qkv.clamp(-self.clip_qkv, self.clip_qkv)
        query, key, value = (
            part.view(batch, tokens, self.n_heads, width // self.n_heads).transpose(1, 2) for part in qkv.chunk(3, -1)
        )
        if cache is not None:
            key, value = cache.extend(layer, key, value)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype), scale=self.scale)
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

    def forward(self, x: Tensor, bias: Tensor, cache: Cache | None, layer: int) -> Tensor:
        x = x + self.attn(self.norm_1(x), bias, cache, layer)
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
    def vocab_size(self) -> int:
        return self.config.vocab_size

    def bias(self, queries: int, keys: int, document: Tensor | None, left_pad: Tensor | None) -> Tensor:
        """ALiBi and masks as one additive bias, float32 [1 or batch, heads, queries, keys]."""
        device = self.slopes.device
        key = torch.arange(keys, device=device)
        query = torch.arange(keys - queries, keys, device=device)
        bias = self.slopes.float()[:, None, None] * (key[None, :] - query[:, None])
        bias = bias.masked_fill(key[None, :] > query[:, None], -torch.inf)[None]
        if document is not None:
            bias = bias.masked_fill((document[:, None, :, None] != document[:, None, None, :]), -torch.inf)
        if left_pad is not None:
            hidden = key[None, :] < left_pad[:, None]
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
        keys = ids.shape[1] + (cache.tokens if cache is not None else 0)
        bias = self.bias(ids.shape[1], keys, document, left_pad)
        x: Tensor = self.transformer.wte(ids)
        for layer, block in enumerate(self.transformer.blocks):
            x = block(x, bias, cache, layer)
        out: Tensor = self.transformer.norm_f(x)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.transformer.wte.weight)

    def new_cache(self) -> Cache:
        return Cache(self.config.n_layers)

    def vocabulary(self) -> list[nn.Parameter]:
        return list(self.transformer.wte.parameters())

    def write(self, folder: Path, dtype: torch.dtype) -> None:
        state = {name: value.detach().to(dtype).contiguous() for name, value in self.state_dict().items()}
        with store.writing(folder / "model.safetensors"):
            save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        config = self.config.to_hugging_face() | {"dtype": str(dtype).removeprefix("torch.")}
        store.write_json(folder / "config.json", config)
