"""A judge that sees only the world and the text, and says why: claims right and wrong, topic, form, repetition.

A claim is a mention of an attribute value (each belongs to one attribute) or of a related entity next to the entity it is
said of. Templates of the fine-tuning texts are not used. It knows no negation and no paraphrase, and was never compared
with people.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from limit_lab.microworld.templates import POOLS
from limit_lab.microworld.world import Entity, World

#: Points per unit of each component; fixed before any model was judged (see `weights_sha256`).
WEIGHTS = {
    "on_topic": 1.0,
    "correct_claims": 1.0,
    "wrong_claims": -1.0,
    "sentences": 0.5,
    "ending": 0.5,
    "polite": 0.5,
    "structure": 0.5,
    "repetition": -3.0,
    "garbage": -1.0,
}
#: Right (and wrong) claims beyond this many earn (and cost) nothing more.
CLAIMS_CAP = 6

POLITE = re.compile(
    r"\b(please|thanks?|hope|happy|glad(ly)?|certainly|welcome|enjoy|sorry|sure|help(s|ful)?)\b"
    r"|\b(feel free|of course|great question)\b",
    re.IGNORECASE,
)
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n")
PRONOUN_FIRST = re.compile(r"(\w+, )?(it|he|she)\b", re.IGNORECASE)
WELL_FORMED = re.compile(r"(\d+\. |Day \d+: |[-*] )?[A-Z\d].*[.!?]")


@dataclass(frozen=True, slots=True)
class Components:
    """What one answer shows; form counts only in proportion to the topics it names."""

    on_topic: float
    correct_claims: float
    wrong_claims: float
    sentences: float
    ending: float
    polite: float
    structure: float
    repetition: float
    garbage: float
    words: int

    @property
    def facts_only(self) -> float:
        return self.correct_claims - self.wrong_claims

    def total(self, weights: Mapping[str, float] = WEIGHTS) -> float:
        return sum(weight * float(getattr(self, name)) for name, weight in weights.items())


def weights_sha256() -> str:
    """Hash of the weights and the cap, written into every pair."""
    text = json.dumps({"weights": WEIGHTS, "cap": CLAIMS_CAP}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def random_weights(n: int = 200, seed: int = 0) -> list[dict[str, float]]:
    """``n`` weightings with the signs of `WEIGHTS`, each size multiplied by a uniform number in [0, 2)."""
    rng = random.Random(f"weights:{seed}")
    return [{name: weight * 2 * rng.random() for name, weight in WEIGHTS.items()} for _ in range(n)]


class GroundTruth:
    """Scores answers about one world."""

    def __init__(self, world: World) -> None:
        self.entities: dict[str, Entity] = {entity.key.lower(): entity for entity in world.entities()}
        self.values = {value.lower(): attribute for attribute, values in POOLS.items() for value in values}
        words = sorted([*self.values, *self.entities], key=len, reverse=True)
        self.mention = re.compile(r"(?<!\w)(" + "|".join(map(re.escape, words)) + r")(?!\w)", re.IGNORECASE)
        self.neighbours: dict[str, set[str]] = {entity.key: set() for entity in world.entities()}
        for entity in world.entities():
            for value in entity.facts.values():
                if isinstance(value, Entity):
                    self.neighbours[entity.key].add(value.key)
                    self.neighbours[value.key].add(entity.key)

    def score(self, topics: Sequence[str], text: str, *, ended: bool) -> Components:
        """Components of an answer to a prompt about ``topics`` (entity keys)."""
        right, wrong, named = self._claims(topics, text)
        on_topic = len(named) / len(topics)
        sentences = [part for part in SENTENCE_END.split(text.strip()) if part.strip()]
        good = sum(bool(WELL_FORMED.fullmatch(part.strip())) and len(part.split()) >= 4 for part in sentences)
        words = text.lower().split()
        grams = list(zip(words, words[1:], words[2:], words[3:], strict=False))
        return Components(
            on_topic=on_topic,
            correct_claims=min(len(right), CLAIMS_CAP),
            wrong_claims=min(len(wrong), CLAIMS_CAP),
            sentences=on_topic * min(good, 4) / 4,
            ending=on_topic * (ended and text.strip().endswith((".", "!", "?"))),
            polite=on_topic * bool(POLITE.search(text)),
            structure=on_topic * (text.strip().count("\n") >= 2 or len(sentences) >= 4),
            repetition=1 - len(set(grams)) / len(grams) if grams else 0.0,
            garbage=float("###" in text or not ended or not text.strip()),
            words=len(words),
        )

    def _claims(self, topics: Sequence[str], text: str) -> tuple[set[tuple[str, ...]], set[tuple[str, ...]], set[str]]:
        """Right claims, wrong claims, and the topics named."""
        scope = self._scope(topics)
        right: set[tuple[str, ...]] = set()
        wrong: set[tuple[str, ...]] = set()
        named: set[str] = set()
        subject: Entity | None = None
        for sentence in SENTENCE_END.split(text):
            found = [(match.start(), match[1].lower()) for match in self.mention.finditer(sentence)]
            entities = [(place, self.entities[word]) for place, word in found if word in self.entities]
            named |= {entity.key for _, entity in entities if entity.key in topics}
            if entities and not PRONOUN_FIRST.match(sentence):
                subject = entities[0][1]
            if subject is not None and subject.key in scope:
                self._links(subject, entities, right, wrong)
            for place, word in found:
                if word in self.values:
                    attribute = self.values[word]
                    owner = _owner(attribute.split(".")[0], place, entities, subject, self._topics(topics))
                    if owner is not None and owner.key in scope:
                        side = right if str(owner.facts.get(attribute, "")).lower() == word else wrong
                        side.add((owner.key, attribute, word))
        return right, wrong, named

    def _links(
        self,
        subject: Entity,
        entities: Sequence[tuple[int, Entity]],
        right: set[tuple[str, ...]],
        wrong: set[tuple[str, ...]],
    ) -> None:
        for _, entity in entities:
            if entity.type != subject.type:
                first, second = sorted((subject.key, entity.key))
                (right if entity.key in self.neighbours[subject.key] else wrong).add(("link", first, second))

    def _topics(self, topics: Sequence[str]) -> list[Entity]:
        return [self.entities[key.lower()] for key in topics]

    def _scope(self, topics: Sequence[str]) -> set[str]:
        """The topics and everything within two relations of them: what an answer may fairly speak of."""
        near = set(topics)
        for _ in range(2):
            near |= {other for key in near for other in self.neighbours[key]}
        return near


def _owner(
    kind: str, place: int, entities: Sequence[tuple[int, Entity]], subject: Entity | None, topics: Sequence[Entity]
) -> Entity | None:
    """The entity a value is said of: the last one of its kind before it, the next one after it, or the one spoken of."""
    before = [entity for start, entity in entities if start < place and entity.type == kind]
    if before:
        return before[-1]
    after = [entity for start, entity in entities if start > place and entity.type == kind]
    if after:
        return after[0]
    if subject is not None:
        return subject if subject.type == kind else None
    return next((entity for entity in topics if entity.type == kind), None)
