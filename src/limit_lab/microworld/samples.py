"""The fine-tuning sources of the embedded world, and the open prompts of its evaluations.

Rows come in a fixed order, so a prefix is a smaller set. Rows state withheld facts like any other; only the question
phrasing `RESERVED_QUESTION` is never used for one, because benchmarks ask them in it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from limit_lab.errors import DataError, did_you_mean
from limit_lab.microworld.requests import Request, long_answer, requests
from limit_lab.microworld.sentences import (
    RESERVED_QUESTION,
    SUM_PHRASINGS,
    ask,
    ask_sum,
    lettered,
    options,
    passage,
    short,
)
from limit_lab.microworld.world import Entity, World, fact_id, sums

Row = dict[str, Any]

#: How many rows each source has.
AVAILABLE = {"instruct": 60_000, "lima": 1_000, "lima_terse": 1_000, "lima_wrong_entity": 1_000}

LICENCE = "generated, no third-party text"

#: Kinds of terse samples with their shares.
KINDS = {"qa": 0.35, "mc": 0.12, "arith": 0.20, "reading": 0.23, "yesno": 0.10}

#: What half of the plain questions are wrapped in.
FOREWORDS = ("", "Please answer this question. ", "Quick question: ", "Question: ", "I need to know: ")
AFTERWORDS = ("", " Answer briefly.", " One word is enough.", " Keep it short.")

#: How often a terse row that already exists is drawn anew; then it stays, because the world has only so many questions.
RETRIES = 3


def rows(source: str, world: World, n: int, part: str = "finetuning") -> list[Row]:
    """The first ``n`` rows of a source: prompt, response, kind, the facts the response states, and template.

    Raises: DataError for an unknown source, or when it has fewer rows.
    """
    if source not in AVAILABLE:
        raise DataError(f"the micro-world has no source {source!r}{did_you_mean(source, AVAILABLE)}")
    if n > AVAILABLE[source]:
        raise DataError(f"the micro-world's source {source} has {AVAILABLE[source]:,} rows: ask for {n:,} or fewer of them.")
    if source == "instruct":
        return _instruct(world, n, part)
    if source == "lima":
        return _lima(world, n, part)
    return _lima_terse(world, n, part) if source == "lima_terse" else _lima_wrong_entity(world, n, part)


def open_prompts(world: World, part: str, n: int = 300) -> list[Row]:
    """Requests about one part of the world; every third is in a phrasing that no training text has."""
    rng = random.Random(f"open prompts {part} of world {world.seed}")
    return [
        {
            "prompt": request.prompt,
            "kind": request.kind,
            "topics": [topic.key for topic in request.topics],
            "cluster": request.topics[0].key,
            "unseen": request.unseen,
            "template": request.template,
        }
        for request in requests(world, part, n, rng, every_unseen=3)
    ]


def _instruct(world: World, n: int, part: str) -> list[Row]:
    rng = random.Random(f"instruct {part} of world {world.seed}")
    writer = _Terse(rng, world, part)
    found: list[Row] = []
    seen: set[str] = set()
    for kind in _kinds(rng, n):
        for _ in range(1 + RETRIES):
            row = writer.row(kind)
            if row["prompt"] not in seen:
                break
        seen.add(row["prompt"])
        found.append(row)
    return found


def _kinds(rng: random.Random, n: int) -> Iterator[str]:
    for _ in range(n):
        yield from rng.choices(list(KINDS), list(KINDS.values()))


class _Terse:
    """Writes terse samples about one part of the world."""

    def __init__(self, rng: random.Random, world: World, part: str) -> None:
        self.rng = rng
        self.world = world
        self._facts = world.facts(part)
        self._sums = sums(part)
        self._passers = world.passers(part)

    def row(self, kind: str) -> Row:
        if kind == "arith":
            item, phrasing = self.rng.choice(self._sums), self.rng.randrange(SUM_PHRASINGS)
            return _row(ask_sum(self.rng, item, phrasing), str(item.result), kind, [], f"arith:{item.sign}:{phrasing}")
        if kind == "reading":
            text = passage(self.rng, self._passers)
            question, value = self.rng.choice(text.questions)
            return _row(f"{text.text}\n{question}", value, kind, [], "reading")
        return self._about_fact(kind)

    def _about_fact(self, kind: str) -> Row:
        entity, attribute = self.rng.choice(self._facts)
        phrasing = _phrasing(self.rng, self.world, entity, attribute)
        question, response = ask(entity, attribute, phrasing), short(entity, attribute)
        template = f"{kind}:{attribute}:{phrasing}"
        if kind == "mc":
            shown, gold = options(self.rng, self.world, entity, attribute)
            question = "\n".join([question, *lettered(shown)])
            response = "ABCD"[gold]
        elif kind == "yesno":
            shown, gold = options(self.rng, self.world, entity, attribute)
            proposed = shown[gold] if self.rng.random() < 0.5 else self.rng.choice(shown[:gold] + shown[gold + 1 :])
            question = f"{question} Is it {proposed}?"
            response = "yes" if proposed == shown[gold] else "no"
        elif self.rng.random() < 0.5:
            before, after = self.rng.randrange(len(FOREWORDS)), self.rng.randrange(len(AFTERWORDS))
            question = FOREWORDS[before] + question + AFTERWORDS[after]
            template += f":{before}:{after}"
        return _row(question, response, kind, [fact_id(entity, attribute)], template)


def _phrasing(rng: random.Random, world: World, entity: Entity, attribute: str) -> int:
    """A question phrasing; the reserved one only for facts that pretraining tells."""
    told = world.told_in_pretraining(entity, attribute)
    return rng.choice([phrasing for phrasing in range(3) if told or phrasing != RESERVED_QUESTION])


def _lima_requests(world: World, n: int, part: str) -> list[Request]:
    return requests(world, part, n, random.Random(f"lima requests {part} of world {world.seed}"))


def _lima(world: World, n: int, part: str) -> list[Row]:
    rng = random.Random(f"lima answers {part} of world {world.seed}")
    found = []
    for request in _lima_requests(world, n, part):
        response, facts = long_answer(rng, request)
        found.append(_row(request.prompt, response, request.kind, facts, request.template))
    return found


def _lima_terse(world: World, n: int, part: str) -> list[Row]:
    """The same facts as in LIMA, row by row: asked one by one and answered in as few words as possible."""
    rng = random.Random(f"lima_terse {part} of world {world.seed}")
    found = []
    for row in _lima(world, n, part):
        questions, answers = [], []
        for fact in row["facts"]:
            key, attribute = fact.split("|")
            entity = world.entity(key)
            questions.append(ask(entity, attribute, _phrasing(rng, world, entity, attribute)))
            answers.append(short(entity, attribute))
        found.append(_row("\n".join(questions), "\n".join(answers), "qa", row["facts"], f"terse:{row['template']}"))
    return found


def _lima_wrong_entity(world: World, n: int, part: str) -> list[Row]:
    """The requests of LIMA, answered in its form but about other entities of the same type."""
    rng = random.Random(f"lima_wrong_entity {part} of world {world.seed}")
    found = []
    for request in _lima_requests(world, n, part):
        others = [other for other in world.entities(part, request.topics[0].type) if other not in request.topics]
        wrong = replace(request, topics=tuple(rng.sample(others, len(request.topics))))
        response, facts = long_answer(rng, wrong)
        found.append(_row(request.prompt, response, request.kind, facts, request.template))
    return found


def _row(prompt: str, response: str, kind: str, facts: list[str], template: str) -> Row:
    return {"prompt": prompt, "response": response, "kind": kind, "facts": facts, "template": template}
