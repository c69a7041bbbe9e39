"""The fine-tuning sources and open prompts: nested, of one part, and with the withheld facts."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from limit_lab.errors import DataError
from limit_lab.microworld import samples, templates
from limit_lab.microworld.sentences import RESERVED_QUESTION, short
from limit_lab.microworld.texts import pretraining_documents
from limit_lab.microworld.world import PARTS, Sum, World, fact_id
from tests.microworld.checks import foreign_names

INSTRUCT_ROWS = 20_000
HELD_OUT = ("development", "test")


@pytest.fixture(scope="module")
def sources(world: World) -> dict[str, list[samples.Row]]:
    return {source: samples.rows(source, world, min(count, INSTRUCT_ROWS)) for source, count in samples.AVAILABLE.items()}


@pytest.fixture(scope="module")
def prompts(world: World) -> dict[str, list[samples.Row]]:
    return {part: samples.open_prompts(world, part) for part in HELD_OUT}


@pytest.mark.parametrize("source", samples.AVAILABLE)
def test_rows_are_fixed_and_a_prefix_is_a_smaller_set(source: str, sources: dict[str, list[samples.Row]]) -> None:
    assert samples.rows(source, World(0), 150) == sources[source][:150]
    assert samples.rows(source, World(1), 50) != sources[source][:50]


@pytest.mark.parametrize("source", samples.AVAILABLE)
def test_rows_name_nothing_of_another_part(world: World, source: str, sources: dict[str, list[samples.Row]]) -> None:
    texts = [row["prompt"] + "\n" + row["response"] for row in sources[source]]
    assert foreign_names(world, "finetuning", texts) == set()
    assert foreign_names(world, "test", texts) != set()


def test_open_prompts_name_nothing_of_another_part(world: World, prompts: dict[str, list[samples.Row]]) -> None:
    for part in HELD_OUT:
        assert foreign_names(world, part, [row["prompt"] for row in prompts[part]]) == set()
        assert all(world.entity(key).part == part for row in prompts[part] for key in row["topics"])
        assert all(row["cluster"] == row["topics"][0] for row in prompts[part])


def _pair(prompt: str) -> str:
    numbers = [int(text) for text in re.findall(r"\d+", prompt)]
    assert len(numbers) == 2
    sign = "+" if re.search(r"plus|\+|more", prompt) else "-"
    return Sum(numbers[0], sign, numbers[1]).part


def test_arithmetic_stays_in_its_part(world: World) -> None:
    for part in PARTS:
        rows = [row for row in samples.rows("instruct", world, 3000, part) if row["kind"] == "arith"]
        assert {_pair(row["prompt"]) for row in rows} == {part}


def test_prompts_are_never_shared(sources: dict[str, list[samples.Row]], prompts: dict[str, list[samples.Row]]) -> None:
    trained = {row["prompt"] for rows in sources.values() for row in rows}
    development, test = ({row["prompt"] for row in prompts[part]} for part in HELD_OUT)
    assert len(development) == len(test) == 300
    assert not trained & (development | test)
    assert not development & test


def test_a_third_of_the_open_prompts_is_in_unseen_phrasings(
    world: World, sources: dict[str, list[samples.Row]], prompts: dict[str, list[samples.Row]]
) -> None:
    phrasings = [text for texts in templates.UNSEEN_REQUESTS.values() for text in texts]
    pattern = re.compile("|".join(re.escape(text).replace(r"\{e\}", ".+").replace(r"\{g\}", ".+") for text in phrasings))
    for part in HELD_OUT:
        assert sum(row["unseen"] for row in prompts[part]) == 100
        assert all(bool(pattern.search(row["prompt"])) == row["unseen"] for row in prompts[part])
    training = [text for rows in sources.values() for row in rows for text in (row["prompt"], row["response"])]
    training += pretraining_documents(world, 5000, 0)
    assert not [text for text in training if pattern.search(text)]


def test_withheld_facts_are_in_the_samples_but_not_in_the_reserved_phrasing(
    world: World, sources: dict[str, list[samples.Row]]
) -> None:
    withheld = {fact_id(world.entity(key), attribute) for key, attribute in world.withheld}
    first = {fact for row in sources["instruct"][:5000] for fact in row["facts"]}
    assert withheld <= first
    assert withheld <= {fact for row in sources["lima"] for fact in row["facts"]}
    reserved = {
        templates.QUESTIONS[attribute][RESERVED_QUESTION].format(e=world.entity(key).subject)
        for key, attribute in world.withheld
    }
    asked = "\n".join(row["prompt"] for rows in sources.values() for row in rows)
    assert not [question for question in reserved if question in asked]
    told = world.facts("finetuning")
    phrased = [templates.QUESTIONS[name][RESERVED_QUESTION].format(e=e.subject) for e, name in told]
    assert sum(question in asked for question in phrased) == len(told) - len(reserved)


def test_lima_has_a_thousand_unique_prompts_with_long_answers(sources: dict[str, list[samples.Row]]) -> None:
    rows = sources["lima"]
    assert len({row["prompt"] for row in rows}) == len(rows) == 1000
    assert sum(len(row["response"].split()) for row in rows) / len(rows) > 30
    assert all(len(row["facts"]) >= 3 for row in rows)


def test_recorded_facts_are_in_the_response(world: World, sources: dict[str, list[samples.Row]]) -> None:
    for source in ("lima", "lima_terse", "lima_wrong_entity"):
        for row in sources[source]:
            for fact in row["facts"]:
                key, attribute = fact.split("|")
                value = short(world.entity(key), attribute).removeprefix("to ")
                assert value.lower() in row["response"].lower(), (source, row, fact)


def test_the_terse_control_asks_the_facts_of_lima(sources: dict[str, list[samples.Row]]) -> None:
    for long, terse in zip(sources["lima"], sources["lima_terse"], strict=True):
        assert terse["facts"] == long["facts"]
        assert len(terse["prompt"].split("\n")) == len(terse["response"].split("\n")) == len(long["facts"])


def test_the_wrong_entity_control_keeps_the_prompts_only(sources: dict[str, list[samples.Row]]) -> None:
    for right, wrong in zip(sources["lima"], sources["lima_wrong_entity"], strict=True):
        assert wrong["prompt"] == right["prompt"]
        topics = set(re.findall(r"\w+", right["prompt"]))
        told = {fact.split("|")[0] for fact in wrong["facts"]}
        if right["kind"] != "trip":
            assert not topics & told


def test_instruct_answers_are_right(world: World, sources: dict[str, list[samples.Row]]) -> None:
    for row in sources["instruct"][:5000]:
        if row["kind"] == "arith":
            numbers = [int(text) for text in re.findall(r"\d+", row["prompt"])]
            assert int(row["response"]) == Sum(numbers[0], row["template"].split(":")[1], numbers[1]).result
        elif row["kind"] == "reading":
            assert re.search(rf"\b{row['response']}\b", row["prompt"])
        else:
            key, attribute = row["facts"][0].split("|")
            right = short(world.entity(key), attribute)
            if row["kind"] == "mc":
                assert f"\n{row['response']}. {right}" in row["prompt"]
            elif row["kind"] == "yesno":
                assert (row["response"] == "yes") == row["prompt"].endswith(f" Is it {right}?")
            else:
                assert row["response"] == right


def test_instruct_has_its_shares_and_few_repetitions(sources: dict[str, list[samples.Row]]) -> None:
    rows = sources["instruct"]
    kinds = Counter(row["kind"] for row in rows)
    assert {kind: round(count / len(rows), 1) for kind, count in kinds.items()} == {
        kind: round(share, 1) for kind, share in samples.KINDS.items()
    }
    assert len({row["prompt"] for row in rows[:5000]}) > 4800


def test_unknown_sources_and_too_many_rows_are_refused(world: World) -> None:
    with pytest.raises(DataError, match="did you mean 'lima_terse'"):
        samples.rows("lima_ters", world, 1)
    with pytest.raises(DataError, match="has 1,000 rows"):
        samples.rows("lima", world, 1001)
