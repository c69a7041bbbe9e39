"""Tasks answered in free text: greedy decoding with a key-value cache, and the prefix match that decides."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from typing import Any

import torch

from limit_lab.config import Gauntlet, Task
from limit_lab.fingerprints import fingerprint
from limit_lab.gauntlet.prompts import Prompt, answer_text
from limit_lab.gauntlet.sequences import batches, prompt_tokens
from limit_lab.gauntlet.tasks import Row
from limit_lab.model.causal import CausalLM
from limit_lab.model.team import ALONE, Team
from limit_lab.prompt import Tokenizer

#: Room beyond the longest answer when a chain of thought is expected (llm-foundry's constant).
THOUGHT_ROOM_TOKENS = 10
PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation + "‘’´`", " "))


def answers(row: Row) -> list[str]:
    """The accepted answers of a row, sorted and without repeats."""
    return sorted({row["answer"], *row.get("aliases", [])})


def answer_room(tokenizer: Tokenizer, task: Task, unstripped: Sequence[Row]) -> int:
    """Tokens that may be generated: those of the longest answer in the rows, special tokens and thought included."""
    texts = {answer_text(task, row, answer) for row in unstripped for answer in answers(row)}
    longest = max(len(tokenizer.encode(text, add_special_tokens=True)) for text in texts)
    return longest + (THOUGHT_ROOM_TOKENS if task.cot_delimiter else 0)


def normalise(text: str) -> str:
    """Lower case, punctuation and English articles as blanks, and single blanks only."""
    text = text.replace("_", " ").lower().translate(PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def clean(task: Task, text: str) -> str:
    """The part of a generated text that is compared: before the first stop string, after the last thought delimiter.

    The stop strings are joined into an unescaped regular expression, as in the original.
    """
    if task.stop:
        text = re.split("|".join(task.stop), text)[0]
    if task.cot_delimiter:
        text = text.split(task.cot_delimiter)[-1]
    return _comparable(task, text)


def labels(task: Task, row: Row) -> list[str]:
    """The accepted answers in the form in which they are compared."""
    return sorted({_comparable(task, answer) for answer in answers(row)})


def outcomes(
    model: CausalLM,
    tokenizer: Tokenizer,
    task: Task,
    rows: Sequence[Row],
    unstripped: Sequence[Row],
    prompts: Sequence[Prompt],
    suite: Gauntlet,
    progress: Callable[[int, int], None] | None = None,
    team: Team = ALONE,
) -> list[dict[str, Any]]:
    """What the model wrote for each row; right if it begins with any accepted answer (so 50 begins with 5)."""
    room = answer_room(tokenizer, task, unstripped)
    ids = [prompt_tokens(tokenizer, prompt, max(suite.max_seq_tokens, room) - room) for prompt in prompts]
    written = greedy(
        model,
        ids,
        max_new_tokens=room,
        eos=tokenizer.eos_token_id,
        batch_tokens=suite.batch_tokens,
        progress=progress,
        team=team,
    )
    found = []
    for row, prompt, tokens in zip(rows, ids, written, strict=True):
        text = clean(task, tokenizer.decode(tokens, skip_special_tokens=True))
        gold = labels(task, row)
        correct = int(any(text.startswith(label) for label in gold))
        found.append({"correct": correct, "prediction": text, "gold": gold, "nll": None, "prompt_sha": fingerprint([prompt])})
    return found


@torch.inference_mode()
def greedy(
    model: CausalLM,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    eos: int,
    batch_tokens: int,
    progress: Callable[[int, int], None] | None = None,
    team: Team = ALONE,
) -> list[list[int]]:
    """The most probable next tokens of each prompt, up to and including ``eos``, at most ``max_new_tokens``."""
    wanted = list(batches([len(prompt) + max_new_tokens for prompt in prompts], batch_tokens))
    written = team.each(
        wanted, lambda batch: _continue(model, [prompts[index] for index in batch], max_new_tokens, eos), progress
    )
    return [written[index] for index in range(len(prompts))]


def _continue(model: CausalLM, prompts: Sequence[Sequence[int]], max_new_tokens: int, eos: int) -> list[list[int]]:
    """Continue one left-padded batch; a row leaves it at its own eos."""
    device = model.device
    longest = max(len(prompt) for prompt in prompts)
    left_pad = torch.tensor([longest - len(prompt) for prompt in prompts], device=device)
    ids = torch.tensor([[*[0] * (longest - len(prompt)), *prompt] for prompt in prompts], device=device)
    cache = model.new_cache()
    written: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts)))
    for _ in range(max_new_tokens):
        hidden = model.hidden(ids, left_pad=left_pad, cache=cache)[:, -1]
        tokens = model.logits(hidden).argmax(-1)
        values = tokens.tolist()
        for row, value in zip(rows, values, strict=True):
            written[row].append(value)
        alive = [place for place, value in enumerate(values) if value != eos]
        if not alive:
            break
        if len(alive) < len(rows):
            keep = torch.tensor(alive, device=device)
            cache.select(keep)
            tokens, left_pad, rows = tokens[keep], left_pad[keep], [rows[place] for place in alive]
        ids = tokens[:, None]
    return written


def _comparable(task: Task, text: str) -> str:
    return normalise(text) if task.normalise else text.strip()
