"""Batches: what a step takes, how it is packed, and that nothing is lost or seen twice."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limit_lab.durations import Batch
from limit_lab.errors import ConfigError, DataError
from limit_lab.finetune.batches import IGNORE, Batches, pack
from limit_lab.mixture.packing import first_fit
from limit_lab.mixture.weights import document_weights
from limit_lab.prompt import Document
from limit_lab.recipe import Loss
from tests.finetune.test_train import some_documents

EIGHT = Batch(amount=8, unit="doc")


def made(n: int = 21, **changes: object) -> Batches:
    settings: dict[str, object] = {"steps": 6, "batch": EIGHT, "micro_batch": 8, "capacity": 32, "seed": 0}
    return Batches(some_documents(n), **settings | changes)  # type: ignore[arg-type]


def test_labels_are_the_response_and_its_end_only() -> None:
    batch = pack([Document(ids=[5, 6, 7, 8, 9], prompt_tokens=3, source="x", row=0)], [0.5], 8, 2)
    assert batch.labels.tolist() == [[IGNORE, IGNORE, 8, 9, IGNORE]]
    assert batch.weights.tolist() == [[0.0, 0.0, 0.5, 0.5, 0.0]]


def test_a_document_without_a_prompt_starts_with_its_second_token() -> None:
    batch = pack([Document(ids=[5, 6, 7], prompt_tokens=0, source="x", row=0)], [1.0], 8, 2)
    assert batch.labels.tolist() == [[6, 7, IGNORE]]


def test_padded_rows_hold_one_document_and_have_the_full_length() -> None:
    documents = some_documents(5)
    batch = pack(documents, [1.0] * 5, 32, 1, padded=True)
    assert batch.ids.shape == (5, 32)
    assert (batch.document >= 0).sum(1).tolist() == [len(one.ids) for one in documents]


@pytest.mark.parametrize("batch", [EIGHT, Batch(amount=64, unit="tok")], ids=["documents", "tokens"])
def test_an_epoch_takes_every_document_once_in_another_order(batch: Batch) -> None:
    batches = made(batch=batch)
    epoch = batches.steps_per_epoch
    first, second = ([one.row for step in range(start, start + epoch) for one in batches.of_step(step)] for start in (0, epoch))
    assert sorted(first) == sorted(second) == list(range(21))
    assert first != second
    assert first == [one.row for step in range(epoch) for one in made(batch=batch).of_step(step)]
    assert first != [one.row for step in range(epoch) for one in made(batch=batch, seed=1).of_step(step)]


def test_the_partial_batch_is_trained_or_dropped() -> None:
    assert [len(made().of_step(step)) for step in range(4)] == [8, 8, 5, 8]
    dropped = made(drop_last=True)
    assert dropped.steps_per_epoch == 2
    assert [len(dropped.of_step(step)) for step in range(4)] == [8] * 4
    with pytest.raises(DataError, match="5 documents fill no batch of 8doc"):
        made(5, drop_last=True)


@given(st.integers(1, 9), st.sampled_from(["doc", "tok"]), st.booleans())
def test_micro_batches_hold_the_step_and_their_weights_sum_to_one(micro: int, unit: str, padded: bool) -> None:
    batches = made(micro_batch=micro, batch=Batch(amount=8 if unit == "doc" else 90, unit=unit), padded=padded)
    for step in (0, batches.steps_per_epoch - 1):
        parts = [batches[step * batches.accumulation + part] for part in range(batches.accumulation)]
        documents = batches.of_step(step)
        assert sum(int((part.document >= 0).sum()) for part in parts) == sum(len(one.ids) for one in documents)
        assert sum(float(part.weights.sum()) for part in parts) == pytest.approx(1)
        assert {part.targets for part in parts} == {sum(int((part.labels != IGNORE).sum()) for part in parts)}
        assert all(len(part.document.unique()) - int((part.document < 0).any()) <= micro for part in parts)


def test_batches_in_tokens_are_packed_over_the_epoch() -> None:
    batches = made(60, batch=Batch(amount=128, unit="tok"))
    tokens = [sum(len(one.ids) for one in batches.of_step(step)) for step in range(batches.steps_per_epoch)]
    assert sum(tokens) == sum(len(one.ids) for one in batches.documents)
    assert max(tokens) <= 128 + 32
    assert min(tokens) >= 64


def test_rows_are_shuffled_after_packing() -> None:
    """First-fit fills early rows with what is small, so rows in the order they were opened would not be alike."""
    batches = made(60, batch=Batch(amount=32, unit="tok"), steps=40)
    lengths = [len(one.ids) for one in batches.documents]
    order = list(range(60))
    random.Random("order:0:0").shuffle(order)
    opened = [[order[place] for place in row] for row in first_fit([lengths[index] for index in order], 32)]
    steps = batches.of_epoch(0)
    places = [number for row in opened for number, step in enumerate(steps) if set(row) <= set(step)]
    assert len(places) == len(opened)
    assert places != sorted(places)


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        ("token", [1 / 9] * 3),  # 2 + 6 + 1 targets
        ("document", [1 / 6, 1 / 18, 1 / 3]),
        ("paper_microbatch", [2 / 3 / 8, 2 / 3 / 8, 1 / 3]),  # two documents that shared a mean, and one
    ],
)
def test_what_a_target_counts(weight: str, expected: list[float]) -> None:
    documents = [Document(ids=list(range(3 + own)), prompt_tokens=3, source="x", row=0) for own in (2, 6, 1)]
    batches = Batches(
        documents,
        steps=1,
        batch=EIGHT,
        micro_batch=8,
        capacity=64,
        seed=0,
        loss=Loss(weight=weight, microbatch=2),
    )
    batches.of_epoch(0)
    batches._epoch = (0, [[0, 1, 2]])
    found = batches[0]
    assert [float(found.weights[found.document == index].max()) for index in range(3)] == pytest.approx(expected)


def test_the_micro_batches_of_the_paper_end_with_their_device() -> None:
    """48 documents on 8 devices are 6 on each, which micro-batches of 4 cut into 4 and 2."""
    documents = [Document(ids=list(range(2 + row)), prompt_tokens=1, source="x", row=row) for row in range(48)]
    found = document_weights(documents, Loss(weight="paper_microbatch", microbatch=4, devices=8))
    for device in range(8):
        for start, size in ((6 * device, 4), (6 * device + 4, 2)):
            own = documents[start : start + size]
            share = size / 48 / sum(one.targets for one in own)
            assert found[start : start + size] == pytest.approx([share] * size)


def test_a_step_may_have_fewer_documents_than_devices() -> None:
    documents = [Document(ids=list(range(3 + row)), prompt_tokens=1, source="x", row=row) for row in range(3)]
    found = document_weights(documents, Loss(weight="paper_microbatch", devices=8))
    assert found == pytest.approx(document_weights(documents, Loss(weight="document")))


def test_batches_as_values() -> None:
    assert Batch.parse("48doc", name="x") == Batch(amount=48, unit="doc")
    assert Batch.parse("9ktok", name="x") == Batch(amount=9000, unit="tok")
    for text in ("0doc", "48", "1.5doc", "doc"):
        with pytest.raises(ConfigError, match=f"x='{text}' is no batch"):
            Batch.parse(text, name="x")


def test_positions_without_a_document_are_marked() -> None:
    batch = made()[0]
    nothing = batch.document == -1
    assert bool(nothing.any())
    assert bool((batch.labels[nothing] == IGNORE).all())
    assert bool((batch.weights[nothing] == 0).all())
    assert torch.equal(batch.weights > 0, batch.labels != IGNORE)
