"""Answers equal transformers' greedy ones, and depend on nothing but the model, the prompt, its index and the seed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import TopKLogitsWarper, TopPLogitsWarper

from limit_lab.model.answering import Decoding, _choose, answer
from limit_lab.model.mpt import MPT
from tests.model.oracle import SHAPE, SHAPES, oracle, random_ids, random_model

GREEDY = Decoding(max_new_tokens=14)
SAMPLED = Decoding(max_new_tokens=14, temperature=0.8, top_p=0.9, top_k=20, seed=5)
PROMPTS = [random_ids(length, seed=length).tolist() for length in (7, 2, 12, 3, 7, 1, 9)]


@pytest.fixture(scope="module")
def model() -> MPT:
    return random_model(replace(SHAPE, max_seq_len=16))


@pytest.fixture(scope="module")
def eos(model: MPT) -> int:
    """A token that ends some of the greedy answers early and leaves others to run on."""
    free = answer(model, PROMPTS, SHAPE.vocab_size - 1, GREEDY, batch=1)
    return next(
        token
        for token in range(SHAPE.vocab_size)
        if sum(token in ids[1:-1] for ids in free) > 0 and any(token not in ids for ids in free)
    )


@pytest.mark.parametrize("shape", ["six heads", "clip_qkv", "softmax_scale"])
def test_greedy_answers_of_other_shapes_are_those_of_transformers(shape: str) -> None:
    model = random_model(SHAPES[shape])
    never = SHAPE.vocab_size - 1
    made = [theirs_of(model, prompt, never)[: GREEDY.max_new_tokens] for prompt in PROMPTS]
    assert answer(model, PROMPTS, never, GREEDY, batch=3) == made


def theirs_of(model: MPT, prompt: list[int], eos: int) -> list[int]:
    ids = torch.tensor([prompt])
    made = oracle(model).generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=14, do_sample=False, eos_token_id=eos, pad_token_id=eos
    )
    found: list[int] = made[0, len(prompt) :].tolist()
    return found


def test_greedy_answers_are_those_of_transformers(model: MPT, eos: int) -> None:
    theirs, expected = oracle(model, max_seq_len=64), []
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        made = theirs.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=GREEDY.max_new_tokens,
            do_sample=False,
            eos_token_id=eos,
            pad_token_id=eos,
        )
        expected.append(made[0, len(prompt) :].tolist())
    assert answer(model, PROMPTS, eos, GREEDY, batch=3) == expected


@pytest.mark.parametrize("decoding", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("batch", [2, 3, 7, 100])
def test_answers_do_not_depend_on_the_batch_size(model: MPT, eos: int, decoding: Decoding, batch: int) -> None:
    assert answer(model, PROMPTS, eos, decoding, batch=batch) == answer(model, PROMPTS, eos, decoding, batch=1)


@pytest.mark.parametrize("decoding", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_an_answer_does_not_depend_on_the_other_prompts(model: MPT, eos: int, decoding: Decoding) -> None:
    whole = answer(model, PROMPTS, eos, decoding, batch=3)
    reordered = [PROMPTS[0], PROMPTS[1], *reversed(PROMPTS[2:])]
    assert answer(model, reordered, eos, decoding, batch=3)[:2] == whole[:2]
    assert answer(model, PROMPTS[:3], eos, decoding, batch=3) == whole[:3]


def test_greedy_answers_follow_their_prompts(model: MPT, eos: int) -> None:
    assert answer(model, PROMPTS[::-1], eos, GREEDY, batch=3) == answer(model, PROMPTS, eos, GREEDY, batch=3)[::-1]


def test_the_same_prompt_is_sampled_from_a_stream_of_its_own(model: MPT, eos: int) -> None:
    made = answer(model, [PROMPTS[0]] * 5, eos, SAMPLED, batch=5)
    assert len({tuple(ids) for ids in made}) == 5
    assert made == answer(model, [PROMPTS[0]] * 5, eos, SAMPLED, batch=2)
    assert made != answer(model, [PROMPTS[0]] * 5, eos, replace(SAMPLED, seed=6), batch=5)


def test_an_answer_ends_with_its_first_eos_or_at_the_limit(model: MPT, eos: int) -> None:
    free = answer(model, PROMPTS, SHAPE.vocab_size - 1, GREEDY, batch=1)
    for ids, unbounded in zip(answer(model, PROMPTS, eos, GREEDY, batch=4), free, strict=True):
        end = unbounded.index(eos) + 1 if eos in unbounded else GREEDY.max_new_tokens
        assert ids == unbounded[:end]


@pytest.mark.parametrize("limit", [1, 2, 30])
def test_max_new_tokens_cuts_and_changes_nothing_before(model: MPT, limit: int) -> None:
    never = SHAPE.vocab_size - 1
    made = answer(model, PROMPTS, never, replace(GREEDY, max_new_tokens=limit), batch=4)
    assert [len(ids) for ids in made] == [limit] * len(PROMPTS)
    longer = answer(model, PROMPTS, never, replace(GREEDY, max_new_tokens=31), batch=4)
    assert made == [ids[:limit] for ids in longer]


def test_no_prompts_no_answers(model: MPT) -> None:
    assert answer(model, [], 0, GREEDY, batch=4) == []


def drawn(scores: torch.Tensor, decoding: Decoding, n: int) -> list[int]:
    stream = torch.Generator().manual_seed(0)
    return [_choose(scores, decoding, stream) for _ in range(n)]


SHARES = torch.tensor([0.1, 0.4, 0.05, 0.3, 0.15])
ANY = Decoding(max_new_tokens=1, temperature=1.0)


@pytest.mark.parametrize(
    ("decoding", "left"),
    [
        (ANY, {0, 1, 2, 3, 4}),
        (replace(ANY, top_k=1), {1}),
        (replace(ANY, top_k=3), {1, 3, 4}),
        (replace(ANY, top_k=99), {0, 1, 2, 3, 4}),
        (replace(ANY, top_p=0.01), {1}),
        (replace(ANY, top_p=0.6), {1, 3}),
        (replace(ANY, top_p=0.8), {1, 3, 4}),
        (replace(ANY, top_k=2, top_p=0.5), {1}),  # top_p is taken of what top_k leaves
        (replace(ANY, temperature=0.2, top_p=0.9), {1, 3}),  # and of the tempered scores
        (replace(ANY, temperature=0.0), {1}),
    ],
    ids=str,
)
def test_top_k_and_top_p_leave_exactly_these(decoding: Decoding, left: set[int]) -> None:
    assert set(drawn(SHARES.log(), decoding, 300)) == left


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_with_their_tempered_probability(temperature: float) -> None:
    n = 4000
    counts = torch.bincount(torch.tensor(drawn(SHARES.log(), replace(ANY, temperature=temperature), n)), minlength=5)
    expected = SHARES ** (1 / temperature) / (SHARES ** (1 / temperature)).sum()
    assert ((counts / n - expected).abs() < 4 * (expected * (1 - expected) / n).sqrt()).all()


@given(
    st.lists(st.integers(-40, 40), min_size=2, max_size=12, unique=True),
    st.integers(1, 12),
    st.sampled_from([0.1, 0.45, 0.8, 0.95]),
    st.integers(0, 9),
)
def test_nothing_is_drawn_that_transformers_would_cut(tenths: list[int], top_k: int, top_p: float, seed: int) -> None:
    scores = torch.tensor(tenths) / 10
    cut = TopPLogitsWarper(top_p)(None, TopKLogitsWarper(top_k)(None, scores[None]))[0]
    stream = torch.Generator().manual_seed(seed)
    token = _choose(scores, replace(ANY, top_k=top_k, top_p=top_p), stream)
    assert cut[token] > -torch.inf
