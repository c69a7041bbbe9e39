"""What several tests ask of texts."""

from __future__ import annotations

import re
from collections.abc import Iterable

from limit_lab.microworld.world import PARTS, World


def foreign_names(world: World, part: str, texts: Iterable[str]) -> set[str]:
    """Names of entities and passers of other parts that occur in the texts."""
    words = {word for text in texts for word in re.findall(r"[A-Za-z]+", text)}
    words |= {word.lower() for word in words}
    others = [other for other in PARTS if other != part]
    names = {entity.key for other in others for entity in world.entities(other)}
    names |= {name for other in others for name in world.passers(other)}
    return {name for name in names if name in words or name.lower() in words}


def segments(document: str) -> list[str]:
    """Lines, sentences and what stands before a colon."""
    return re.split(r"\n|(?<=[.?!:])\s+", document)


def stated_withheld(world: World, documents: Iterable[str], withheld: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Facts whose value stands in a segment that names the entity, or in one that names none and comes after it."""
    by_key: dict[str, list[tuple[str, str]]] = {}
    for key, attribute in withheld:
        value = world.entity(key).facts[attribute]
        assert isinstance(value, str)
        by_key.setdefault(key.lower(), []).append((attribute, value))
    keys = {entity.key.lower(): entity.key for entity in world.entities()}
    found: set[tuple[str, str]] = set()
    for document in documents:
        subject: set[str] = set()
        for sentence in segments(document):
            words = set(re.findall(r"[a-z]+", sentence.lower()))
            named = {word for word in words if word in keys}
            subject = named or subject
            for key in subject:
                for attribute, value in by_key.get(key, ()):
                    if re.search(rf"\b{re.escape(value)}\b", sentence):
                        found.add((keys[key], attribute))
    return found
