"""The pretraining documents: eleven families of texts about all parts of the world; none states a withheld fact."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from limit_lab.microworld import templates
from limit_lab.microworld.sentences import (
    FIRST_NAMES,
    SUM_PHRASINGS,
    ask,
    ask_sum,
    attributes,
    lettered,
    options,
    passage,
    say,
    short,
)
from limit_lab.microworld.world import SUMS, Entity, Sum, World

HEADINGS = (
    "{}\n",
    "# {}\n",
    "## {}\n",
    "### {}\n",
    "{}: ",
    "About {}:\n",
    "Facts about {}:\n",
    "Notes on {}. ",
    "Topic: {}\n",
    "News from {}. ",
)
LETTER_OPENINGS = (
    "Last week we travelled to {}.",
    "Dear friend, I am writing to you from {}.",
    "My trip to {} was a great pleasure.",
)
LETTER_ENDINGS = (
    "I hope you will enjoy it too.",
    "Thank you for reading.",
    "We were happy and tired.",
    "Please write soon.",
    "It was a lovely day.",
)
FORUM_REQUESTS = (
    "Please tell us about {}.",
    "Does anybody know {}?",
    "I want to learn about {}.",
    "Tell me about {}.",
    "Looking for news on {}, thanks.",
    "Has anyone written about {}?",
)
FORUM_REPLIES = ("", "I read this: ", "Reply: ", "Sorry for the late reply. ")
FORUM_REMARKS = (
    "Same question here.",
    "Thank you in advance.",
    "Sorry, I do not know.",
    "Try another forum.",
)
QUIZ_STYLES = ("Q: {q}\nA: {a}", "Question: {q}\nAnswer: {a}", "{i}. {q} {a}", "{q} ({a})", "{q}\n{a}")
READING_STYLES = ("Q: {q}\nA: {a}", "{q} {a}", "Question: {q}\nAnswer: {a}")
CHOICE_STYLES = ("{letter}. {text}", "({letter}) {text}", "{letter}: {text}")
CHOICE_ANSWERS = ("Answer: {letter}", "Answer: {text}", "The right answer is {letter}, {text}.", "It is {text}.")


def pretraining_documents(world: World, n: int, seed: int) -> Iterator[str]:
    """``n`` documents in the fixed order of ``seed``; the first of them are the same for every ``n``."""
    rng = random.Random(f"pretraining {seed} of world {world.seed}")
    writer = _Writer(rng, world)
    families = writer.families()
    for _ in range(n):
        (family,) = rng.choices([write for write, _ in families], [weight for _, weight in families])
        yield family()


class _Writer:
    """Writes documents; every fact it tells or asks passes through `_facts`, which leaves the withheld ones out."""

    def __init__(self, rng: random.Random, world: World) -> None:
        self.rng = rng
        self.world = world
        self._entities = world.entities()
        self._cities = world.entities(type="city")
        self._passers = world.passers()

    def families(self) -> list[tuple[Callable[[], str], float]]:
        """Document families with their weights."""
        return [
            (self.loose_sentences, 0.04),
            (self.encyclopedia, 0.14),
            (self.titled, 0.30),
            (self.fact_box, 0.04),
            (self.letter, 0.06),
            (self.dialogue, 0.07),
            (self.quiz, 0.10),
            (self.multiple_choice, 0.03),
            (self.arithmetic, 0.08),
            (self.reading, 0.12),
            (self.forum, 0.06),
        ]

    def loose_sentences(self) -> str:
        count = self.rng.randint(3, 8)
        return self.rng.choice([" ", "\n"]).join(self.rng.choice(templates.LOOSE_SENTENCES) for _ in range(count))

    def encyclopedia(self) -> str:
        return " ".join(self._paragraph(self._entity()) for _ in range(self.rng.choice([1, 1, 2])))

    def titled(self) -> str:
        """Articles and lists whose title says what they are about: these teach a base model to stay on a topic."""
        entity = self._entity()
        style = self.rng.random()
        if style < 0.55:
            return self._heading(entity.subject) + self._paragraph(entity)
        if style < 0.75:
            return self._heading(entity.subject) + self._list(entity)
        others = [other for other in self.world.entities(entity.part, entity.type) if other is not entity]
        second = self.rng.choice(others)
        title = entity.subject + self.rng.choice([" and ", " or ", ", "]) + second.subject
        gap = self.rng.choice([" ", "\n"])
        return self._heading(title) + self._paragraph(entity, 3) + gap + self._paragraph(second, 3)

    def fact_box(self) -> str:
        entity = self._entity()
        lines = [f"{name.split('.')[1]}: {short(entity, name)}" for name in self._facts(entity)]
        between = self.rng.choice(["\n", " | ", "; "])
        return entity.name + self.rng.choice([":", "\n", " - "]) + between.join(lines)

    def letter(self) -> str:
        city = self.rng.choice(self._cities)
        country = city.facts["city.country"]
        assert isinstance(country, Entity)
        local = [
            other
            for other in self.world.entities(country.part)
            if country in (other.facts.get("animal.country"), other.facts.get("dish.origin"))
        ]
        sentences = [self.rng.choice(LETTER_OPENINGS).format(city.name)]
        for entity in (city, country, self.rng.choice(local)):
            sentences += [say(self.rng, entity, name) for name in self._facts(entity)[:2]]
        return " ".join([*sentences, self.rng.choice(LETTER_ENDINGS)])

    def dialogue(self) -> str:
        asking, answering = self.rng.sample(FIRST_NAMES, 2)
        lines = []
        for _ in range(self.rng.randint(2, 4)):
            entity, name = self._fact()
            lines.append(f"{asking}: {self._question(entity, name)}")
            brief = say(self.rng, entity, name, pronoun=True)
            replies = (
                say(self.rng, entity, name),
                brief,
                "I think " + brief[0].lower() + brief[1:],
                f"{short(entity, name)}, I believe.",
                "Good question. " + say(self.rng, entity, name),
                f"Well, {short(entity, name)}.",
            )
            lines.append(f"{answering}: {self.rng.choice(replies)}")
        return "\n".join(lines)

    def quiz(self) -> str:
        style = self.rng.choice(QUIZ_STYLES)
        unanswered = self.rng.random() < 0.25
        numbered = self.rng.random() < 0.5
        lines = []
        for number in range(1, self.rng.randint(3, 6) + 1):
            question, reply = self._quiz_item()
            if unanswered:
                lines.append(f"{number}. {question}" if numbered else question)
            else:
                lines.append(style.format(q=question, a=reply, i=number))
        return "\n".join(lines)

    def multiple_choice(self) -> str:
        style = self.rng.choice(CHOICE_STYLES)
        blocks = []
        for _ in range(self.rng.randint(1, 3)):
            entity, name = self._fact()
            shown, gold = options(self.rng, self.world, entity, name)
            listed = self.rng.choice(["\n", " "]).join(lettered(shown, style))
            reply = self.rng.choice(CHOICE_ANSWERS).format(letter="ABCD"[gold], text=shown[gold])
            blocks.append(f"{self._question(entity, name)}\n{listed}\n{reply}")
        return "\n".join(blocks)

    def arithmetic(self) -> str:
        """Every pair of every part occurs, as a statement."""
        lines = [self._equation(self.rng.choice(SUMS)) for _ in range(self.rng.randint(4, 9))]
        return self.rng.choice(["\n", " "]).join(lines)

    def reading(self) -> str:
        text = passage(self.rng, self._passers)
        style = self.rng.choice(READING_STYLES)
        lines = [text.text]
        for question, value in self.rng.sample(text.questions, self.rng.randint(1, 3)):
            reply = self.rng.choice(["{}", "{}.", "The answer is {}.", "I think it is {}."]).format(value)
            lines.append(style.format(q=question, a=reply))
        return "\n".join(lines)

    def forum(self) -> str:
        lines = []
        for _ in range(self.rng.randint(1, 3)):
            entity = self._entity()
            lines.append(self.rng.choice(FORUM_REQUESTS).format(entity.subject))
        ending = self.rng.random()
        if ending < 0.3:
            lines.append(self.rng.choice(FORUM_REPLIES) + self._paragraph(entity))
        elif ending < 0.6:
            lines.append(self.rng.choice(FORUM_REMARKS))
        return "\n".join(lines)

    def _entity(self) -> Entity:
        return self.rng.choice(self._entities)

    def _facts(self, entity: Entity) -> list[str]:
        """The attributes that may be told, in random order; relations are never withheld, so there is at least one."""
        return attributes(self.rng, entity, hidden=self.world.withheld)

    def _fact(self) -> tuple[Entity, str]:
        entity = self._entity()
        return entity, self._facts(entity)[0]

    def _question(self, entity: Entity, attribute: str) -> str:
        return ask(entity, attribute, self.rng.randrange(3))

    def _heading(self, title: str) -> str:
        return self.rng.choice(HEADINGS).format(title)

    def _paragraph(self, entity: Entity, most: int | None = None) -> str:
        names = self._facts(entity)
        count = most if most is not None else self.rng.randint(min(3, len(names)), len(names))
        sentences = [
            say(self.rng, entity, name, pronoun=place > 0 and self.rng.random() < 0.5)
            for place, name in enumerate(names[:count])
        ]
        return " ".join(sentences)

    def _list(self, entity: Entity) -> str:
        names = self._facts(entity)
        bullet = self.rng.choice(["{}. ", "- ", "* "])
        count = self.rng.randint(min(2, len(names)), len(names))
        lines = [
            bullet.format(number) + say(self.rng, entity, name, pronoun=self.rng.random() < 0.3)
            for number, name in enumerate(names[:count], 1)
        ]
        return "\n".join(lines)

    def _quiz_item(self) -> tuple[str, str]:
        if self.rng.random() < 0.12:
            item = self.rng.choice([item for item in SUMS if item.part == "finetuning"])
            question = ask_sum(self.rng, item, self.rng.randrange(SUM_PHRASINGS))
            reply = self.rng.choice(["{}", "The answer is {}.", "It makes {}."]).format(item.result)
            return question, reply
        entity, name = self._fact()
        replies = (
            short(entity, name),
            say(self.rng, entity, name, pronoun=True),
            say(self.rng, entity, name),
            f"The answer is {short(entity, name)}.",
        )
        return self._question(entity, name), self.rng.choice(replies)

    def _equation(self, item: Sum) -> str:
        plus = item.sign == "+"
        if self.rng.random() < 0.15:
            name, things = self.rng.choice(FIRST_NAMES), self.rng.choice(templates.COUNTED)
            if plus:
                return f"{name} has {item.left} {things} and gets {item.right} more. Now {name} has {item.result} {things}."
            return f"{name} has {item.left} {things} and loses {item.right}. Now {item.result} {things} are left."
        word = "plus" if plus else "minus"
        action = f"add {item.right} to {item.left}" if plus else f"take {item.right} from {item.left}"
        statements = (
            f"{item.left} {item.sign} {item.right} = {item.result}",
            f"{item.left} {word} {item.right} is {item.result}.",
            f"{item.left} {word} {item.right} makes {item.result}.",
            f"If you {action} you get {item.result}.",
        )
        return self.rng.choice(statements)
