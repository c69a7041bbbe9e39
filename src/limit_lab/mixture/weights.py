"""What documents count in the loss of a step, and what sources count in that of a whole mixture."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import pairwise

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


def loss_shares(documents: Sequence[Document], loss: Loss) -> dict[str, float]:
    """Share of the loss that falls to each source when ``documents`` are read in a random order once, as if in one step.

    By tokens and by documents the order makes no difference; what shares a device with what, of paper_microbatch, is drawn.
    """
    order = list(documents)
    random.Random("loss shares").shuffle(order)
    shares: dict[str, float] = {}
    if not documents:
        return shares
    for one, weight in zip(order, document_weights(order, loss), strict=True):
        shares[one.source] = shares.get(one.source, 0.0) + weight * one.targets
    return shares
