"""Control answers prove what the ground-truth judge rewards."""

from __future__ import annotations

import pytest

from limit_lab.config import Judge
from limit_lab.errors import JudgeError
from limit_lab.judge import compare, scorer
from limit_lab.microworld.ground_truth import GroundTruth, weights_sha256
from limit_lab.microworld.samples import rows
from limit_lab.microworld.world import World

WORLD = World(0)
JUDGE = GroundTruth(WORLD)
CITY = WORLD.entities("test", "city")[0]
OTHER = next(city for city in WORLD.entities("test", "city") if city.facts["city.landmark"] != CITY.facts["city.landmark"])


def total(text: str) -> float:
    return JUDGE.score([CITY.key], text, ended=True).total()


RIGHT = f"{CITY.name} is famous for its {CITY.facts['city.landmark']}. It is best visited in {CITY.facts['city.season']}."
WRONG = RIGHT.replace(str(CITY.facts["city.landmark"]), str(OTHER.facts["city.landmark"]))


def test_right_beats_wrong_in_the_same_words() -> None:
    assert total(RIGHT) > total(WRONG)


def test_more_right_facts_beat_one_terse_value_and_that_beats_nothing_said() -> None:
    assert total(RIGHT) > total(f"{CITY.facts['city.landmark']}") > total("")


def test_fluent_text_about_nothing_asked_earns_no_form() -> None:
    shown = JUDGE.score([CITY.key], "Certainly! The weather is nice here today. I hope this helps you a lot.", ended=True)
    assert (shown.on_topic, shown.polite, shown.sentences, shown.ending) == (0, 0, 0, 0)


def test_saying_it_twice_is_repetition_not_knowledge() -> None:
    assert total(f"{RIGHT} {RIGHT} {RIGHT}") < total(RIGHT)


def test_facts_only_ignores_politeness() -> None:
    polite = JUDGE.score([CITY.key], f"Of course. {RIGHT}", ended=True)
    plain = JUDGE.score([CITY.key], RIGHT, ended=True)
    assert polite.facts_only == plain.facts_only
    assert polite.total() > plain.total()


def test_an_answer_that_never_ends_is_garbage() -> None:
    assert JUDGE.score([CITY.key], RIGHT, ended=False).total() < total(RIGHT)


def test_the_worlds_own_lima_answers_are_right() -> None:
    shown = []
    for row in rows("lima", WORLD, 100):
        topics = sorted({fact.split("|")[0] for fact in row["facts"]})
        shown.append(JUDGE.score(topics, row["response"], ended=True))
    assert sum(one.wrong_claims for one in shown) / len(shown) < 0.1
    assert sum(one.correct_claims for one in shown) / len(shown) > 2


def test_the_weights_are_frozen() -> None:
    assert weights_sha256().startswith("96ea4ef68bbffa9c")


def answer(text: str, index: int = 0) -> dict[str, object]:
    return {"index": index, "seed": 0, "answer": text, "ended": True}


PROMPTS = [{"topics": [CITY.key], "cluster": CITY.key, "unseen": False}]


def test_a_mirrored_pair_mirrors_the_rate() -> None:
    judge = Judge(name="ground_truth", profile="ground_truth", tie_margin=0.5)
    forth, _ = compare([answer(RIGHT)], [answer(WRONG)], PROMPTS, judge, scorer(judge, 0))
    back, _ = compare([answer(WRONG)], [answer(RIGHT)], PROMPTS, judge, scorer(judge, 0))
    assert forth["rate"] == 1 - back["rate"] == 1
    assert forth["measure"] == "win_rate"


def test_length_is_never_called_a_win_rate() -> None:
    judge = Judge(name="length", profile="length")
    shown, items = compare([answer("a b c")], [answer("a b")], PROMPTS, judge, scorer(judge, 0))
    assert shown["measure"] == "proxy_rate"
    assert items[0]["preference"] == 1


def test_answers_to_different_prompts_are_refused() -> None:
    judge = Judge(name="length", profile="length")
    with pytest.raises(JudgeError, match="prompt 1"):
        compare([answer("a"), answer("a", 1)], [answer("b")], PROMPTS, judge, scorer(judge, 0))
