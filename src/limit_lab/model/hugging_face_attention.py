"""Packed documents for the models of transformers, through its own registry of attention functions.

A row that holds several documents one after another is read with their ``document_lengths``, which transformers hands on to
every attention layer, and each layer mixes every document by itself. Otherwise the registered function is its `sdpa`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: The name of the function in the registry of transformers.
NAME = "limit_lab_documents"

#: Configuration fields that limit how far back some layer looks, in tokens.
LIMITS = ("sliding_window", "attention_chunk_size", "window_size")

_no_mask: ContextVar[bool] = ContextVar("no_mask", default=False)


@contextmanager
def without_mask() -> Iterator[None]:
    """Spare the row its mask of all tokens against all."""
    token = _no_mask.set(True)
    try:
        yield
    finally:
        _no_mask.reset(token)


def register() -> None:
    """Make the function known to transformers."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, _mask)


def reach(config: Mapping[str, Any]) -> float:
    """Tokens of the longest document that every layer sees whole; longer ones need the masks of transformers."""
    stated = [config[name] for name in LIMITS if isinstance(config.get(name), int) and config[name] > 0]
    return min(stated, default=math.inf)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    document_lengths: Sequence[int] | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """Mixed values [batch, tokens, heads, head_dim] of query, key and value [batch, heads, tokens, head_dim].

    Raises: NotImplementedError for scores that are more than scaled products, which then keep to a mask (`load`).
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if document_lengths is None:
        forward: Any = sdpa_attention_forward
        plain: Tensor = forward(module, query, key, value, attention_mask, **settings)[0]
        return plain, None
    for name in ("softcap", "position_bias", "s_aux"):
        if settings.get(name) is not None:
            raise NotImplementedError(f"attention with {name}")
    kernel = _varlen if query.is_cuda and query.dtype != torch.float32 else _one_by_one
    return kernel(query, key, value, document_lengths, settings.get("scaling")).transpose(1, 2).contiguous(), None


def _mask(*arguments: Any, **settings: Any) -> Tensor | None:
    from transformers.masking_utils import sdpa_mask

    return None if _no_mask.get() else sdpa_mask(*arguments, **settings)


def _one_by_one(query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int], scale: float | None) -> Tensor:
    repeat = query.shape[1] // key.shape[1]
    if repeat > 1:
        key, value = key.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1)
    parts = zip(*(torch.split(part, list(lengths), 2) for part in (query, key, value)), strict=True)
    return torch.cat([F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale) for q, k, v in parts], 2)


def _varlen(query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int], scale: float | None) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=query.device)
    q, k, v = (part[0].transpose(0, 1).contiguous() for part in (query, key, value))
    gqa, longest = query.shape[1] != key.shape[1], max(lengths)
    mixed = varlen_attn(q, k, v, ends, ends, longest, longest, scale=scale, window_size=(-1, 0), enable_gqa=gqa)
    assert isinstance(mixed, Tensor)
    return mixed.transpose(0, 1)[None]
