"""The loss: in chunks as in one piece, and the same whatever the hardware cuts a step into."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from limit_lab.durations import Batch
from limit_lab.finetune.batches import Batches, MicroBatch, pack
from limit_lab.finetune.loss import target_loss
from limit_lab.finetune.module import batch_loss
from limit_lab.model.mpt import MPT
from limit_lab.recipe import Loss
from tests.finetune.test_train import model, some_documents


def everything(documents: int = 21) -> MicroBatch:
    several = some_documents(documents)
    return pack(several, [0.5 + row / documents for row in range(documents)], 32, 1)


def gradients(made: MPT) -> dict[str, Tensor]:
    return {name: value.grad.clone() for name, value in made.named_parameters() if value.grad is not None}


def test_packed_documents_cannot_see_one_another() -> None:
    made, documents = model().eval(), some_documents()
    packed = batch_loss(made, everything(), at_once=4096)
    weights = [0.5 + row / 21 for row in range(21)]
    parts = [pack([one], [weight], 32, 1) for one, weight in zip(documents, weights, strict=True)]
    apart = sum(batch_loss(made, part, at_once=4096) for part in parts)
    assert everything().ids.shape[0] < len(documents)
    torch.testing.assert_close(packed, apart, atol=5e-5, rtol=1e-5)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("at_once", [1, 7, 64])
def test_chunks_give_the_loss_and_gradients_of_the_whole(at_once: int, frozen: bool) -> None:
    found = {}
    for size in (4096, at_once):
        made = model()
        made.transformer.wte.weight.requires_grad_(not frozen)
        loss = batch_loss(made, everything(), at_once=size) * 0.3
        loss.backward()
        found[size] = loss.detach(), gradients(made)
    whole, parts = found[4096], found[at_once]
    torch.testing.assert_close(parts[0], whole[0], rtol=1e-6, atol=0)
    assert parts[1].keys() == whole[1].keys()
    assert ("transformer.wte.weight" in parts[1]) is not frozen
    for name, value in whole[1].items():
        torch.testing.assert_close(parts[1][name], value, rtol=1e-4, atol=1e-5 * float(value.abs().max()), msg=name)


def test_chunks_under_autocast_are_as_exact_as_the_whole() -> None:
    made, batch = model(), everything()
    exact = batch_loss(made, batch, at_once=4096).detach()
    with torch.autocast("cpu", torch.bfloat16):
        whole, parts = (batch_loss(made, batch, at_once=size) for size in (4096, 16))
    parts.backward()
    assert parts.dtype == torch.float32
    assert made.transformer.wte.weight.grad is not None
    assert made.transformer.wte.weight.grad.dtype == torch.float32
    assert abs(float(parts.detach() - exact)) < 2 * abs(float(whole.detach() - exact)) + 1e-3 * float(exact)


def test_nothing_is_kept_for_the_backward_pass_of_an_evaluation() -> None:
    made, batch = model(), everything()
    with torch.no_grad():
        loss = batch_loss(made, batch, at_once=4)
    assert loss.grad_fn is None
    torch.testing.assert_close(loss, batch_loss(made, batch, at_once=4096).detach())


@pytest.mark.parametrize("weight", ["token", "document", "paper_microbatch"])
def test_a_step_has_one_loss_and_gradient_however_it_is_cut(weight: str) -> None:
    found = []
    for micro in (16, 5, 1):
        made = model()
        batches = Batches(
            some_documents(),
            steps=1,
            batch=Batch(amount=16, unit="doc"),
            micro_batch=micro,
            capacity=32,
            seed=0,
            loss=Loss(weight=weight, microbatch=3),
        )
        loss = sum((batch_loss(made, batches[part], at_once=4096) for part in range(batches.accumulation)), torch.zeros(()))
        loss.backward()
        found.append((float(loss.detach()), gradients(made)))
    for loss, own in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-6)
        for name, value in found[0][1].items():
            torch.testing.assert_close(own[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_a_document_counts_by_its_mean_when_documents_are_weighted() -> None:
    made, documents = model().eval(), some_documents(4)
    batches = Batches(
        documents,
        steps=1,
        batch=Batch(amount=4, unit="doc"),
        micro_batch=4,
        capacity=32,
        seed=0,
        loss=Loss(weight="document"),
    )
    means = []
    for one in documents:
        logits = made(torch.tensor([one.ids]))[0]
        means.append(F.cross_entropy(logits[one.prompt_tokens - 1 : -1], torch.tensor(one.ids[one.prompt_tokens :])))
    torch.testing.assert_close(batch_loss(made, batches[0], at_once=4096), torch.stack(means).mean())


def test_a_model_that_does_more_than_project_is_never_cut() -> None:
    class Scaled(MPT):
        def projection(self) -> Tensor:
            return None  # type: ignore[return-value]

    made = Scaled(model().config)
    made.load_state_dict(model().state_dict())
    states, targets, weights = torch.randn(9, 16), torch.arange(9), torch.full((9,), 1 / 9)
    expected = target_loss(model(), states, targets, weights, at_once=100)
    torch.testing.assert_close(target_loss(made, states, targets, weights, at_once=2), expected)
