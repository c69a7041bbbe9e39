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
#: And those computed with an adapter beside a weight from those with it added, in float32.
FLOAT32_SHARE = 2**-14


class Gathered:
    """Weights of which every rank may hold a piece; read by the first rank while the others `follow`."""

    def __init__(self, held: adapters.Merged) -> None:
        self.held = held

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self.held.shapes()

    def read(self, name: str) -> Tensor:
        _tell(name)
        return self.held.read(name)

    def follow(self) -> None:
        """Give the first rank what it reads, until it `close`s."""
        while (name := _told()) is not None:
            self.held.read(name)

    def close(self) -> None:
        _tell(None)


@torch.no_grad()
def export(
    model: CausalLM, base: Path, folder: Path, *, beside: Mapping[str, str], dtype: torch.dtype, shard_bytes: int
) -> None:
    """`model.export.export` of what this process trained, or of what it and its fellow ranks did: every rank calls this.

    Takes the adapters out of ``model``. Raises: ModelError and DataError on the first rank.
    """
    write = partial(export_whole, model, base, folder, beside=beside, dtype=dtype, shard_bytes=shard_bytes)
    parameters = list(model.parameters())
    if not any(map(pieces.is_divided, parameters)):
        if rank() == 0:
            merged = adapters.Merged(model)
            write(weights=merged, expected=logits(model, dtype, merged.whole))
        return
    expected = model(probe(model.vocab_size).to(model.device)).float().cpu()
    weights = Gathered(adapters.Merged(model))
    if rank() > 0:
        weights.follow()
        return
    rounds, largest = torch.bfloat16 in (dtype, parameters[0].dtype), float(expected.abs().max())
    plainly = FLOAT32_SHARE * largest if weights.held.adapters else TOLERANCE
    write(weights=weights, expected=expected, tolerance=BF16_SHARE * largest if rounds else plainly)
    weights.close()


def _tell(name: str | None) -> None:
    distributed.broadcast_object_list([name], src=0)


def _told() -> str | None:
    told: list[str | None] = [None]
    distributed.broadcast_object_list(told, src=0)
    return told[0]
