"""Attention over packed documents, each by itself: no score between two documents is ever computed.

Rows of packed documents are gathered into groups of like length, so that padding stays small, and scattered back. On a
CPU this replaces a masked attention over whole rows, whose backward costs as much as all matrix products of a small MPT.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: A document joins a group when it is at least this share of the group's longest.
ALIKE = 0.75


class Documents:
    """Where the documents of a packed batch lie. Positions outside documents (index -1) attend to nothing of use."""

    def __init__(self, document: Tensor, slopes: Tensor) -> None:
        """``document`` int64 [rows, tokens] marks the tokens of each document, -1 elsewhere; ``slopes`` float32 [heads]."""
        spans = sorted(_spans(document), key=lambda span: (-span[1], span[0]))
        self.groups: list[tuple[Tensor, Tensor]] = []
        place = torch.zeros(document.numel(), dtype=torch.long)
        done = 0
        while spans:
            longest = spans[0][1]
            group = [span for span in spans if span[1] >= ALIKE * longest]
            spans = spans[len(group) :]
            steps = torch.arange(longest)
            starts, lengths = torch.tensor(group).unbind(1)
            # beyond its end a document repeats its last token, which no earlier position sees and nothing reads
            gathered = starts[:, None] + torch.minimum(steps[None], lengths[:, None] - 1)
            self.groups.append((gathered, _alibi(slopes, longest)))
            inside = steps[None] < lengths[:, None]
            place[gathered[inside]] = (done + torch.arange(gathered.numel()).view_as(gathered))[inside]
            done += gathered.numel()
        self.place = place

    def attend(self, qkv: Tensor, n_heads: int, scale: float | None) -> Tensor:
        """Mixed values [rows, tokens, width] of fused queries, keys and values [rows, tokens, 3 * width].

        Computed in float32 whatever autocast says: on a CPU that is both closer and faster than bfloat16.
        """
        rows, tokens, fused = qkv.shape
        flat = qkv.reshape(rows * tokens, fused)
        mixed = []
        with torch.autocast(qkv.device.type, enabled=False):
            for gathered, bias in self.groups:
                n, longest = gathered.shape
                parts = flat.index_select(0, gathered.flatten()).float().view(n, longest, 3, n_heads, fused // 3 // n_heads)
                query, key, value = parts.permute(2, 0, 3, 1, 4)
                out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scale)
                mixed.append(out.transpose(1, 2).reshape(n * longest, fused // 3))
        return torch.cat(mixed).index_select(0, self.place).to(qkv.dtype).view(rows, tokens, fused // 3)


def _spans(document: Tensor) -> list[tuple[int, int]]:
    """Start in the flattened batch and length of every document; a row's end ends a document."""
    found: list[tuple[int, int]] = []
    for row, indices in enumerate(document.tolist()):
        start = 0
        for position in range(1, len(indices) + 1):
            if position == len(indices) or indices[position] != indices[start]:
                if indices[start] >= 0:
                    found.append((row * len(indices) + start, position - start))
                start = position
    return found


def _alibi(slopes: Tensor, tokens: int) -> Tensor:
    """Causal ALiBi bias, float32 [1, heads, tokens, tokens]."""
    at = torch.arange(tokens)
    bias = slopes.float()[:, None, None] * (at[None, :] - at[:, None])
    return bias.masked_fill(at[None, :] > at[:, None], -torch.inf)[None]
