"""The export of what ranks trained: the first one writes it, asking the others for their pieces weight by weight."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, distributed

from limit_lab.finetune import adapters, pieces
from limit_lab.finetune.strategies import rank
from limit_lab.model.causal import CausalLM
from limit_lab.model.export import TOLERANCE, logits, probe
from limit_lab.model.export import export as export_whole

#: Logits computed in bfloat16 differ by so much of the largest one from those of the same weights computed in float32.
BF16_SHARE = 2**-5


class Gathered:
    """Float32 weights of which every rank may hold a piece; read by the first rank while the others `follow`."""

    def __init__(self, held: Mapping[str, Tensor]) -> None:
        self.held = held

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: pieces.whole_shape(value) for name, value in self.held.items()}

    def read(self, name: str) -> Tensor:
        _tell(name)
        return pieces.master(self.held[name])

    def follow(self) -> None:
        """Give the first rank what it reads, until it `close`s."""
        while (name := _told()) is not None:
            pieces.master(self.held[name])

    def close(self) -> None:
        _tell(None)


def export(
    model: CausalLM, base: Path, folder: Path, *, beside: Mapping[str, str], dtype: torch.dtype, shard_bytes: int
) -> None:
    """`model.export.export` of what this process trained, or of what it and its fellow ranks did: every rank calls this.

    Raises: ModelError and DataError on the first rank.
    """
    write = partial(export_whole, model, base, folder, beside=beside, dtype=dtype, shard_bytes=shard_bytes)
    first = rank() == 0
    if adapters.adapted(model):
        merged = adapters.Merged(model)
        if first:
            write(weights=merged, expected=logits(model, dtype, merged.whole))
        return
    held = model.weights()
    if not any(map(pieces.is_divided, held.values())):
        if first:
            write()
        return
    weights = Gathered(held)
    with torch.no_grad():
        expected = model(probe(model.vocab_size).to(model.device)).float().cpu()
    if not first:
        weights.follow()
        return
    rounds = next(model.parameters()).dtype == torch.bfloat16 or dtype == torch.bfloat16
    tolerance = BF16_SHARE * float(expected.abs().max()) if rounds else TOLERANCE
    write(weights=weights, expected=expected, tolerance=tolerance)
    weights.close()


def _tell(name: str | None) -> None:
    distributed.broadcast_object_list([name], src=0)


def _told() -> str | None:
    told: list[str | None] = [None]
    distributed.broadcast_object_list(told, src=0)
    return told[0]
