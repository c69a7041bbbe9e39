"""Which sequences begin alike, so that what they share is read once: families of a trunk with tails, and a prefix of all.

A sequence is fed without its last token, which predicts nothing that is scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile

from limit_lab.gauntlet.sequences import Scorable

#: Tokens that all families of a task must begin with for their keys and values to be kept for all.
PREFIX_TOKENS = 32

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Family:
    """Sequences that begin with ``trunk``: it is read once, then each member's own tail, which may be empty."""

    trunk: Ids
    members: tuple[Scorable, ...]

    def tail(self, member: Scorable) -> Ids:
        """The tokens of a member that are fed after the trunk."""
        return member.ids[len(self.trunk) : -1]

    @property
    def tokens(self) -> int:
        """Tokens fed, the trunk once."""
        return len(self.trunk) + sum(len(self.tail(member)) for member in self.members)


def families(questions: Sequence[Sequence[Scorable]], *, share: bool = True) -> list[Family]:
    """Every distinct sequence of ``questions`` in one family, with those of the question in which it occurs first.

    Sequences of a question are one family where they share half of the shortest, else those of equal context are. Without
    ``share`` each is its own.
    """
    seen: set[Scorable] = set()
    found: list[Family] = []
    for question in questions:
        new = [sequence for sequence in dict.fromkeys(question) if sequence not in seen]
        seen.update(new)
        found += _of_question(new, share=share)
    return found


def _of_question(sequences: Sequence[Scorable], *, share: bool) -> Iterator[Family]:
    if not sequences:
        return
    if not share:
        yield from (Family(sequence.ids[:-1], (sequence,)) for sequence in sequences)
        return
    trunk = _shared([sequence.ids[:-1] for sequence in sequences])
    if 2 * len(trunk) >= min(len(sequence.ids) - 1 for sequence in sequences):
        yield Family(trunk, tuple(sequences))
        return
    for _, same in groupby(sorted(sequences, key=lambda sequence: sequence.context), lambda sequence: sequence.context):
        own = tuple(same)
        yield Family(_shared([sequence.ids[:-1] for sequence in own]), own)


def prefix(found: Sequence[Family]) -> Ids:
    """The tokens that all trunks begin with and that are worth being read once; what is scored comes after them."""
    if len(found) < 2:
        return ()
    shared = _shared([family.trunk for family in found])
    scored = min(member.start for family in found for member in family.members)
    shared = shared[: min(scored, *(len(family.trunk) for family in found)) - 1]
    return shared if len(shared) >= PREFIX_TOKENS else ()


def fed_tokens(found: Sequence[Family]) -> int:
    """Tokens that a model reads to score all of a task's families, padding apart."""
    before = len(prefix(found))
    return before + sum(family.tokens - before for family in found)


def shared_prefix(prompts: Sequence[Ids]) -> Ids:
    """The tokens that all prompts begin with and that are worth being read once; leaves each a token of its own."""
    if len(prompts) < 2:
        return ()
    shared = _shared(prompts)[: min(map(len, prompts)) - 1]
    return shared if len(shared) >= PREFIX_TOKENS else ()


def _shared(sequences: Sequence[Ids]) -> Ids:
    """What all of ``sequences`` begin with."""
    low, high = min(sequences), max(sequences)  # all others lie between them
    return tuple(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], zip(low, high, strict=False)))
