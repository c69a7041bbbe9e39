"""The likelihood engine: how probable is each continuation, and is it what the model would have written itself?

Only scored positions reach the vocabulary projection. Batches are padded on the right to their own longest sequence, which
causal attention cannot see. Unlike llm-foundry, an eos token inside a text is not masked; no gauntlet row holds one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from limit_lab.config import Gauntlet, Task
from limit_lab.errors import EvalError
from limit_lab.fingerprints import fingerprint
from limit_lab.gauntlet.prompts import Prompt
from limit_lab.gauntlet.sequences import Scorable, batches, scorables
from limit_lab.gauntlet.tasks import Row
from limit_lab.model.causal import CausalLM
from limit_lab.model.team import ALONE, Team
from limit_lab.prompt import Tokenizer

#: Scored positions projected onto the vocabulary at a time: bounds memory at about 0.1 GiB for 50k words.
POSITIONS_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class Score:
    """Mean negative log-likelihood per scored token (nats, float32), and the arg-max token at each scored position."""

    nll: float
    predicted: tuple[int, ...]


@torch.inference_mode()
def score(
    model: CausalLM,
    sequences: Sequence[Scorable],
    *,
    batch_tokens: int,
    progress: Callable[[int, int], None] | None = None,
    team: Team = ALONE,
) -> list[Score]:
    """Score every sequence; equal sequences are scored once, so equal choices tie exactly.

    Raises: EvalError when the model gives a loss that is not a number, which would otherwise count as the first choice.
    """
    unique = list(dict.fromkeys(sequences))
    wanted = list(batches([len(sequence.ids) for sequence in unique], batch_tokens))
    found = team.each(wanted, lambda batch: _score_batch(model, [unique[index] for index in batch]), progress)
    scores = {unique[index]: scored for index, scored in found.items()}
    return [scores[sequence] for sequence in sequences]


def pick(nll: Sequence[float]) -> int:
    """The choice of lowest perplexity; exp in float32 may tie or overflow, and the first of equals is taken."""
    perplexities = torch.tensor(nll, dtype=torch.float32).exp().tolist()
    return perplexities.index(min(perplexities))


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of ``targets`` int64 [n] under ``logits`` [n, vocab_size], float32 [n]."""
    return F.cross_entropy(logits.float(), targets, reduction="none")


def outcomes(
    model: CausalLM,
    tokenizer: Tokenizer,
    task: Task,
    rows: Sequence[Row],
    prompts: Sequence[Prompt],
    suite: Gauntlet,
    progress: Callable[[int, int], None] | None = None,
    team: Team = ALONE,
) -> list[dict[str, Any]]:
    """What the model made of each row of a language-modelling, multiple-choice or schema task."""
    items = [scorables(tokenizer, prompt, suite.max_seq_tokens) for prompt in prompts]
    flat = [sequence for item in items for sequence in item]
    scores = iter(score(model, flat, batch_tokens=suite.batch_tokens, progress=progress, team=team))
    found = []
    for row, item in zip(rows, items, strict=True):
        own = [next(scores) for _ in item]
        outcome = _completion(tokenizer, item[0], own[0]) if task.type == "language_modeling" else _choice(row, own)
        found.append(outcome | {"prompt_sha": fingerprint([sequence.context for sequence in item])})
    return found


def _completion(tokenizer: Tokenizer, sequence: Scorable, scored: Score) -> dict[str, Any]:
    """Right if every token of the continuation is the arg-max over the whole vocabulary."""
    target = sequence.ids[sequence.start :]
    return {
        "correct": int(scored.predicted == target),
        "prediction": tokenizer.decode(list(scored.predicted), skip_special_tokens=False),
        "gold": tokenizer.decode(list(target), skip_special_tokens=False),
        "nll": scored.nll,
    }


def _choice(row: Row, scores: Sequence[Score]) -> dict[str, Any]:
    nll = [scored.nll for scored in scores]
    prediction = pick(nll)
    return {"correct": int(prediction == row["gold"]), "prediction": prediction, "gold": row["gold"], "nll": nll}


def _score_batch(model: CausalLM, batch: Sequence[Scorable]) -> list[Score]:
    """One forward pass. The last token of a sequence predicts nothing that is scored, so it is not fed."""
    longest = max(len(sequence.ids) for sequence in batch) - 1
    device = model.device
    ids = torch.tensor([[*sequence.ids[:-1], *[0] * (longest + 1 - len(sequence.ids))] for sequence in batch])
    where = [(row, at) for row, sequence in enumerate(batch) for at in range(sequence.start - 1, len(sequence.ids) - 1)]
    row_index, position = torch.tensor(where, device=device).unbind(1)
    targets = torch.tensor([token for sequence in batch for token in sequence.ids[sequence.start :]], device=device)
    hidden = model.hidden(ids.to(device))[row_index, position]
    losses, predicted = _project(model, hidden, targets)
    sizes = [len(sequence.ids) - sequence.start for sequence in batch]
    means = torch.stack([part.mean() for part in torch.split(losses, sizes)])
    if means.isnan().any():
        raise EvalError("the model gives losses that are not numbers (NaN), so it has no score: check its weights.")
    return [
        Score(nll=nll, predicted=tuple(part.tolist()))
        for nll, part in zip(means.tolist(), torch.split(predicted, sizes), strict=True)
    ]


def _project(model: CausalLM, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Losses float32 [n] and arg-max tokens int64 [n] at hidden states [n, d_model], a bounded number at a time."""
    losses, predicted = [], []
    for states, wanted in zip(torch.split(hidden, POSITIONS_AT_ONCE), torch.split(targets, POSITIONS_AT_ONCE), strict=True):
        logits = model.logits(states)
        losses.append(token_losses(logits, wanted))
        predicted.append(logits.argmax(-1))
    return torch.cat(losses), torch.cat(predicted)
