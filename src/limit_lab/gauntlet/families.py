"""Which sequences begin alike, so that what they share is read once: families of a trunk with tails, and a prefix of all.

A sequence is fed without its last token, which predicts nothing that is scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile

from limit_lab.gauntlet.sequences import Scorable, batches

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


@dataclass(frozen=True, slots=True)
class Alike:
    """Places of token sequences that begin with ``prefix``, which is read once for all; it may be empty."""

    prefix: Ids
    places: tuple[int, ...]


def alike(found: Sequence[Family]) -> list[Alike]:
    """The families whose trunks share a beginning that is worth being read once; what is scored comes after it."""
    room = [min(len(family.trunk), *(member.start for member in family.members)) - 1 for family in found]
    return beginnings([family.trunk for family in found], room)


def beginnings(sequences: Sequence[Ids], room: Sequence[int]) -> list[Alike]:
    """Sequences that share half of themselves, and all others; a prefix takes at most ``room`` tokens of each of its own."""
    order = sorted(range(len(sequences)), key=lambda place: sequences[place])
    runs: list[list[int]] = []
    shared: Ids = ()
    for place in order:
        further = _shared([shared, sequences[place][: room[place]]])
        if runs and len(further) >= PREFIX_TOKENS and 2 * len(further) >= len(sequences[place]):
            runs[-1].append(place)
            shared = further
        else:
            runs.append([place])
            shared = sequences[place][: room[place]]
    others = [place for run in runs for place in run if len(run) == 1]
    return [_alike(sequences, room, run) for run in [*(run for run in runs if len(run) > 1), others] if run]


def _alike(sequences: Sequence[Ids], room: Sequence[int], places: Sequence[int]) -> Alike:
    shared = _shared([sequences[place][: room[place]] for place in places]) if len(places) > 1 else ()
    return Alike(shared if len(shared) >= PREFIX_TOKENS else (), tuple(sorted(places)))


def planned(
    groups: Sequence[Alike], lengths: Sequence[int], batch_tokens: int, *, several: int = 1, enough: int | None = None
) -> list[list[int]]:
    """Places in `batches` of one group each, longest first, with ``several`` times what has room in ``batch_tokens``."""
    found = []
    for group in groups:
        own = list(batches([lengths[place] for place in group.places], batch_tokens, enough=enough))
        for start in range(0, len(own), several):
            found.append([group.places[index] for batch in own[start : start + several] for index in batch])
    return found


def fed_tokens(found: Sequence[Family]) -> int:
    """Tokens that a model reads to score all of a task's families, padding apart."""
    return sum(
        len(group.prefix) + sum(found[place].tokens - len(group.prefix) for place in group.places) for group in alike(found)
    )


def _shared(sequences: Sequence[Ids]) -> Ids:
    """What all of ``sequences`` begin with."""
    low, high = min(sequences), max(sequences)  # all others lie between them
    return tuple(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], zip(low, high, strict=False)))
