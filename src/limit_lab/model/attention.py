"""Ways to attend with ALiBi (Press et al. 2022): over a dense bias, document by document, or by kernels that know no bias.

All give the same numbers up to rounding. A way is made once for a forward pass and called in every layer with query, key and
value [batch, heads, tokens, head_dim]; packed documents arrive as one row without padding, their ``lengths`` beside it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from limit_lab.errors import ModelError

#: Packed rows under a dense mask (the reference); or their documents one by one, in a variable-length kernel, in FlexAttention.
BACKENDS = ("mask", "documents", "varlen", "flex")


class Attend(Protocol):
    """Mixes the values of one layer."""

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, layer: int) -> Tensor:
        """Mixed values [batch, heads, tokens, head_dim]."""


class Heads(NamedTuple):
    """What all layers share: ALiBi slopes, float32 [heads], and the factor on query times key (None: 1 / sqrt(head_dim))."""

    slopes: Tensor
    scale: float | None

    def factor(self, head_dim: int) -> float:
        return 1.0 / math.sqrt(head_dim) if self.scale is None else self.scale


def alibi_slopes(n_heads: int, bias_max: int = 8) -> Tensor:
    """Slopes, float32 [n_heads]; interleaved when the head count is no power of two, as in llm-foundry."""
    rounded = 2 ** math.ceil(math.log2(n_heads))
    slopes = 2.0 ** -(torch.arange(1, rounded + 1, dtype=torch.float32) * bias_max / rounded)
    return slopes if rounded == n_heads else torch.cat([slopes[1::2], slopes[::2]])[:n_heads]


def causal_bias(slopes: Tensor, queries: int, keys: int) -> Tensor:
    """ALiBi below the diagonal and -inf above it, float32 [heads, queries, keys]; the queries are the last of the keys."""
    key = torch.arange(keys, device=slopes.device)
    query = torch.arange(keys - queries, keys, device=slopes.device)
    bias = slopes.float()[:, None, None] * (key[None, :] - query[:, None])
    return bias.masked_fill(key[None, :] > query[:, None], -torch.inf)


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

    def select(self, rows: Tensor, last: int | None = None) -> None:
        """Keep the given batch rows, int64 [n], and of the columns the ``last`` ones."""
        first = 0 if last is None else self.tokens - last
        self.layers = [pair and (_rows(pair[0], rows, first), _rows(pair[1], rows, first)) for pair in self.layers]

    def spread(self, rows: Tensor, lengths: Tensor) -> Cache:
        """Another one: the first ``lengths`` tokens of each of the batch ``rows``, aligned at the right; both int64 [n]."""
        made = Cache(len(self.layers))
        made.layers = [pair and (aligned(pair[0], rows, lengths), aligned(pair[1], rows, lengths)) for pair in self.layers]
        return made

    def joined(self, other: Cache) -> Cache:
        """Another one, with the rows of both: those of the one with fewer columns get more at their left."""
        made = Cache(len(self.layers))
        made.layers = [
            mine and yours and (below(mine[0], yours[0]), below(mine[1], yours[1]))
            for mine, yours in zip(self.layers, other.layers, strict=True)
        ]
        return made


class Dense:
    """One additive bias, float32 [1 or batch, heads, queries, keys]; extends a cache."""

    def __init__(self, heads: Heads, bias: Tensor, cache: Cache | None = None) -> None:
        self.heads = heads
        self.bias = bias
        self.cache = cache

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, layer: int) -> Tensor:
        if self.cache is not None:
            key, value = self.cache.extend(layer, key, value)
        self.bias = self.bias.to(query.device)  # a model may be spread over devices, block by block
        bias = self.bias.to(query.dtype)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=self.heads.scale)


class Documents:
    """Every document by itself, under a corner of the longest one's bias: no work is spent between documents."""

    def __init__(self, heads: Heads, lengths: Sequence[int]) -> None:
        self.heads = heads
        self.lengths = list(lengths)
        longest = max(self.lengths)
        self.bias = causal_bias(heads.slopes, longest, longest)

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, layer: int) -> Tensor:
        bias = self.bias = self.bias.to(query.dtype)
        mixed = [
            F.scaled_dot_product_attention(q, k, v, attn_mask=bias[:, :length, :length], scale=self.heads.scale)
            for (q, k, v), length in zip(_apart(query, key, value, self.lengths), self.lengths, strict=True)
        ]
        return torch.cat(mixed, 2)


class Varlen:
    """A causal kernel for rows of variable length that knows no bias: ALiBi goes into six more channels of query and key.

    slope / scale, cut into three parts that bfloat16 holds exactly, times the position, cut into 256 (j // 256) + j % 256,
    which it holds exactly for j < 65,536. A row's own position adds the same to all its scores, which softmax takes away.
    """

    #: Channels added, so that head_dim stays a multiple of 8.
    EXTRA = 8
    PARTS = 3
    LONGEST = 65_536

    def __init__(self, heads: Heads, lengths: Sequence[int], head_dim: int) -> None:
        if max(lengths) > self.LONGEST:
            raise ModelError(
                f"a document of {max(lengths):,} tokens is too long for this attention: use hardware.attention=mask."
            )
        device = heads.slopes.device
        self.heads = heads
        self.lengths = list(lengths)
        self.ends = torch.tensor([0, *accumulate(self.lengths)], dtype=torch.int32, device=device)
        position = torch.cat([torch.arange(length, device=device) for length in self.lengths])
        pair = torch.stack([position // 256 * 256, position % 256], -1).float()
        padding = (0, self.EXTRA - 2 * self.PARTS)
        self.keys = F.pad(pair.repeat(1, self.PARTS), padding)
        rest, parts = heads.slopes.float() / heads.factor(head_dim), []
        for _ in range(self.PARTS):
            parts.append(rest.bfloat16().float())
            rest = rest - parts[-1]
        self.queries = F.pad(torch.stack(parts, -1).repeat_interleave(2, -1), padding)

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, layer: int) -> Tensor:
        batch, heads, tokens, head_dim = query.shape
        width = (batch, heads, tokens, self.EXTRA)
        query = torch.cat([query, self.queries[None, :, None].to(query.dtype).expand(width)], -1)
        key = torch.cat([key, self.keys[None, None].to(key.dtype).expand(width)], -1)
        value = F.pad(value, (0, self.EXTRA))
        kernel = self._cuda if query.is_cuda else self._plain
        return kernel(query, key, value, self.heads.factor(head_dim))[..., :head_dim]

    def _cuda(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        from torch.nn.attention.varlen import varlen_attn

        q, k, v = (part[0].transpose(0, 1).contiguous() for part in (query, key, value))
        longest = max(self.lengths)
        mixed = varlen_attn(q, k, v, self.ends, self.ends, longest, longest, scale=scale, window_size=(-1, 0))
        assert isinstance(mixed, Tensor)
        return mixed.transpose(0, 1)[None]

    def _plain(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """The same on a CPU, for the tests: torch has no such kernel there."""
        return torch.cat(
            [
                F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
                for q, k, v in _apart(query, key, value, self.lengths)
            ],
            2,
        )


class Flex:
    """torch's FlexAttention, compiled on a GPU; on a CPU it has no backward pass."""

    def __init__(self, heads: Heads, lengths: Sequence[int]) -> None:
        from torch.nn.attention.flex_attention import create_block_mask

        device, slopes = heads.slopes.device, heads.slopes.float()
        owner = torch.repeat_interleave(torch.arange(len(lengths), device=device), torch.tensor(lengths, device=device))

        def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return (owner[query] == owner[key]) & (query >= key)

        def alibi(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return score + slopes[head] * (key - query)

        self.heads = heads
        self.score = alibi
        self.mask = create_block_mask(visible, None, None, len(owner), len(owner), device=str(device))

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, layer: int) -> Tensor:
        kernel = _flex(query.is_cuda)
        mixed: Tensor = kernel(query, key, value, score_mod=self.score, block_mask=self.mask, scale=self.heads.scale)
        return mixed


def below(upper: Tensor, lower: Tensor) -> Tensor:
    """Keys or values of more rows, [n, heads, tokens, head_dim]: zeros at the left of those that have fewer columns."""
    width = max(upper.shape[2], lower.shape[2])
    return torch.cat([F.pad(part, (0, 0, width - part.shape[2], 0)) for part in (upper, lower)])


def aligned(held: Tensor, rows: Tensor, lengths: Tensor) -> Tensor:
    """The first ``lengths`` columns of each of the batch ``rows`` of keys or values, at the right of those returned.

    [n, heads, tokens, head_dim], both. What stands before them is finite, and is to be masked.
    """
    rows, lengths = rows.to(held.device), lengths.to(held.device)
    width = int(lengths.max())
    if bool((lengths == width).all()):
        return held[:, :, :width].index_select(0, rows)
    column = torch.arange(width, device=held.device) - (width - lengths)[:, None]
    return held[rows[:, None], :, column.clamp(min=0)].transpose(1, 2)


def _rows(held: Tensor, rows: Tensor, first: int) -> Tensor:
    return held[rows.to(held.device), :, first:]


def _apart(query: Tensor, key: Tensor, value: Tensor, lengths: list[int]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Query, key and value of every document."""
    return zip(*(torch.split(part, lengths, 2) for part in (query, key, value)), strict=True)


@cache
def _flex(compiled: bool) -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    if compiled:
        return torch.compile(flex_attention, dynamic=True)

    def plain(query: Tensor, key: Tensor, value: Tensor, *, score_mod: Any, block_mask: Any, scale: float | None) -> Any:
        with warnings.catch_warnings():  # torch advises compilation, which takes a CPU longer than the tests' small rows
            warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
            return flex_attention(query, key, value, score_mod=score_mod, block_mask=block_mask, scale=scale)

    return plain


def automatic(device: torch.device) -> str:
    """The fastest back end for packed documents on a device."""
    return "varlen" if device.type == "cuda" else "documents"


def packed(backend: str, heads: Heads, lengths: Sequence[int], head_dim: int) -> Attend:
    """The way to attend inside documents that lie one after another in a single row. Raises: ModelError for an unknown one."""
    if backend == "documents":
        return Documents(heads, lengths)
    if backend == "varlen":
        return Varlen(heads, lengths, head_dim)
    if backend == "flex":
        return Flex(heads, lengths)
    raise ModelError(f"hardware.attention={backend!r} is unknown: use auto, {', '.join(BACKENDS)}.")
