"""The ways to attend against one another where a whole model would hide their differences: lengths, head sizes, bfloat16."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from limit_lab.errors import ModelError
from limit_lab.model.attention import Attend, Dense, Documents, Heads, Varlen, alibi_slopes, automatic, causal_bias, packed

LENGTHS = (700, 1, 330)


def reference(heads: Heads, lengths: tuple[int, ...]) -> Dense:
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    bias = causal_bias(heads.slopes, len(owner), len(owner))
    return Dense(heads, bias.masked_fill(owner[:, None] != owner, -torch.inf)[None])


def drawn(heads: int, dim: int, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    query, key, value = (torch.randn(1, heads, tokens, dim, generator=generator) for _ in range(3))
    return query, key, value


@pytest.mark.parametrize("backend", ["documents", "varlen", "flex"])
@pytest.mark.parametrize(("count", "dim", "scale"), [(8, 16, None), (6, 112, None), (64, 8, 0.3)])
def test_back_ends_agree(backend: str, count: int, dim: int, scale: float | None) -> None:
    heads = Heads(alibi_slopes(count), scale)
    parts = drawn(count, dim, sum(LENGTHS))
    expected = reference(heads, LENGTHS)(*parts, 0)
    found = packed(backend, heads, LENGTHS, dim)(*parts, 0)
    # a position beside a slope is as large as 700, and float32 keeps seven digits of the sum
    torch.testing.assert_close(found, expected, atol=2e-4 if backend == "varlen" else 5e-6, rtol=0)


def test_a_bias_in_channels_is_as_exact_in_bfloat16_as_a_mask() -> None:
    heads, dim, lengths = Heads(alibi_slopes(32), None), 64, (1024,)
    parts = drawn(32, dim, 1024)
    exact = reference(heads, lengths)(*parts, 0)
    rough = tuple(part.bfloat16() for part in parts)

    def error(attend: Attend) -> float:
        return float((attend(*rough, 0).float() - exact).square().mean().sqrt() / exact.square().mean().sqrt())

    assert error(Varlen(heads, lengths, dim)) < 1.1 * error(Documents(heads, lengths))


def test_documents_longer_than_the_channels_can_count_are_refused() -> None:
    with pytest.raises(ModelError, match="65,537 tokens is too long"):
        Varlen(Heads(alibi_slopes(2), None), (65_537,), 8)


def test_the_automatic_choice() -> None:
    assert automatic(torch.device("cpu")) == "documents"
    assert automatic(torch.device("cuda", 0)) == "varlen"
