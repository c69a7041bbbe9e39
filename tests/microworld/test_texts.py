"""The pretraining documents: fixed by their seed, complete, and silent about withheld facts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from itertools import islice

import pytest

from limit_lab.microworld import texts
from limit_lab.microworld.texts import pretraining_documents
from limit_lab.microworld.world import SUMS, Entity, World
from tests.microworld.checks import stated_withheld

DOCUMENTS = 20_000


@pytest.fixture(scope="module")
def documents(world: World) -> list[str]:
    return list(pretraining_documents(world, DOCUMENTS, 0))


def _hash(documents: Iterator[str]) -> str:
    return hashlib.sha256("\0".join(documents).encode()).hexdigest()


def test_two_builds_write_the_same_documents() -> None:
    first = _hash(pretraining_documents(World(0), 300, 0))
    assert first == _hash(islice(pretraining_documents(World(0), 1000, 0), 300))
    assert first != _hash(pretraining_documents(World(0), 300, 1))
    assert first != _hash(pretraining_documents(World(1), 300, 0))


def test_no_document_states_a_withheld_fact(world: World, documents: list[str]) -> None:
    assert stated_withheld(world, documents, world.withheld) == set()


def test_the_check_for_withheld_facts_can_fail() -> None:
    careless = World(0)
    withheld, careless.withheld = careless.withheld, frozenset()
    stated = stated_withheld(careless, pretraining_documents(careless, DOCUMENTS, 0), withheld)
    assert stated == withheld


def test_no_withheld_fact_is_told_or_asked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    used: set[tuple[str, str]] = set()
    for name in ("say", "short", "ask", "options"):
        original = getattr(texts, name)

        def spy(*arguments: object, original: object = original, **keywords: object) -> object:
            place = next(place for place, value in enumerate(arguments) if isinstance(value, Entity))
            entity, attribute = arguments[place], arguments[place + 1]
            assert isinstance(entity, Entity)
            used.add((entity.key, str(attribute)))
            return original(*arguments, **keywords)

        monkeypatch.setattr(texts, name, spy)
    assert sum(1 for _ in pretraining_documents(world, DOCUMENTS, 0)) == DOCUMENTS
    everything = {(entity.key, attribute) for entity, attribute in world.facts()}
    assert used == everything - world.withheld


def test_every_sum_occurs_as_an_equation(documents: list[str]) -> None:
    found = set(re.findall(r"\b(\d+) ([+-]) (\d+) = \d+\b", "\n".join(documents)))
    assert found == {(str(item.left), item.sign, str(item.right)) for item in SUMS}


def test_no_document_has_a_query_language(documents: list[str]) -> None:
    assert not [text for text in documents if re.search(r"SELECT|\bquery\b", text)]


def test_articles_fit_their_words(documents: list[str]) -> None:
    assert not [text for text in documents if re.search(r"\b[Aa] [aeiou]", text)]
