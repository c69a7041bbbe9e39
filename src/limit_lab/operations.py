"""Floating-point operations of forward and backward passes, by our count and by MosaicML's."""

from __future__ import annotations

from limit_lab.shapes import Shape


def counted(shape: Shape, tokens: float, targets: float, squares: float, *, adapters: bool = False) -> float:
    """``6 (B T + V d T_target) + 6 L d sum(l^2)``: what documents of l tokens need, attention inside each of them only.

    T tokens of which T_target carry loss, B weights outside the vocabulary (``12 L d^2`` in an MPT): 2 operations a weight and
    token forward, twice that backward (Kaplan et al. 2020, section 2.1). ``squares`` is the sum of l^2.
    With ``adapters`` (LoRA) the gradients of the weights, a third, are left out.
    """
    body = shape.body * tokens + shape.vocab_size * shape.d_model * targets
    return (4 if adapters else 6) * (body + shape.n_layers * shape.d_model * squares)


def mosaic(shape: Shape, raw_tokens: float, width: int) -> float:
    """``(6 N + 12 L d S)`` a token of rows of ``width`` = S tokens, padding and logits that carry no loss included.

    The convention of MosaicML's published throughput tables for MPT, whose attention is counted as if it were not causal.
    """
    return (6 * shape.parameters + 12 * shape.n_layers * shape.d_model * width) * raw_tokens
