"""How families of sequences are read: trunks together, then their tails on what the trunks left in the cache.

Everything is padded at the right to the longest of its batch, where causal attention cannot see it; what is continued is
moved to the right end of its row first, so that no padding stands between a trunk and its tail.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from limit_lab.errors import EvalError
from limit_lab.gauntlet.families import Family, Ids
from limit_lab.gauntlet.sequences import batches
from limit_lab.model.causal import CausalLM, KeyValues

T = TypeVar("T")
R = TypeVar("R")

#: Scored positions projected onto the vocabulary at a time: bounds memory at about 0.2 GiB for 50k words.
POSITIONS_AT_ONCE = 512

#: Tokens of tails that are worth a forward pass of their own.
FEW = 64

#: What an allocator says when a machine's own memory is out; a GPU's has an exception of its own.
NO_ROOM = "not enough memory"


class Score(NamedTuple):
    """Mean negative log-likelihood per scored token (nats, float32), and the arg-max token at each scored position."""

    nll: float
    predicted: tuple[int, ...]

    @classmethod
    def of(cls, kept: Sequence[Any]) -> Score:
        """From what JSON makes of one."""
        nll, predicted = kept
        return cls(nll=nll, predicted=tuple(predicted))


#: Losses and arg-max tokens at scored positions of one sequence, in order.
Scored = tuple[list[float], list[int]]


@dataclass(frozen=True, slots=True)
class Spot:
    """A scored position: the token that ``target`` follows stands at ``column`` of the batch row ``row``."""

    row: int
    column: int
    target: int
    owner: tuple[int, int]  # family and member


class Reader:
    """Reads token sequences with ``model``, about ``batch_tokens`` at a time; the last prefix is kept."""

    def __init__(self, model: CausalLM, *, batch_tokens: int) -> None:
        self.model = model
        self.batch_tokens = batch_tokens
        self._held: tuple[Ids, KeyValues] | None = None

    def scores(self, batch: Sequence[Family], *, prefix: Ids) -> list[list[Score]]:
        """The scores of the members of families that all begin with ``prefix``. Raises: EvalError for one that is no number."""
        ends = any(family.tail(member) for family in batch for member in family.members)
        cache = self.start(prefix, len(batch)) if ends or prefix else None
        hidden = self.model.hidden(self.padded([family.trunk[len(prefix) :] for family in batch]), cache=cache)
        parts = [self._scored(hidden, _in_trunks(batch, len(prefix)))]
        if cache is not None:
            parts += self._tails(batch, cache)
        return [
            [_mean([part[place, number] for part in parts if (place, number) in part]) for number in range(len(family.members))]
            for place, family in enumerate(batch)
        ]

    def start(self, prefix: Ids, rows: int) -> KeyValues:
        """A cache that holds ``prefix`` in each of ``rows`` rows."""
        if not prefix:
            return self.model.new_cache()
        if self._held is None or self._held[0] != prefix:
            self._held = (prefix, self.model.new_cache())
            self.model.hidden(self.padded([prefix]), cache=self._held[1])
        row = torch.zeros(rows, dtype=torch.long, device=self.model.device)
        return self._held[1].spread(row, row + len(prefix))

    def padded(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Token ids int64 [rows, longest] on the model's device, zeros at the right."""
        longest = max(map(len, rows))
        return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=self.model.device)

    def _tails(self, batch: Sequence[Family], trunks: KeyValues) -> list[dict[tuple[int, int], Scored]]:
        """What the tails' own tokens predict, some tails at a time."""
        ends = [
            (place, number)
            for place, family in enumerate(batch)
            for number, member in enumerate(family.members)
            if family.tail(member)
        ]
        sizes = [len(batch[place].tail(batch[place].members[number])) for place, number in ends]
        longest = max(len(family.trunk) for family in batch)
        some = batches(sizes, self.batch_tokens, columns=longest, enough=FEW)
        return [self._tails_at_once(batch, trunks, [ends[index] for index in own]) for own in some]

    def _tails_at_once(
        self, batch: Sequence[Family], trunks: KeyValues, ends: Sequence[tuple[int, int]]
    ) -> dict[tuple[int, int], Scored]:
        device = self.model.device
        families = [batch[place] for place, _ in ends]
        members = [batch[place].members[number] for place, number in ends]
        lengths = torch.tensor([len(family.trunk) for family in families], device=device)
        cache = trunks.spread(torch.tensor([place for place, _ in ends], device=device), lengths)
        pads = lengths.max() - lengths
        tails = [family.tail(member) for family, member in zip(families, members, strict=True)]
        hidden = self.model.hidden(self.padded(tails), left_pad=pads if bool(pads.any()) else None, cache=cache)
        spots = [
            Spot(row, at - len(family.trunk), member.ids[at + 1], owner)
            for row, (family, member, owner) in enumerate(zip(families, members, ends, strict=True))
            for at in range(max(member.start - 1, len(family.trunk)), len(member.ids) - 1)
        ]
        return self._scored(hidden, spots)

    def _scored(self, hidden: Tensor, spots: Sequence[Spot]) -> dict[tuple[int, int], Scored]:
        """Losses and arg-max tokens at the spots of ``hidden`` [rows, columns, d_model], by owner; each is projected once."""
        places = {place: index for index, place in enumerate(dict.fromkeys((spot.row, spot.column) for spot in spots))}
        if not places:
            return {}
        row, column = torch.tensor(list(places), device=hidden.device).unbind(1)
        states = hidden[row, column]
        found: dict[tuple[int, int], Scored] = {}
        for begin in range(0, len(places), POSITIONS_AT_ONCE):
            logits = self.model.logits(states[begin : begin + POSITIONS_AT_ONCE])
            own = [spot for spot in spots if begin <= places[spot.row, spot.column] < begin + len(logits)]
            at = torch.tensor([places[spot.row, spot.column] - begin for spot in own], device=hidden.device)
            losses = token_losses(logits, torch.tensor([spot.target for spot in own], device=hidden.device), at)
            for spot, loss, best in zip(own, losses.tolist(), logits.argmax(-1)[at].tolist(), strict=True):
                held = found.setdefault(spot.owner, ([], []))
                held[0].append(loss)
                held[1].append(best)
        return found


def _in_trunks(batch: Sequence[Family], skipped: int) -> list[Spot]:
    """The last token of each context, and those after it that choices share, as far as they lie in the trunks."""
    return [
        Spot(place, at - skipped, member.ids[at + 1], (place, number))
        for place, family in enumerate(batch)
        for number, member in enumerate(family.members)
        for at in range(member.start - 1, min(len(family.trunk), len(member.ids) - 1))
    ]


def token_losses(logits: Tensor, targets: Tensor, at: Tensor | None = None) -> Tensor:
    """Negative log-likelihood of ``targets`` int64 [n] under the rows ``at`` (int64 [n], None: 0 to n - 1) of ``logits``.

    ``logits`` [m, vocab_size]; float32 [n].
    """
    at = torch.arange(len(targets), device=targets.device) if at is None else at
    return -F.log_softmax(logits.float(), -1)[at, targets]


def _mean(parts: Sequence[Scored]) -> Score:
    losses, predicted = ([value for part in parts for value in part[kind]] for kind in (0, 1))
    nll = float(torch.tensor(losses, dtype=torch.float32).mean())
    if math.isnan(nll):
        raise EvalError("the model gives losses that are not numbers (NaN), so it has no score: check its weights.")
    return Score(nll=nll, predicted=tuple(map(int, predicted)))


def within_memory(work: Callable[[Sequence[T]], list[R]], batch: Sequence[T]) -> list[R]:
    """The results of ``work``, done in two halves where the device has no room for the whole, and so on.

    Raises: EvalError when it has no room for a single one.
    """
    try:
        return work(batch)
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if not isinstance(error, torch.OutOfMemoryError) and NO_ROOM not in str(error):
            raise
        if len(batch) == 1:
            raise EvalError(
                "the device has no room for a single question: lower gauntlet.max_seq_tokens, or use a larger device."
            ) from error
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    half = len(batch) // 2
    return [*within_memory(work, batch[:half]), *within_memory(work, batch[half:])]
