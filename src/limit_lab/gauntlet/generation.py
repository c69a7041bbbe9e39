"""Tasks answered in free text: greedy decoding with a key-value cache, and the prefix match that decides."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from typing import Any

from limit_lab.config import Gauntlet, Task
from limit_lab.fingerprints import fingerprint
from limit_lab.gauntlet.decoding import greedy
from limit_lab.gauntlet.prompts import Prompt, answer_text
from limit_lab.gauntlet.results import Results
from limit_lab.gauntlet.sequences import prompt_tokens
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


def _enough(tokenizer: Tokenizer, task: Task) -> Callable[[Sequence[int]], bool] | None:
    """Whether tokens that were written hold a stop string, after which nothing is looked at; None where nothing stops.

    Only for stops that are plain texts, and when so much follows that no other one can still end before it.
    """
    if not task.stop or any(re.search(r"[.^$*+?{}\[\]\\|()]", stop) for stop in task.stop):
        return None
    longest = max(map(len, task.stop))
    pattern = re.compile("|".join(task.stop))

    def stopped(tokens: Sequence[int]) -> bool:
        text = tokenizer.decode(list(tokens), skip_special_tokens=True)
        found = pattern.search(text)
        return found is not None and len(text) - found.start() >= longest

    return stopped


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
    results: Results | None = None,
) -> list[dict[str, Any]]:
    """What the model wrote for each row; right if it begins with any accepted answer (so 50 begins with 5)."""
    room = answer_room(tokenizer, task, unstripped)
    ids = [prompt_tokens(tokenizer, prompt, max(suite.max_seq_tokens, room) - room) for prompt in prompts]
    gold = [labels(task, row) for row in rows]
    written = greedy(
        model,
        ids,
        max_new_tokens=room,
        eos=tokenizer.eos_token_id,
        batch_tokens=suite.batch_tokens,
        enough=_enough(tokenizer, task),
        progress=progress,
        team=team,
        results=results,
    )
    found = []
    for accepted, prompt, tokens in zip(gold, ids, written, strict=True):
        text = clean(task, tokenizer.decode(tokens, skip_special_tokens=True))
        correct = int(any(text.startswith(label) for label in accepted))
        same = {"prediction": text, "gold": accepted, "nll": None, "prompt_sha": fingerprint([prompt])}
        found.append({"correct": correct} | same)
    return found


def _comparable(task: Task, text: str) -> str:
    return normalise(text) if task.normalise else text.strip()
