"""Our MPT against transformers' on the same weights, and what ours adds: packing, long contexts, a cache."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import MptForCausalLM

from limit_lab.errors import ModelError
from limit_lab.model.attention import BACKENDS, alibi_slopes
from limit_lab.model.mpt import MPT
from tests.model.oracle import SHAPE, SHAPES, oracle, random_ids, random_model

Pair = tuple[MPT, MptForCausalLM]
WIDTH = 24
PADS = (0, 5, 17)


@pytest.fixture(scope="module", params=SHAPES.values(), ids=SHAPES.keys())
def pair(request: pytest.FixtureRequest) -> Pair:
    model = random_model(request.param)
    return model, oracle(model)


def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    assert theirs.abs().max() > 0.5, "logits this small would agree whatever the mathematics"
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)


def left_padded(ids: Tensor) -> tuple[Tensor, Tensor]:
    """The rows shifted right by ``PADS``, and which positions hold them."""
    real = torch.arange(WIDTH)[None] >= torch.tensor(PADS)[:, None]
    shifted = [torch.cat([torch.zeros(pad, dtype=torch.long), row[: WIDTH - pad]]) for row, pad in zip(ids, PADS, strict=True)]
    return torch.stack(shifted), real


def test_plain_logits(pair: Pair) -> None:
    ids = random_ids(3, WIDTH)
    close(pair[0](ids), pair[1](ids).logits)


def test_right_padded_logits_need_no_mask(pair: Pair) -> None:
    ids = random_ids(3, WIDTH)
    real = torch.arange(WIDTH)[None] < WIDTH - torch.tensor(PADS)[:, None]
    close(pair[0](ids)[real], pair[1](ids, attention_mask=real.long()).logits[real])


def test_left_padded_logits(pair: Pair) -> None:
    ids, real = left_padded(random_ids(3, WIDTH))
    ours = pair[0].logits(pair[0].hidden(ids, left_pad=torch.tensor(PADS)))
    close(ours[real], pair[1](ids, attention_mask=real.long()).logits[real])


def test_padding_changes_nothing(pair: Pair) -> None:
    ids, _ = left_padded(random_ids(3, WIDTH))
    padded = pair[0].logits(pair[0].hidden(ids, left_pad=torch.tensor(PADS)))
    for row, pad in enumerate(PADS):
        close(padded[row, pad:], pair[0](ids[row : row + 1, pad:])[0])


@pytest.mark.parametrize("chunks", [[1] * WIDTH, [10, 1, 1, 12]], ids=["token by token", "in chunks"])
def test_the_cache_equals_the_full_pass(pair: Pair, chunks: list[int]) -> None:
    ids, real = left_padded(random_ids(3, WIDTH))
    left_pad, cache = torch.tensor(PADS), pair[0].new_cache()
    steps = [pair[0].logits(pair[0].hidden(part, left_pad=left_pad, cache=cache)) for part in ids.split(chunks, 1)]
    assert cache.tokens == WIDTH
    close(torch.cat(steps, 1)[real], pair[1](ids, attention_mask=real.long()).logits[real])


def test_the_cache_keeps_the_rows_it_is_told_to(pair: Pair) -> None:
    ids, cache = random_ids(3, WIDTH), pair[0].new_cache()
    pair[0].hidden(ids[:, :10], cache=cache)
    kept = torch.tensor([2, 0])
    cache.select(kept)
    close(pair[0].logits(pair[0].hidden(ids[kept, 10:], cache=cache)), pair[0](ids[kept])[:, 10:])


def test_a_sequence_may_be_longer_than_the_pretraining_context() -> None:
    model, ids = random_model(), random_ids(2, 3 * SHAPE.max_seq_len)
    close(model(ids), oracle(model, max_seq_len=ids.shape[1])(ids).logits, 2e-5)


LENGTHS = (9, 4, 11)
OWNER = torch.tensor([[document for document, length in enumerate(LENGTHS) for _ in range(length)]])


@pytest.mark.parametrize("backend", BACKENDS)
def test_packed_documents_give_the_logits_of_separate_ones(pair: Pair, backend: str) -> None:
    ids = random_ids(1, WIDTH)
    pair[0].run(attention=backend, recompute=False)
    apart = torch.cat([pair[1](part).logits for part in ids.split(LENGTHS, 1)], 1)
    close(pair[0](ids, document=OWNER), apart, 5e-5)
    assert (pair[0](ids) - apart).abs().max() > 0.1, "without their index the documents do see one another"


@pytest.mark.parametrize(
    ("backend", "recompute"), [("mask", False), ("documents", False), ("documents", True), ("varlen", True)]
)
def test_packed_documents_give_the_gradients_of_separate_ones(pair: Pair, backend: str, recompute: bool) -> None:
    model, ids = random_model(pair[0].config).requires_grad_(), random_ids(1, WIDTH)
    model.run(attention=backend, recompute=recompute)

    def gradients(*losses: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(sum(losses, torch.zeros(())), list(model.parameters())))

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(logits[0], targets[0], reduction="sum") / WIDTH

    targets = random_ids(1, WIDTH, seed=2)
    packed = gradients(loss(model(ids, document=OWNER), targets))
    parts = zip(ids.split(LENGTHS, 1), targets.split(LENGTHS, 1), strict=True)
    apart = gradients(*(loss(model(part), target) for part, target in parts))
    assert all(gradient.abs().max() > 1e-3 for gradient in apart)
    torch.testing.assert_close(packed, apart, atol=5e-5, rtol=0)


@pytest.mark.parametrize("backend", ["documents", "varlen", "flex"])
def test_rows_with_padding_between_their_documents(backend: str) -> None:
    model, ids = random_model(), random_ids(2, 8)
    owner = torch.tensor([[2, 2, 2, 0, 0, -1, -1, -1], [1, 3, 3, 3, 3, 3, 3, -1]])
    model.run(attention="mask", recompute=False)
    expected = model(ids, document=owner)
    model.run(attention=backend, recompute=False)
    found = model.hidden(ids, document=owner)
    close(model.logits(found)[owner >= 0], expected[owner >= 0], 5e-5)
    assert not found[owner < 0].any()


def test_an_unknown_back_end_is_refused() -> None:
    model = random_model()
    model.run(attention="flash9", recompute=False)
    with pytest.raises(ModelError, match=r"hardware\.attention='flash9' is unknown: use auto, mask, documents, varlen, flex"):
        model(random_ids(1, 4), document=torch.zeros(1, 4, dtype=torch.long))


def test_a_bf16_model_reads_left_padded_rows() -> None:
    model, (ids, real) = random_model(), left_padded(random_ids(3, WIDTH))
    exact = model.logits(model.hidden(ids, left_pad=torch.tensor(PADS)))
    rough = model.bfloat16().logits(model.hidden(ids, left_pad=torch.tensor(PADS))).float()
    assert (rough - exact)[real].abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize(("heads", "expected"), [(2, [2**-4, 2**-8]), (3, [2**-4, 2**-8, 2**-2]), (1, [2**-8])])
def test_alibi_slopes(heads: int, expected: list[float]) -> None:
    assert alibi_slopes(heads).tolist() == expected


def test_initial_weights_depend_on_the_seed_and_shrink_residual_projections() -> None:
    one, again, other = MPT(SHAPE), MPT(SHAPE), MPT(SHAPE)
    one.initialise(1), again.initialise(1), other.initialise(2)
    for name, value in one.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
        assert torch.equal(value, other.state_dict()[name]) == ("norm" in name), name
    assert one.transformer.wte.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert one.transformer.blocks[0].ffn.down_proj.weight.std().item() == pytest.approx(0.01, rel=0.1)
