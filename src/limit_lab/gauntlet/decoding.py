"""Greedy continuations of many prompts with a key-value cache: finished rows make room for the next prompts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from limit_lab.gauntlet.families import Alike, Ids, beginnings, planned
from limit_lab.gauntlet.reading import Reader, within_memory
from limit_lab.gauntlet.results import Results, each
from limit_lab.model.causal import CausalLM, KeyValues
from limit_lab.model.team import ALONE, Team

#: Batches whose prompts queue for the same rows, and the share of these that must be free before more are read.
QUEUED, FREE_SHARE = 8, 0.25

Enough = Callable[[Sequence[int]], bool]


@dataclass(frozen=True, slots=True)
class Decoder:
    """Continues prompts up to and including ``eos``, until ``enough`` is written, by at most ``max_new_tokens``."""

    model: CausalLM
    max_new_tokens: int
    eos: int
    enough: Enough | None

    def ends(self, written: Sequence[int]) -> bool:
        """Whether an answer is over."""
        over = written[-1] == self.eos or len(written) == self.max_new_tokens
        return over or (self.enough is not None and self.enough(written))


@torch.inference_mode()
def greedy(
    model: CausalLM,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    eos: int,
    batch_tokens: int,
    enough: Enough | None = None,
    progress: Callable[[int, int], None] | None = None,
    team: Team = ALONE,
    results: Results | None = None,
) -> list[list[int]]:
    """The most probable next tokens of each prompt.

    Prompts and answers of one batch have room in ``batch_tokens``. Raises: EvalError when a device has no room for one prompt.
    """
    ids = [tuple(prompt) for prompt in prompts]
    decoder = Decoder(model, max_new_tokens, eos, enough)
    reader = Reader(model, batch_tokens=batch_tokens)
    every = tuple(range(len(ids)))
    groups = beginnings(ids, [len(prompt) - 1 for prompt in ids]) if model.shares else [Alike((), every)]
    prefixes = {place: group.prefix for group in groups for place in group.places}
    wanted = planned(groups, [len(one) + max_new_tokens for one in ids], batch_tokens, several=QUEUED if model.shares else 1)

    def work(own: Sequence[int]) -> list[list[int]]:
        queued = partial(_queued, decoder, reader, prefixes[own[0]])
        return within_memory(queued if model.shares else partial(_together, decoder), [ids[index] for index in own])

    written = each(team, wanted, work, lambda kept: [int(token) for token in kept], progress, results)
    return [written[index] for index in range(len(ids))]


def _queued(decoder: Decoder, reader: Reader, prefix: Ids, prompts: Sequence[Ids]) -> list[list[int]]:
    return Queue(decoder, reader, prefix, prompts).run()


class Queue:
    """Prompts, the longest first, of which as many are continued at a time as have room in the reader's batches."""

    def __init__(self, decoder: Decoder, reader: Reader, prefix: Ids, prompts: Sequence[Ids]) -> None:
        self.decoder, self.reader, self.prefix, self.prompts = decoder, reader, prefix, prompts
        self.rows = max(1, reader.batch_tokens // (len(prompts[0]) + decoder.max_new_tokens))
        self.waiting = deque(range(len(prompts)))
        self.written: list[list[int]] = [[] for _ in prompts]
        self.live: list[int] = []
        self.cache: KeyValues | None = None

    def run(self) -> list[list[int]]:
        """What is written after each prompt."""
        while self.waiting or self.live:
            free = self.rows - len(self.live)
            if self.waiting and (not self.live or free >= max(1, FREE_SHARE * self.rows)):
                self._admit([self.waiting.popleft() for _ in range(min(free, len(self.waiting)))])
            else:
                self._step()
            self._let_go()
        return self.written

    def lengths(self) -> Tensor:
        """Tokens of each live row that are in the cache, int64 [live]: all but the last one written."""
        held = [len(self.prompts[row]) + len(self.written[row]) - 1 for row in self.live]
        return torch.tensor(held, device=self.decoder.model.device)

    def _admit(self, new: list[int]) -> None:
        model, skipped = self.decoder.model, len(self.prefix)
        cache = self.reader.start(self.prefix, len(new))
        hidden = model.hidden(self.reader.padded([self.prompts[row][skipped:] for row in new]), cache=cache)
        ends = torch.tensor([len(self.prompts[row]) - skipped - 1 for row in new], device=hidden.device)
        self._take(new, hidden[torch.arange(len(new), device=hidden.device), ends])
        cache = cache.spread(torch.arange(len(new), device=hidden.device), ends + 1 + skipped)
        self.cache = cache if self.cache is None else self.cache.joined(cache)
        self.live += new

    def _step(self) -> None:
        assert self.cache is not None
        pads = self.cache.tokens - self.lengths()
        ids = torch.tensor([[self.written[row][-1]] for row in self.live], device=self.decoder.model.device)
        hidden = self.decoder.model.hidden(ids, left_pad=pads if bool(pads.any()) else None, cache=self.cache)
        self._take(self.live, hidden[:, -1])

    def _take(self, rows: Sequence[int], states: Tensor) -> None:
        for row, token in zip(rows, self.decoder.model.logits(states).argmax(-1).tolist(), strict=True):
            self.written[row].append(token)

    def _let_go(self) -> None:
        """Take finished rows out of the cache, and the columns that only they needed."""
        kept = [place for place, row in enumerate(self.live) if not self.decoder.ends(self.written[row])]
        if len(kept) == len(self.live):
            return
        self.live = [self.live[place] for place in kept]
        if self.live and self.cache is not None:
            self.cache.select(torch.tensor(kept, device=self.decoder.model.device), last=int(self.lengths().max()))
        else:
            self.cache = None


def _together(decoder: Decoder, prompts: Sequence[Ids]) -> list[list[int]]:
    """One left-padded batch for a model that does not share what it has read; a row leaves it when its answer is over."""
    device = decoder.model.device
    longest = max(map(len, prompts))
    left_pad = torch.tensor([longest - len(prompt) for prompt in prompts], device=device)
    ids = torch.tensor([[*[0] * (longest - len(prompt)), *prompt] for prompt in prompts], device=device)
    cache = decoder.model.new_cache()
    written: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts)))
    while rows:
        tokens = decoder.model.logits(decoder.model.hidden(ids, left_pad=left_pad, cache=cache)[:, -1]).argmax(-1)
        for row, token in zip(rows, tokens.tolist(), strict=True):
            written[row].append(token)
        kept = [place for place, row in enumerate(rows) if not decoder.ends(written[row])]
        if len(kept) < len(rows):
            keep = torch.tensor(kept, dtype=torch.long, device=device)
            cache.select(keep)
            tokens, left_pad, rows = tokens[keep], left_pad[keep], [rows[place] for place in kept]
        ids = tokens[:, None]
    return written
