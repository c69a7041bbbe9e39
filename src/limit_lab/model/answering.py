"""Answering: from prompt token ids to sampled or greedy continuations, batched by length with a key-value cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from limit_lab.model.causal import CausalLM
from limit_lab.model.team import ALONE, Team


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How the next token is chosen; temperature 0 is greedy, top_k 0 and top_p 1 cut nothing."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0


@torch.no_grad()  # not inference_mode: a model that is asked while it trains may keep tensors for later
def answer(
    model: CausalLM,
    prompts: Sequence[Sequence[int]],
    eos: int,
    decoding: Decoding,
    *,
    batch: int,
    progress: Callable[[int, int], None] | None = None,
    team: Team = ALONE,
) -> list[list[int]]:
    """Continuations of each prompt's ids, in order; an answer that ended carries its eos as last id.

    Every prompt has a random stream of its own, so its answer depends on the seed and its index, not on the batching.
    ``progress`` gets the answers written and asked for, of ``team`` those of this process.
    """
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    batches = [order[start : start + batch] for start in range(0, len(order), batch)]
    out = team.each(batches, lambda chosen: _continue(model, prompts, chosen, eos, decoding), progress)
    return [out[index] for index in range(len(prompts))]


def _continue(
    model: CausalLM, prompts: Sequence[Sequence[int]], chosen: Sequence[int], eos: int, decoding: Decoding
) -> list[list[int]]:
    width = max(len(prompts[index]) for index in chosen)
    pads = [width - len(prompts[index]) for index in chosen]
    device = model.device
    ids = torch.tensor([[eos] * pad + list(prompts[index]) for index, pad in zip(chosen, pads, strict=True)], device=device)
    left_pad = torch.tensor(pads, device=device)
    # random streams of the CPU, so that an answer does not depend on the device's generator
    streams = [torch.Generator().manual_seed(decoding.seed * 1_000_003 + index) for index in chosen]
    rows = list(range(len(chosen)))  # which answer each live batch row belongs to
    out: list[list[int]] = [[] for _ in chosen]
    cache = model.new_cache()
    for _ in range(decoding.max_new_tokens):
        scores = (
            model.logits(model.hidden(ids, left_pad=left_pad, cache=cache)[:, -1]).float().cpu()
        )  # the random streams are the CPU's
        taken = [_choose(scores[place], decoding, streams[row]) for place, row in enumerate(rows)]
        for row, token in zip(rows, taken, strict=True):
            out[row].append(token)
        alive = [place for place, token in enumerate(taken) if token != eos]
        if not alive:
            break
        rows = [rows[place] for place in alive]
        keep = torch.tensor(alive, device=device)
        cache.select(keep)
        left_pad = left_pad[keep]
        ids = torch.tensor([[taken[place]] for place in alive], device=device)
    return out


def _choose(scores: Tensor, decoding: Decoding, stream: torch.Generator) -> int:
    """One token id from vocabulary scores, float32 [vocab_size]."""
    if decoding.temperature == 0:
        return int(scores.argmax())
    scores = scores / decoding.temperature
    if decoding.top_k:
        scores = scores.masked_fill(scores < scores.topk(min(decoding.top_k, len(scores))).values[-1], -torch.inf)
    ordered, places = scores.softmax(-1).sort(descending=True)
    ordered = ordered.masked_fill(ordered.cumsum(0) - ordered >= decoding.top_p, 0.0)
    return int(places[torch.multinomial(ordered, 1, generator=stream)])
