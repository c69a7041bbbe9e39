"""The loss of a micro-batch: weighted cross-entropy at its targets, a bounded number of them projected at a time.

The weights make the loss of an optimizer step a plain sum over its targets, whichever micro-batches, rows or devices they
came in: the same run on other hardware has the same loss.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from limit_lab.model.causal import CausalLM


def target_loss(model: CausalLM, hidden: Tensor, targets: Tensor, weights: Tensor, *, at_once: int) -> Tensor:
    """Sum of weight times cross-entropy, float32 scalar, of hidden states [n, d_model] and their targets, int64 [n].

    Up to ``at_once`` targets are projected as autograd would; of more, the logits of ``at_once`` exist at a time, and the
    gradients are made where they are, in the forward pass.
    """
    if len(targets) <= at_once or model.projection() is None:
        losses = F.cross_entropy(model.logits(hidden).float(), targets, reduction="none")
        return (losses * weights).sum()

    def in_chunks(states: Tensor) -> Tensor:
        found: Tensor = _InChunks.apply(states, model.projection(), targets, weights, at_once)  # type: ignore[no-untyped-call]
        return found

    total: Tensor = model.head(hidden, in_chunks)
    return total


class _InChunks(torch.autograd.Function):
    """Loss and gradients of a projection [vocab_size, d_model], chunk by chunk."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, matrix: Tensor, targets: Tensor, weights: Tensor, at_once: int) -> Tensor:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        wants_hidden, wants_matrix = ctx.needs_input_grad[:2]
        total = torch.zeros((), device=hidden.device)
        states, rows = hidden.detach().to(dtype), matrix.detach().to(dtype)
        for_states = torch.empty_like(hidden) if wants_hidden else None
        for_rows = torch.zeros_like(matrix) if wants_matrix else None
        with torch.autocast(device, enabled=False):
            for start in range(0, len(targets), at_once):
                part = slice(start, start + at_once)
                logits = (states[part] @ rows.T).float()
                chosen, weight = targets[part, None], weights[part, None]
                norm = logits.logsumexp(-1, keepdim=True)
                total += ((norm - logits.gather(1, chosen)) * weight).sum()
                if not (wants_hidden or wants_matrix):
                    continue
                slope = logits.sub_(norm).exp_().mul_(weight).scatter_add_(1, chosen, -weight).to(dtype)
                if for_states is not None:
                    for_states[part] = (slope @ rows).to(hidden.dtype)
                if for_rows is not None and for_rows.dtype == dtype:
                    for_rows.addmm_(slope.T, states[part])
                elif for_rows is not None:
                    for_rows += slope.T @ states[part]
        ctx.save_for_backward(for_states, for_rows)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        for_states, for_rows = ctx.saved_tensors
        return (
            None if for_states is None else for_states * outer,
            None if for_rows is None else for_rows * outer,
            None,
            None,
            None,
        )
