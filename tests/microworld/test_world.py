"""The world: the same for the same seed, in parts that nothing connects."""

from __future__ import annotations

import pytest

from limit_lab.errors import ConfigError
from limit_lab.microworld import templates
from limit_lab.microworld.world import ATTRIBUTES, PARTS, SUMS, Entity, World, alternatives, answer, sums


def _described(world: World) -> list[tuple[object, ...]]:
    return [
        (entity.name, entity.part, *(answer(name, entity.facts[name]) for name in ATTRIBUTES[entity.type]))
        for entity in world.entities()
    ]


def test_a_seed_names_one_world() -> None:
    first, second, other = World(0), World(0), World(1)
    assert _described(first) == _described(second)
    assert first.withheld == second.withheld
    assert first.injection == second.injection
    assert _described(first) != _described(other)


@pytest.mark.parametrize("seed", range(3))
def test_no_relation_crosses_parts(seed: int) -> None:
    world = World(seed)
    for entity, attribute in world.facts():
        value = entity.facts[attribute]
        if isinstance(value, Entity):
            assert value.part == entity.part
            assert value.type == templates.RELATIONS[attribute]
            assert value in world.entities(entity.part)


def test_the_parts_have_their_countries_with_thirteen_entities_each(world: World) -> None:
    assert {part: len(world.entities(part)) for part in PARTS} == {part: 13 * count for part, count in PARTS.items()}
    assert {part: len(world.entities(part, "country")) for part in PARTS} == PARTS


def test_names_are_unique_and_foreign_to_the_templates(world: World) -> None:
    keys = [entity.key.lower() for entity in world.entities()] + [name.lower() for name in world.passers()]
    assert len(set(keys)) == len(keys)
    assert not {key for key in keys if key in repr(vars(templates)["LOOSE_SENTENCES"]).lower().split()}


def test_a_quarter_of_the_pool_facts_of_the_fine_tuning_part_is_withheld(world: World) -> None:
    pooled = [(entity, name) for entity, name in world.facts("finetuning") if name in templates.POOLS]
    assert len(world.withheld) == round(0.25 * len(pooled))
    assert {world.entity(key).part for key, _ in world.withheld} == {"finetuning"}
    assert all(attribute in templates.POOLS for _, attribute in world.withheld)


def test_withheld_facts_are_split_by_entity(world: World) -> None:
    development, test = world.injected("development"), world.injected("test")
    assert not {entity.key for entity, _ in development} & {entity.key for entity, _ in test}
    assert {(entity.key, name) for entity, name in development + test} == world.withheld
    assert min(len(development), len(test)) > len(world.withheld) // 4


def test_alternatives_are_never_right_and_stay_in_the_part(world: World) -> None:
    names = {part: {entity.name for entity in world.entities(part)} for part in PARTS}
    for entity, attribute in world.facts():
        others = alternatives(world, entity, attribute)
        assert answer(attribute, entity.facts[attribute]) not in others
        assert len(others) >= 3
        if attribute in templates.RELATIONS:
            assert set(others) <= names[entity.part]


def test_every_pair_of_numbers_belongs_to_one_part() -> None:
    keys = [{item.key for item in sums(part)} for part in PARTS]
    assert sum(map(len, keys)) == len(set().union(*keys))
    assert sum(len(sums(part)) for part in PARTS) == len(SUMS)
    assert min(len(sums(part)) for part in PARTS) > 30


def test_an_unknown_part_is_refused(world: World) -> None:
    with pytest.raises(ConfigError, match="no part 'evaluation'"):
        world.entities("evaluation")
