"""The gauntlet files of one part of the world, in the rows of `limit_lab.gauntlet.tasks` with ``entity`` and ``group``.

Elicitation rows ask what pretraining told about the part. Injection rows ask the withheld facts, which only fine-tuning
samples state, in a phrasing that no such sample uses for them; they have tasks and a category of their own.
"""

from __future__ import annotations

import random
import zlib
from pathlib import Path
from typing import Any

from limit_lab.errors import ConfigError
from limit_lab.microworld import templates
from limit_lab.microworld.sentences import (
    RESERVED_QUESTION,
    SUM_PHRASINGS,
    ask,
    ask_sum,
    options,
    passage,
    short,
)
from limit_lab.microworld.world import TYPES, Entity, World, sums
from limit_lab.store import write_rows

Row = dict[str, Any]

#: The parts that can be evaluated.
EVALUATED = ("development", "test")
READING_ROWS = 200

#: What an entity of each type is.
KIND_ANSWERS = {
    "country": "a country",
    "city": "a city",
    "person": "a person",
    "animal": "an animal",
    "dish": "a dish",
    "device": "a device",
}


def write(world: World, part: str, folder: Path) -> list[Path]:
    """Write one jsonl per task into ``folder`` and return their paths. Raises: ConfigError for a part not evaluated."""
    paths = []
    for name, rows in tasks(world, part).items():
        path = folder / f"{name}.jsonl"
        write_rows(path, rows)
        paths.append(path)
    return paths


def tasks(world: World, part: str) -> dict[str, list[Row]]:
    """The rows of every task, by the task's label. Raises: ConfigError for a part not evaluated."""
    if part not in EVALUATED:
        raise ConfigError(f"the part {part!r} of the micro-world has no benchmarks: use {' or '.join(EVALUATED)}.")
    told = [(entity, attribute, _phrasing(entity, attribute)) for entity, attribute in world.facts(part)]
    injected = [(entity, attribute, RESERVED_QUESTION) for entity, attribute in world.injected(part)]
    return {
        "facts_em": [_exact(*asked, group="elicitation") for asked in told],
        "facts_mc": [_choice(world, *asked, group="elicitation") for asked in told],
        "completion_mc": _completions(world, part),
        "pronoun_schema": _pronouns(world, part),
        "kinds_mc": [_kind(world, entity) for entity in world.entities(part)],
        "yesno_mc": [_yes_or_no(world, *asked) for asked in told],
        "arithmetic_em": _arithmetic(world, part),
        "reading_em": _reading(world, part),
        "injection_em": [_exact(*asked, group="injection") for asked in injected],
        "injection_mc": [_choice(world, *asked, group="injection") for asked in injected],
    }


def _rng(world: World, task: str, key: str) -> random.Random:
    return random.Random(f"benchmark {task} {key} of world {world.seed}")


def _phrasing(entity: Entity, attribute: str) -> int:
    """Which of the three questions asks a told fact: fixed by the fact, so that partners ask alike."""
    return zlib.crc32(f"{entity.key} {attribute}".encode()) % len(templates.QUESTIONS[attribute])


def _exact(entity: Entity, attribute: str, phrasing: int, *, group: str) -> Row:
    return {
        "context": ask(entity, attribute, phrasing),
        "continuation": short(entity, attribute),
        "entity": entity.key,
        "group": group,
        "attribute": attribute,
    }


def _choice(world: World, entity: Entity, attribute: str, phrasing: int, *, group: str) -> Row:
    shown, gold = options(_rng(world, "facts_mc", f"{entity.key} {attribute}"), world, entity, attribute)
    return _choices(ask(entity, attribute, phrasing), shown, gold, entity, attribute, group)


def _choices(query: str, shown: list[str], gold: int, entity: Entity, attribute: str, group: str = "elicitation") -> Row:
    return {
        "query": query,
        "choices": shown,
        "gold": gold,
        "entity": entity.key,
        "group": group,
        "attribute": attribute,
    }


def _open_statements(attribute: str) -> list[str]:
    """Beginnings of statements that end with their value and begin with their subject.

    None ends in ``a``, whose other form would give the answer away, and values that are entities carry no article.
    """
    beginnings = [text.removesuffix("{v}") for text in templates.STATEMENTS[attribute] if text.endswith(" {v}")]
    return [text.strip() for text in beginnings if text.startswith("{e} ") and not text.endswith(" a ")]


def _completions(world: World, part: str) -> list[Row]:
    rows = []
    for entity, attribute in world.facts(part):
        beginnings = _open_statements(attribute)
        if not beginnings:
            continue
        rng = _rng(world, "completion_mc", f"{entity.key} {attribute}")
        query = rng.choice(beginnings).format(e=entity.subject)
        shown, gold = options(rng, world, entity, attribute)
        bare = [text.removeprefix("to ") if attribute == "device.use" else text for text in shown]
        rows.append(_choices(query[0].upper() + query[1:], bare, gold, entity, attribute))
    return rows


def _pronouns(world: World, part: str) -> list[Row]:
    """A pronoun for one of two entities, and a statement that is true of one of them only."""
    rows = []
    for entity, attribute in world.facts(part):
        beginnings = _open_statements(attribute)
        value = entity.facts[attribute]
        alike = [other for other in world.entities(part, entity.type) if other.pronoun == entity.pronoun]
        others = [other for other in alike if other.facts[attribute] != value]
        if not beginnings or not others:
            continue
        rng = _rng(world, "pronoun_schema", f"{entity.key} {attribute}")
        beginning, other = rng.choice(beginnings), rng.choice(others)
        pair = [entity, other]
        rng.shuffle(pair)
        shown = [f"This is about {named.subject}. {beginning.format(e=entity.pronoun)}" for named in pair]
        rows.append(
            {
                "context_options": shown,
                "continuation": value.subject if isinstance(value, Entity) else value,
                "gold": pair.index(entity),
                "entity": entity.key,
                "group": "elicitation",
                "attribute": attribute,
            }
        )
    return rows


def _kind(world: World, entity: Entity) -> Row:
    rng = _rng(world, "kinds_mc", entity.key)
    shown = [KIND_ANSWERS[kind] for kind in rng.sample([kind for kind in TYPES if kind != entity.type], 3)]
    shown.append(KIND_ANSWERS[entity.type])
    rng.shuffle(shown)
    return _choices(f"What is {entity.subject}?", shown, shown.index(KIND_ANSWERS[entity.type]), entity, "type")


def _yes_or_no(world: World, entity: Entity, attribute: str, phrasing: int) -> Row:
    rng = _rng(world, "yesno_mc", f"{entity.key} {attribute}")
    shown, right = options(rng, world, entity, attribute, count=2)
    proposed = rng.randrange(len(shown))
    query = f"{ask(entity, attribute, phrasing)} Is it {shown[proposed]}?"
    return _choices(query, ["yes", "no"], int(proposed != right), entity, attribute)


def _arithmetic(world: World, part: str) -> list[Row]:
    """Every sum in every phrasing. A category holds each pair once, so no shot gives the answer to its own pair."""
    rows = []
    for item in sums(part):
        for phrasing in range(SUM_PHRASINGS):
            rng = _rng(world, "arithmetic_em", f"{item.left}{item.sign}{item.right} {phrasing}")
            rows.append(
                {
                    "context": ask_sum(rng, item, phrasing),
                    "continuation": str(item.result),
                    "entity": item.key,
                    "group": "elicitation",
                    "category": f"phrasing {phrasing}, {'larger' if item.left >= item.right else 'smaller'} number first",
                }
            )
    return rows


def _reading(world: World, part: str) -> list[Row]:
    rows = []
    for number in range(READING_ROWS):
        rng = _rng(world, "reading_em", f"{part} {number}")
        text = passage(rng, world.passers(part))
        question, value = rng.choice(text.questions)
        rows.append(
            {
                "context": f"{text.text}\n{question}",
                "continuation": value,
                "entity": " ".join(sorted(text.people)),
                "group": "elicitation",
            }
        )
    return rows
