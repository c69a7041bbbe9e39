"""Prompt text: few-shot examples in llm-foundry's order, and the three pieces that are tokenised apart.

Source: llm-foundry's in-context-learning data sets (versions 0.1 to 0.22). The piece borders matter: preamble, context and
continuation are never merged into one string, because tokens may not form across them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from limit_lab.config import Task
from limit_lab.gauntlet.tasks import Row
from limit_lab.prompt import render

FEWSHOT_SEED = 1234
EXAMPLE_DELIMITER = "\n"


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked of one row: after ``preamble``, each context with its continuation (none for a generation task).

    ``framed``: the preamble is a whole instruction template and the contexts are empty.
    """

    preamble: str
    contexts: tuple[str, ...]
    continuations: tuple[str, ...]
    framed: bool = False


def shot_indices(rows: int, shots: int, *, seed: int = FEWSHOT_SEED) -> Iterator[list[int]]:
    """For each row in file order, the rows shown before it, in the order in which they are shown.

    That order is the iteration order of a CPython set of integers, so the set is real and its history is kept. The
    generator runs on from row to row; a row never shows itself, and a file of n rows shows at most n - 1.
    """
    generator = random.Random(seed)
    for index in range(rows):
        chosen: set[int] = set()
        if shots:
            chosen = set(generator.sample(range(rows), min(shots, rows - 1)))
            if index in chosen:
                chosen.remove(index)
                if len(chosen) < rows - 1:
                    chosen.add(_replacement(generator, rows, chosen | {index}))
        yield list(chosen)


def _replacement(generator: random.Random, rows: int, taken: set[int]) -> int:
    while (drawn := generator.choice(range(rows))) in taken:
        pass
    return drawn


def raw_prompts(task: Task, rows: Sequence[Row], *, prefix_space: bool) -> list[Prompt]:
    """Few-shot prompts of the stripped ``rows`` of one part; the other rows of the part are the pool.

    ``prefix_space``: continuations get a leading blank if they have none (tokenizers whose words carry it).
    """
    build = _schema_prompt if task.type == "schema" else _plain_prompt
    return [
        build(task, row, [rows[shot] for shot in shots], prefix_space)
        for row, shots in zip(rows, shot_indices(len(rows), task.shots), strict=True)
    ]


def template_prompts(task: Task, rows: Sequence[Row], format_name: str) -> list[Prompt]:
    """Each stripped row's bare question inside the instruction template, without shots, delimiters or blanks added.

    The answer is scored as the model was trained to give it: as the response, tokenised apart from the template.
    """
    prompts = []
    for row in rows:
        continuations = _continuations(task, row)
        contexts = ("",) * max(1, len(continuations))
        prompts.append(Prompt(render(_question(task, row), format_name), contexts, continuations, framed=True))
    return prompts


def answer_text(task: Task, row: Row, answer: str) -> str:
    """An answer of a generation task as it is shown in a shot, behind its chain of thought if the file has any."""
    return row["chain_of_thought"] + task.cot_delimiter + answer if "chain_of_thought" in row else answer


def _question(task: Task, row: Row) -> str:
    question: str = row["query" if task.type == "multiple_choice" else "context"]
    return question


def _continuations(task: Task, row: Row) -> tuple[str, ...]:
    if task.type == "generation":
        return ()
    return tuple(row["choices"]) if task.type == "multiple_choice" else (row["continuation"],)


def _plain_prompt(task: Task, row: Row, shots: Sequence[Row], prefix_space: bool) -> Prompt:
    preamble = ""
    for shot in shots:
        preamble += _block(task, shot, preamble) + _shown_answer(task, shot)
    context = _block(task, row, preamble).rstrip()
    continuations = tuple(_spaced(text, prefix_space) for text in _continuations(task, row))
    return Prompt(preamble, (context,) * max(1, len(continuations)), continuations)


def _block(task: Task, row: Row, preceding: str) -> str:
    """A question up to the place of its answer."""
    return (EXAMPLE_DELIMITER if preceding else "") + task.prelimiter + _question(task, row) + task.continuation_delimiter


def _shown_answer(task: Task, row: Row) -> str:
    if task.type == "generation":
        return answer_text(task, row, row["answer"])
    answer: str = row["choices"][row["gold"]] if task.type == "multiple_choice" else row["continuation"]
    return answer


def _schema_prompt(task: Task, row: Row, shots: Sequence[Row], prefix_space: bool) -> Prompt:
    """One continuation after each of several contexts.

    Two quirks of the original are kept: without shots the continuation delimiter is left out, and with shots the
    prelimiter comes before the example delimiter.
    """
    preamble = ""
    for shot in shots:
        between = EXAMPLE_DELIMITER if preamble else ""
        option = shot["context_options"][shot["gold"]]
        preamble += task.prelimiter + between + option + task.continuation_delimiter + shot["continuation"]
    before = task.prelimiter + (EXAMPLE_DELIMITER if preamble else "")
    after = task.continuation_delimiter.rstrip() if preamble else ""
    contexts = tuple(before + option + after for option in row["context_options"])
    return Prompt(preamble, contexts, (_spaced(row["continuation"], prefix_space),) * len(contexts))


def _spaced(text: str, prefix_space: bool) -> str:
    return " " + text if prefix_space and not text.startswith(" ") else text
