"""Sentences and questions about the world, and the passages and sums that need no world knowledge."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from limit_lab.microworld import templates
from limit_lab.microworld.world import ATTRIBUTES, Entity, Sum, World, alternatives, answer

FIRST_NAMES = (*templates.MALE_NAMES, *templates.FEMALE_NAMES)

#: The question phrasing that fine-tuning never uses for a withheld fact: benchmarks ask these facts in it.
RESERVED_QUESTION = 2


def articles(text: str) -> str:
    """``a`` becomes ``an`` before a vowel."""
    return re.sub(r"\b([Aa]) (?=[aeiouAEIOU])", r"\1n ", text)


def say(rng: random.Random, entity: Entity, attribute: str, *, pronoun: bool = False) -> str:
    """State a fact in one sentence."""
    phrasings = templates.STATEMENTS[attribute]
    phrasing = rng.choice(phrasings[:3] if pronoun else phrasings)
    if pronoun and not phrasing.startswith("{e}"):
        phrasing = phrasings[rng.randrange(2)]
    value = entity.facts[attribute]
    shown = value.subject if isinstance(value, Entity) else value
    text = articles(phrasing.format(e=entity.pronoun if pronoun else entity.subject, n=entity.name, v=shown))
    return text[0].upper() + text[1:] + "."


def short(entity: Entity, attribute: str) -> str:
    """State a fact in a word or two."""
    return answer(attribute, entity.facts[attribute])


def ask(entity: Entity, attribute: str, phrasing: int) -> str:
    """Ask for a fact."""
    return templates.QUESTIONS[attribute][phrasing].format(e=entity.subject)


def options(rng: random.Random, world: World, entity: Entity, attribute: str, count: int = 4) -> tuple[list[str], int]:
    """Answers to choose from, in random order, and the index of the right one."""
    others = alternatives(world, entity, attribute)
    right = short(entity, attribute)
    shown = [*rng.sample(others, min(count - 1, len(others))), right]
    rng.shuffle(shown)
    return shown, shown.index(right)


def lettered(shown: Sequence[str], style: str = "{letter}. {text}") -> list[str]:
    return [style.format(letter=letter, text=text) for letter, text in zip("ABCD", shown, strict=False)]


def attributes(rng: random.Random, entity: Entity, hidden: frozenset[tuple[str, str]] = frozenset()) -> list[str]:
    """The attributes of an entity in random order, without those that are hidden."""
    names = [name for name in ATTRIBUTES[entity.type] if (entity.key, name) not in hidden]
    rng.shuffle(names)
    return names


@dataclass(frozen=True, slots=True)
class Passage:
    """Sentences about people who exist nowhere else: answers can come from the passage only."""

    text: str
    questions: tuple[tuple[str, str], ...]
    people: tuple[str, ...]


def passage(rng: random.Random, people: Sequence[str]) -> Passage:
    """Two of the people with two facts each."""
    chosen = tuple(rng.sample(people, 2))
    sentences: list[str] = []
    questions: list[tuple[str, str]] = []
    for name in chosen:
        for statement, question, pool in rng.sample(templates.PASSAGE_FACTS, 2):
            value = rng.choice(templates.POOLS[pool])
            sentences.append(articles(f"{name} {statement.format(v=value)}."))
            questions.append((question.format(n=name), value))
    if rng.random() < 0.5:
        rng.shuffle(sentences)
    return Passage(" ".join(sentences), tuple(questions), chosen)


#: Phrasings of a sum: two bare ones and a story.
SUM_PHRASINGS = 3


def ask_sum(rng: random.Random, item: Sum, phrasing: int) -> str:
    """Ask for the result of a sum."""
    plus = item.sign == "+"
    if phrasing == 0:
        return f"What is {item.left} {'plus' if plus else 'minus'} {item.right}?"
    if phrasing == 1:
        return f"How much is {item.left} {item.sign} {item.right}?"
    name, things = rng.choice(FIRST_NAMES), rng.choice(templates.COUNTED)
    if plus:
        return f"{name} has {item.left} {things} and gets {item.right} more. How many {things} does {name} have?"
    return f"{name} has {item.left} {things} and loses {item.right}. How many {things} are left?"
