"""The likelihood engine: how probable is each continuation, and is it what the model would have written itself?

The work is proportional to distinct tokens (`families`), and only scored positions reach the vocabulary projection
(`reading`). Unlike llm-foundry, an eos token inside a text is not masked; no gauntlet row holds one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from limit_lab.config import Gauntlet, Task
from limit_lab.fingerprints import fingerprint
from limit_lab.gauntlet.families import Alike, alike, families, planned
from limit_lab.gauntlet.reading import Reader, Score, within_memory
from limit_lab.gauntlet.results import Results, each
from limit_lab.gauntlet.sequences import Scorable
from limit_lab.gauntlet.tasks import Row
from limit_lab.model.causal import CausalLM
from limit_lab.model.team import ALONE, Team
from limit_lab.prompt import Tokenizer

#: Tokens that keep a machine busy in one forward pass.
ENOUGH = 512


@torch.inference_mode()
def score(
    model: CausalLM,
    questions: Sequence[Sequence[Scorable]],
    *,
    batch_tokens: int,
    progress: Callable[[int, int], None] | None = None,
    team: Team = ALONE,
    results: Results | None = None,
) -> list[list[Score]]:
    """Score the sequences of every question. What they share is read once; so are equal sequences, and equal choices tie.

    ``progress`` gets the families of sequences done and to do; ``results`` keeps those of each on the way.
    Raises: EvalError when the model gives a loss that is not a number, which would otherwise count as the first choice, and
    when the device has no room for a single family.
    """
    found = families(questions, share=model.shares)
    groups = alike(found) if model.shares else [Alike((), tuple(range(len(found))))]
    prefixes = {place: group.prefix for group in groups for place in group.places}
    reader = Reader(model, batch_tokens=batch_tokens)
    wanted = planned(groups, [len(family.trunk) for family in found], batch_tokens, enough=ENOUGH)

    def work(batch: Sequence[int]) -> list[list[Score]]:
        own = partial(reader.scores, prefix=prefixes[batch[0]])
        return within_memory(own, [found[index] for index in batch])

    read = each(team, wanted, work, lambda kept: [Score.of(one) for one in kept], progress, results)
    by_sequence = {
        member: scored for index, own in read.items() for member, scored in zip(found[index].members, own, strict=True)
    }
    return [[by_sequence[sequence] for sequence in question] for question in questions]


def pick(nll: Sequence[float]) -> int:
    """The choice of lowest perplexity; exp in float32 may tie or overflow, and the first of equals is taken."""
    perplexities = torch.tensor(nll, dtype=torch.float32).exp().tolist()
    return perplexities.index(min(perplexities))


def outcomes(
    model: CausalLM,
    tokenizer: Tokenizer,
    task: Task,
    rows: Sequence[Row],
    items: Sequence[Sequence[Scorable]],
    suite: Gauntlet,
    progress: Callable[[int, int], None] | None = None,
    team: Team = ALONE,
    results: Results | None = None,
) -> list[dict[str, Any]]:
    """What the model made of each row of a language-modelling, multiple-choice or schema task, asked as ``items``."""
    scores = score(model, items, batch_tokens=suite.batch_tokens, progress=progress, team=team, results=results)
    found = []
    for row, item, own in zip(rows, items, scores, strict=True):
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
