"""Greedy decoding in batches that are refilled: the tokens of every prompt by itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from limit_lab.gauntlet.decoding import greedy
from limit_lab.model.causal import CausalLM
from limit_lab.model.hugging_face import HuggingFaceLM
from limit_lab.model.mpt import MPT
from tests.model.networks import NETWORKS, grouped


def alone(model: CausalLM, prompt: list[int], max_new_tokens: int, eos: int) -> list[int]:
    """Greedy decoding without cache, padding or batch."""
    ids = list(prompt)
    while len(ids) < len(prompt) + max_new_tokens:
        with torch.inference_mode():
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
        if ids[-1] == eos:
            break
    return ids[len(prompt) :]


@pytest.mark.parametrize("batch_tokens", [1, 40, 1000])
def test_batches_of_uneven_prompts_with_rows_that_end(toy_model: MPT, batch_tokens: int) -> None:
    prompts = [[5], [7, 8, 9, 10], [3, 4] * 6, [11, 200, 31]]
    free = [alone(toy_model, prompt, 8, eos=-1) for prompt in prompts]
    eos = free[2][3]
    wanted = [alone(toy_model, prompt, 8, eos) for prompt in prompts]
    assert len({len(tokens) for tokens in wanted}) > 1
    assert greedy(toy_model, prompts, max_new_tokens=8, eos=eos, batch_tokens=batch_tokens) == wanted


@pytest.mark.parametrize("kind", ["mpt", "llama", "windows"])
@pytest.mark.parametrize("before", [(), tuple(range(40))])
@pytest.mark.parametrize("batch_tokens", [60, 200, 2000])
def test_a_queue_of_prompts_is_each_by_itself(kind: str, before: tuple[int, ...], batch_tokens: int, toy_model: MPT) -> None:
    if kind == "mpt":
        model: CausalLM = toy_model
    elif kind == "llama":
        model = HuggingFaceLM(NETWORKS["llama"]())
    else:
        model = HuggingFaceLM(grouped("mistral", sliding_window=3))
        model.shares = False
    prompts = [[*before, *((3 * at + 5 * step) % 50 for step in range(1 + at % 7))] for at in range(20)]
    free = [alone(model, prompt, 8, eos=-1) for prompt in prompts]
    eos = free[2][3]
    wanted = [alone(model, prompt, 8, eos) for prompt in prompts]
    assert len({len(tokens) for tokens in wanted}) > 1
    assert greedy(model, prompts, max_new_tokens=8, eos=eos, batch_tokens=batch_tokens) == wanted


def test_finished_rows_make_room_and_what_prompts_share_is_read_once(toy_model: MPT, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    hidden = toy_model.hidden

    def watched(ids: Tensor, **more: Any) -> Tensor:
        shapes.append(tuple(ids.shape))
        return hidden(ids, **more)

    monkeypatch.setattr(toy_model, "hidden", watched)
    before = tuple(range(40))
    prompts = [[*before, at] for at in range(8)]
    ended = [alone(toy_model, prompt, 4, eos=-1) for prompt in prompts]
    shapes.clear()
    stop = ended[0][0]  # the first row ends at once
    written = greedy(toy_model, prompts, max_new_tokens=4, eos=stop, batch_tokens=45 * 4)
    assert [tokens[:1] == [stop] for tokens in written].count(True) >= 1
    assert shapes[0] == (1, 40), "the tokens that all share"
    assert shapes[1] == (4, 1), "four prompts at a time, of which one token is their own"
    assert (len([own for own in written if own[0] == stop and own in written[:4]]), 1) in shapes, "the next take their places"


def test_what_is_enough_ends_a_row(toy_model: MPT) -> None:
    prompts = [[5, 6], [7, 8, 9]]
    whole = [alone(toy_model, prompt, 6, eos=-1) for prompt in prompts]
    found = greedy(
        toy_model, prompts, max_new_tokens=6, eos=-1, batch_tokens=100, enough=lambda written: written[-1] == whole[0][2]
    )
    assert found[0] == whole[0][: whole[0].index(whole[0][2]) + 1]
    assert whole[1][: len(found[1])] == found[1]
