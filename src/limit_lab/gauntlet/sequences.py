"""From prompt text to token sequences with a scored span, and from sequences to batches under a token budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from limit_lab.errors import EvalError
from limit_lab.gauntlet.prompts import Prompt
from limit_lab.prompt import Tokenizer

#: What padding may add to a sequence in a batch that is large enough without it.
PADDING = 0.05


@dataclass(frozen=True, slots=True)
class Scorable:
    """Token ids of which those from ``start`` on are scored, each from the tokens before it; 1 <= start < len(ids)."""

    ids: tuple[int, ...]
    start: int

    @property
    def context(self) -> tuple[int, ...]:
        return self.ids[: self.start]


def prefix_space(tokenizer: Tokenizer) -> bool:
    """Whether a blank belongs to the word that follows it (byte-level BPE: yes, SentencePiece: no)."""
    return len(tokenizer.encode(" a", add_special_tokens=False)) == 1


def scorables(tokenizer: Tokenizer, prompt: Prompt, max_seq_tokens: int) -> list[Scorable]:
    """One sequence per (context, continuation) pair. Too long a pair loses tokens at the left of its own context.

    Raises: EvalError when a pair has no continuation tokens, or no context token to predict them from.
    """
    sequences = []
    for context, continuation in zip(_contexts(tokenizer, prompt), prompt.continuations, strict=True):
        scored = tokenizer.encode(continuation, add_special_tokens=False)
        kept = _last(context, max_seq_tokens - len(scored))
        if not kept or not scored:
            raise EvalError(
                f"{continuation!r:.60} cannot be scored within gauntlet.max_seq_tokens={max_seq_tokens}: "
                f"{len(scored)} tokens to score after {len(kept)} tokens of context, and both need at least one."
            )
        sequences.append(Scorable(ids=(*kept, *scored), start=len(kept)))
    return sequences


def prompt_tokens(tokenizer: Tokenizer, prompt: Prompt, room: int) -> list[int]:
    """The last ``room`` tokens of a generation prompt. Raises: EvalError when nothing would be left of it."""
    kept = _last(_contexts(tokenizer, prompt)[0], room)
    if not kept:
        raise EvalError(f"a prompt keeps no token in the {room} that the longest answer leaves: raise gauntlet.max_seq_tokens.")
    return kept


def batches(lengths: Sequence[int], batch_tokens: int, *, columns: int = 0, enough: int | None = None) -> Iterator[list[int]]:
    """Indices in batches, longest first, whose padded size stays within ``batch_tokens`` unless one alone exceeds it.

    Each is padded to its longest, beside ``columns`` that are held already. A batch of ``enough`` padded tokens takes no
    sequence that would be padded by more than `PADDING` of itself; None: it takes all that has room.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    start = 0
    while start < len(order):
        longest = max(1, lengths[order[start]])
        end = start + max(1, batch_tokens // (columns + longest))
        if enough is not None:
            least = start + -(-enough // longest)
            while least < min(end, len(order)) and longest <= (1 + PADDING) * lengths[order[least]]:
                least += 1
            end = min(end, least)
        yield order[start:end]
        start = end


def _contexts(tokenizer: Tokenizer, prompt: Prompt) -> list[list[int]]:
    """Preamble ids followed by each context's ids; equal contexts are tokenised once.

    The preamble has the tokenizer's special tokens, but an eos that the tokenizer appends to a few-shot preamble is
    dropped. A template is left as `limit_lab.prompt` tokenises it for training.
    """
    preamble = tokenizer.encode(prompt.preamble, add_special_tokens=True)
    if not prompt.framed and len(preamble) > 1 and preamble[-1] == tokenizer.eos_token_id:
        preamble = preamble[:-1]
    ids = {text: tokenizer.encode(text, add_special_tokens=False) for text in set(prompt.contexts)}
    return [preamble + ids[text] for text in prompt.contexts]


def _last(ids: list[int], room: int) -> list[int]:
    return ids[max(0, len(ids) - room) :] if room > 0 else []
