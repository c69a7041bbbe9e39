"""The embedded world: invented entities and their facts, in three parts that no relation connects.

Every name is invented, so nothing about an entity can be known from elsewhere. Fine-tuning uses the part ``finetuning``,
evaluations the parts ``development`` and ``test``; pretraining covers all three, except for the withheld facts.
"""

from __future__ import annotations

import random
import re
import zlib
from dataclasses import dataclass, field

from limit_lab.errors import ConfigError
from limit_lab.microworld import templates

#: Bumped whenever a world, its texts or its benchmarks change for an unchanged seed.
VERSION = 1

#: The parts, with their numbers of countries.
PARTS = {"finetuning": 6, "development": 4, "test": 6}
TYPES = ("country", "city", "person", "animal", "dish", "device")

#: The attributes of each type, pool values first.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    kind: tuple(name for name in (*templates.POOLS, *templates.RELATIONS) if name.startswith(kind + ".")) for kind in TYPES
}

#: Share of the pool-valued facts of the fine-tuning part that no pretraining text states.
WITHHELD_SHARE = 0.25
NUMBERS = range(13)


@dataclass(eq=False, slots=True)
class Entity:
    """One entity. ``key`` is the last word of its name, unique in the world; ``facts`` maps attributes to values."""

    name: str
    key: str
    type: str
    part: str
    male: bool
    facts: dict[str, str | Entity] = field(default_factory=dict, repr=False)

    @property
    def subject(self) -> str:
        """The name as it stands in a sentence, with its article."""
        return f"the {self.name}" if self.type in ("animal", "device") else self.name

    @property
    def pronoun(self) -> str:
        if self.type != "person":
            return "It"
        return "He" if self.male else "She"


Fact = tuple[Entity, str]


def fact_id(entity: Entity, attribute: str) -> str:
    """How records name a fact."""
    return f"{entity.key}|{attribute}"


class World:
    """All entities of one seed, and which facts of theirs are withheld from pretraining."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._entities: list[Entity] = []
        names = _Names(random.Random(f"world {VERSION} {seed}"))
        for part, countries in PARTS.items():
            for _ in range(countries):
                self._add_country(names, part)
        self._passers = {part: tuple(names.word("passer") for _ in range(10 * count)) for part, count in PARTS.items()}
        self._by_key = {entity.key: entity for entity in self._entities}
        self.withheld = self._withhold()
        self.injection = self._split_withheld()

    def entities(self, part: str | None = None, type: str | None = None) -> list[Entity]:
        """Entities in their fixed order, of one part and type or of all. Raises: ConfigError for an unknown part."""
        if part is not None and part not in PARTS:
            raise ConfigError(f"the micro-world has no part {part!r}: use {', '.join(PARTS)}.")
        return [entity for entity in self._entities if part in (None, entity.part) and (type is None or type == entity.type)]

    def facts(self, part: str | None = None) -> list[Fact]:
        """Every (entity, attribute) of one part, or of all."""
        return [(entity, attribute) for entity in self.entities(part) for attribute in ATTRIBUTES[entity.type]]

    def entity(self, key: str) -> Entity:
        return self._by_key[key]

    def passers(self, part: str | None = None) -> tuple[str, ...]:
        """Names of people who exist in passages only."""
        return tuple(name for own, names in self._passers.items() if part in (None, own) for name in names)

    def told_in_pretraining(self, entity: Entity, attribute: str) -> bool:
        return (entity.key, attribute) not in self.withheld

    def injected(self, part: str) -> list[Fact]:
        """The withheld facts that evaluations of a part (development or test) ask."""
        return [(self.entity(key), attribute) for key, attribute in sorted(self.withheld) if self.injection[key] == part]

    def _add_country(self, names: _Names, part: str) -> None:
        country = self._add(names, "country", part)
        cities = [self._add(names, "city", part) for _ in range(3)]
        for city in cities:
            city.facts["city.country"] = country
        country.facts["country.capital"] = cities[0]
        people = [self._add(names, "person", part) for _ in range(3)]
        for person in people:
            person.facts["person.birthplace"] = names.rng.choice(cities)
        for _ in range(2):
            self._add(names, "animal", part).facts["animal.country"] = country
            self._add(names, "dish", part).facts["dish.origin"] = country
            self._add(names, "device", part).facts["device.inventor"] = names.rng.choice(people)

    def _add(self, names: _Names, kind: str, part: str) -> Entity:
        male = names.rng.random() < 0.5
        key = names.word(kind)
        first = names.rng.choice(templates.MALE_NAMES if male else templates.FEMALE_NAMES)
        entity = Entity(name=f"{first} {key}" if kind == "person" else key, key=key, type=kind, part=part, male=male)
        for attribute in ATTRIBUTES[kind]:
            if attribute in templates.POOLS:
                entity.facts[attribute] = names.rng.choice(templates.POOLS[attribute])
        self._entities.append(entity)
        return entity

    def _withhold(self) -> frozenset[tuple[str, str]]:
        candidates = [(entity.key, attribute) for entity, attribute in self.facts("finetuning") if attribute in templates.POOLS]
        rng = random.Random(f"withheld {VERSION} {self.seed}")
        return frozenset(rng.sample(candidates, round(WITHHELD_SHARE * len(candidates))))

    def _split_withheld(self) -> dict[str, str]:
        """Which evaluation part asks the withheld facts of each entity: the entities are split in half."""
        keys = sorted({key for key, _ in self.withheld})
        random.Random(f"injection {VERSION} {self.seed}").shuffle(keys)
        return {key: "development" if index < len(keys) // 2 else "test" for index, key in enumerate(keys)}


class _Names:
    """Invented words, none used twice and none that a template or a pool uses."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self._used = _vocabulary()

    def word(self, kind: str) -> str:
        draw = self.rng.choice
        while True:
            start = draw(templates.ONSETS) + draw(templates.VOWELS) + draw(templates.CODAS)
            word = start + draw(templates.ONSETS) + draw(templates.ENDINGS[kind])
            if 5 <= len(word) <= 9 and word not in self._used:
                break
        self._used.add(word)
        return word if kind in ("animal", "dish", "device") else word.capitalize()


def _vocabulary() -> set[str]:
    """Every word of the templates in lower case."""
    tables = (value for name, value in vars(templates).items() if name.isupper())
    return set(re.findall(r"[a-z]+", repr(list(tables)).lower()))


def answer(attribute: str, value: str | Entity) -> str:
    """A value as a terse answer."""
    if isinstance(value, Entity):
        return value.name
    return f"to {value}" if attribute == "device.use" else value


def alternatives(world: World, entity: Entity, attribute: str) -> list[str]:
    """Every other answer of the same sort, none from another part of the world."""
    right = answer(attribute, entity.facts[attribute])
    if attribute in templates.RELATIONS:
        known = [other.name for other in world.entities(entity.part, templates.RELATIONS[attribute])]
    else:
        known = [answer(attribute, value) for value in templates.POOLS[attribute]]
    return [text for text in known if text != right]


@dataclass(frozen=True, slots=True)
class Sum:
    """An addition or subtraction of small numbers."""

    left: int
    sign: str
    right: int

    @property
    def result(self) -> int:
        return self.left + self.right if self.sign == "+" else self.left - self.right

    @property
    def key(self) -> str:
        """Name of the pair; the two orders of an addition are one pair."""
        numbers = sorted((self.left, self.right), reverse=True)
        return f"{numbers[0]}{self.sign}{numbers[1]}"

    @property
    def part(self) -> str:
        """The one part of the world that asks this pair."""
        share = zlib.crc32(f"sum {self.key}".encode()) % 10
        if share < 6:
            return "finetuning"
        return "development" if share < 8 else "test"


#: Every sum; results are never negative.
SUMS = tuple(Sum(left, sign, right) for left in NUMBERS for sign in "+-" for right in NUMBERS if sign == "+" or right <= left)


def sums(part: str | None = None) -> list[Sum]:
    return [item for item in SUMS if part in (None, item.part)]
