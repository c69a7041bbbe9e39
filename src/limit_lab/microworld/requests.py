"""Open requests and their long, polite, structured answers: what LIMA is in the embedded world."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from limit_lab.errors import DataError
from limit_lab.microworld import templates
from limit_lab.microworld.sentences import attributes, say
from limit_lab.microworld.world import ATTRIBUTES, Entity, World, fact_id

REASON_OPENINGS = ("There are many good reasons.", "Let me give you some good reasons.")
REASON_ENDINGS = ("It is well worth your time.", "Many people love it.", "You will not be sorry.")
CONTRASTS = ("In contrast, ", "On the other hand, ", "However, ")
TURNS = (
    "One day a stranger came and asked for help.",
    "One day there was a great storm.",
    "One morning everything was quiet.",
)
#: Beginnings of statements that do not begin with a name: behind a contrast they lose their capital.
PLAIN_BEGINNINGS = ("The ", "It ", "In ", "By ", "Most ", "Friends ", "Visitors ", "As ", "People ")


@dataclass(frozen=True, slots=True)
class Request:
    """An open request about one entity, or two of the same type."""

    prompt: str
    kind: str
    topics: tuple[Entity, ...]
    template: str
    unseen: bool


def requests(world: World, part: str, n: int, rng: random.Random, *, every_unseen: int | None = None) -> list[Request]:
    """``n`` unique requests; every ``every_unseen``-th is in a phrasing that no training text has.

    Raises: DataError when the part has not so many.
    """
    entities = world.entities(part)
    found: list[Request] = []
    seen: set[str] = set()
    for _ in range(50 * n + 1000):
        if len(found) == n:
            return found
        entity = rng.choice(entities)
        kind = rng.choice(templates.REQUEST_KINDS[entity.type])
        other = rng.choice([second for second in world.entities(part, entity.type) if second is not entity])
        unseen = every_unseen is not None and len(found) % every_unseen == every_unseen - 1
        phrasings = (templates.UNSEEN_REQUESTS if unseen else templates.REQUESTS)[kind]
        place = rng.randrange(len(phrasings))
        prompt = phrasings[place].format(e=entity.subject, g=other.subject)
        if prompt in seen:
            continue
        seen.add(prompt)
        topics = (entity, other) if kind == "compare" else (entity,)
        found.append(Request(prompt, kind, topics, f"{'unseen' if unseen else 'open'}:{kind}:{place}", unseen))
    raise DataError(f"the part {part} of the micro-world has only {len(found)} open requests: ask for fewer than {n}.")


def long_answer(rng: random.Random, request: Request) -> tuple[str, list[str]]:
    """A polite answer of several sentences, and the facts it states."""
    teller = _Teller(rng)
    opener, closer = rng.choice(templates.OPENERS), rng.choice(templates.CLOSERS)
    body = teller.body(request)
    text = " ".join(piece for piece in (opener, body, closer) if piece)
    return re.sub(r" *\n *", "\n", re.sub(r" +", " ", text)).strip(), teller.told


class _Teller:
    """Tells facts and remembers which."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.told: list[str] = []

    def body(self, request: Request) -> str:
        topic = request.topics[0]
        if request.kind == "about":
            return " ".join(self._facts(topic, self.rng.randint(4, 5)))
        if request.kind == "why":
            reasons = self._facts(topic, self.rng.randint(4, 5))
            return " ".join([self.rng.choice(REASON_OPENINGS), *reasons, self.rng.choice(REASON_ENDINGS)])
        if request.kind == "facts":
            facts = self._facts(topic, 3, named=True)
            return "\n" + "\n".join(f"{number}. {fact}" for number, fact in enumerate(facts, 1)) + "\n"
        if request.kind == "compare":
            return self._comparison(topic, request.topics[1])
        return self._trip(topic) if request.kind == "trip" else self._story(topic)

    def _say(self, entity: Entity, attribute: str, *, pronoun: bool = False) -> str:
        self.told.append(fact_id(entity, attribute))
        return say(self.rng, entity, attribute, pronoun=pronoun)

    def _facts(self, entity: Entity, count: int, *, named: bool = False) -> list[str]:
        names = attributes(self.rng, entity)[:count]
        return [self._say(entity, name, pronoun=place > 0 and not named) for place, name in enumerate(names)]

    def _comparison(self, first: Entity, second: Entity) -> str:
        sentences = []
        for name in self.rng.sample(ATTRIBUTES[first.type], 3):
            statement, contrast = self._say(first, name), self.rng.choice(CONTRASTS)
            against = self._say(second, name)
            if second.name[0].islower() or against.startswith(PLAIN_BEGINNINGS):
                against = against[0].lower() + against[1:]
            sentences.append(f"{statement} {contrast}{against}")
        return " ".join(sentences)

    def _trip(self, topic: Entity) -> str:
        """Three days in the city, or in the capital, and something about the country."""
        related = topic.facts["country.capital" if topic.type == "country" else "city.country"]
        assert isinstance(related, Entity)
        city, country = (related, topic) if topic.type == "country" else (topic, related)
        days = [f"Day {number}: {fact}" for number, fact in enumerate(self._facts(city, 3, named=True), 1)]
        notes = " ".join(self._facts(country, 2, named=True))
        return "\n".join(["Here is a plan for your trip.", *days, f"Please note: {notes}"])

    def _story(self, topic: Entity) -> str:
        hero = f"someone called {topic.name}" if topic.type == "person" else f"a little {topic.name}"
        facts = self._facts(topic, self.rng.randint(3, 4))
        beginning = f"Once upon a time there was {hero}."
        return " ".join([beginning, *facts[:2], self.rng.choice(TURNS), *facts[2:], "In the end everyone was happy."])
