"""The loss of a micro-batch: weighted cross-entropy at its targets, a bounded number of them projected at a time.

The weights make the loss of an optimizer step a plain sum over its targets, whichever micro-batches, rows or devices they
came in: the same run on other hardware has the same loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from limit_lab.model.causal import CausalLM
from limit_lab.prompt import Document
from limit_lab.recipe import Loss


def document_weights(documents: Sequence[Document], loss: Loss) -> list[float]:
    """What each target of a document counts in its step; over all targets of the step the weights sum to 1.

    token: every target alike, so a source counts by its response tokens. document: every document alike, whatever its length.
    paper_microbatch: the mean over the targets of ``loss.microbatch`` documents that were on one of ``loss.devices`` at once,
    weighted by their number, as Composer's trainer does: between the two.
    """
    targets = [one.targets for one in documents]
    if loss.weight == "document":
        return [1 / (len(targets) * own) for own in targets]
    weights = []
    for group in [targets] if loss.weight == "token" else _groups(targets, loss):
        weights += [len(group) / len(targets) / sum(group)] * len(group)
    return weights


def _groups(targets: Sequence[int], loss: Loss) -> Iterator[Sequence[int]]:
    """Micro-batches of a step that is spread over devices as evenly as its documents allow."""
    ends = [len(targets) * device // loss.devices for device in range(loss.devices + 1)]
    for start, end in pairwise(ends):
        for first in range(start, end, loss.microbatch):
            yield targets[first : min(first + loss.microbatch, end)]


def target_loss(model: CausalLM, hidden: Tensor, targets: Tensor, weights: Tensor, *, at_once: int) -> Tensor:
    """Sum of weight times cross-entropy, float32 scalar, of hidden states [n, d_model] and their targets, int64 [n].

    Up to ``at_once`` targets are projected as autograd would; of more, the logits of ``at_once`` exist at a time, and the
    gradients are made where they are, in the forward pass.
    """
    matrix = model.projection()
    if len(targets) <= at_once or matrix is None:
        losses = F.cross_entropy(model.logits(hidden).float(), targets, reduction="none")
        return (losses * weights).sum()
    total: Tensor = _InChunks.apply(hidden, matrix, targets, weights, at_once)  # type: ignore[no-untyped-call]
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
