"""What sources count in the loss: by tokens, by documents, or between the two."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limit_lab.mixture.weights import document_weights, loss_shares
from limit_lab.prompt import Document
from limit_lab.recipe import Loss


def made(source: str, targets: list[int]) -> list[Document]:
    return [Document(ids=[0] * (own + 1), prompt_tokens=1, source=source, row=row) for row, own in enumerate(targets)]


LONG_AND_SHORT = made("long", [90] * 50) + made("short", [10] * 50)


def test_by_tokens_a_source_counts_by_its_targets_and_by_documents_by_their_number() -> None:
    assert loss_shares(LONG_AND_SHORT, Loss()) == pytest.approx({"long": 0.9, "short": 0.1})
    assert loss_shares(LONG_AND_SHORT, Loss(weight="document")) == pytest.approx({"long": 0.5, "short": 0.5})


def test_the_papers_micro_batches_lie_between_the_two() -> None:
    few = loss_shares(LONG_AND_SHORT, Loss(weight="paper_microbatch", microbatch=4))["short"]
    many = loss_shares(LONG_AND_SHORT, Loss(weight="paper_microbatch", microbatch=20))["short"]
    assert 0.1 < many < few < 0.5
    alone = loss_shares(LONG_AND_SHORT, Loss(weight="paper_microbatch", microbatch=1))
    assert alone == pytest.approx({"long": 0.5, "short": 0.5})


@given(
    targets=st.lists(st.integers(1, 400), min_size=1, max_size=40),
    weight=st.sampled_from(["token", "document", "paper_microbatch"]),
)
def test_a_step_weighs_one_in_all(targets: list[int], weight: str) -> None:
    documents = made("a", targets[::2]) + made("b", targets[1::2])
    weights = document_weights(documents, Loss(weight=weight, microbatch=4))
    assert sum(own * one.targets for own, one in zip(weights, documents, strict=True)) == pytest.approx(1)
    assert sum(loss_shares(documents, Loss(weight=weight, microbatch=4)).values()) == pytest.approx(1)
