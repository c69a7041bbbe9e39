"""A model spread over devices: each block where the plan says, the same logits. ``meta`` stands for a second device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from limit_lab.errors import ModelError
from limit_lab.layout import places
from limit_lab.microworld.checkpoint import SHIPPED
from limit_lab.model.answering import Decoding, answer
from limit_lab.model.causal import CausalLM
from limit_lab.model.hugging_face import HuggingFaceLM
from limit_lab.model.loading import load_model
from limit_lab.model.placement import load_on, move, place
from tests.model.networks import gpt_neox, llama
from tests.model.oracle import random_ids, random_model

CPU, META = torch.device("cpu"), torch.device("meta")
FAMILIES: dict[str, Callable[[], CausalLM]] = {
    "mpt": random_model,
    "llama": lambda: HuggingFaceLM(llama(17)),
    "tied": lambda: HuggingFaceLM(llama(17, tied=True)),
    "gpt_neox": lambda: HuggingFaceLM(gpt_neox(17)),
}
PROMPTS = [[5, 6, 7], [8, 9], [10, 11, 12, 13]]


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> CausalLM:
    made = FAMILIES[request.param]()
    return made.requires_grad_(False).eval()


def test_blocks_lie_where_the_plan_says_and_all_else_on_the_first(model: CausalLM) -> None:
    blocks = model.blocks()
    sizes = [sum(value.numel() for value in block.parameters()) for block in blocks]
    rest = sum(value.numel() for value in model.parameters()) - sum(sizes)
    plan = place(model, [CPU, META])
    assert plan == places(sizes, rest, 2)
    assert set(plan) == {0, 1}
    for block, index in zip(blocks, plan, strict=True):
        assert {value.device for value in (*block.parameters(), *block.buffers())} <= {[CPU, META][index]}
    inside = {id(value) for block in blocks for value in (*block.parameters(), *block.buffers())}
    outside = [value for value in (*model.parameters(), *model.buffers()) if id(value) not in inside]
    assert outside
    assert {value.device for value in outside} == {CPU}
    assert {value.dtype for value in model.parameters()} == {torch.float32}


def test_what_a_block_is_given_moves_to_its_device(model: CausalLM) -> None:
    last, given = model.blocks()[-1], []
    watch = last.register_forward_pre_hook(lambda _, args, named: given.append((args, named)), with_kwargs=True)
    model(random_ids(2, 5) % 17)
    watch.remove()
    place(model, [CPU, META])
    args, named = given[0]
    arrived: list[Any] = []
    last.register_forward_pre_hook(lambda _, args, named: arrived.append((args, named)), with_kwargs=True)
    last._forward_hooks.clear()  # the way back to the first device, which holds nothing here
    assert last(*args, **named).device == META
    assert arrived[0][0][0].device == META


def test_a_spread_model_gives_the_same_logits_and_answers(model: CausalLM) -> None:
    ids = random_ids(2, 9) % 17
    decoding = Decoding(max_new_tokens=6, temperature=0.7, seed=1)
    with torch.inference_mode():
        logits, answers = model(ids), answer(model, PROMPTS, 3, decoding, batch=2)
        place(model, [CPU, CPU])
        assert torch.equal(model(ids), logits)
        assert answer(model, PROMPTS, 3, decoding, batch=2) == answers


def test_a_folder_is_read_onto_several_devices() -> None:
    ids = random_ids(2, 9)
    with torch.inference_mode():
        assert torch.equal(load_on(SHIPPED, [CPU, CPU])(ids), load_model(SHIPPED)(ids))


def test_a_folder_of_another_family_is_read_and_tried_on_several_devices(tmp_path: Path) -> None:
    llama(17).save_pretrained(tmp_path)
    ids = random_ids(2, 9) % 17
    with torch.inference_mode():
        assert torch.equal(load_on(tmp_path, [CPU, CPU])(ids), load_model(tmp_path)(ids))
    with pytest.raises(ModelError, match=r"holds a model that does not run spread over devices \(.*hold all of it"):
        load_on(tmp_path, [CPU, META])


def test_weights_that_are_rounded_leave_the_buffers_as_they_are(model: CausalLM) -> None:
    for buffer in model.buffers():
        buffer.mul_(1.001)  # which bfloat16 cannot hold
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    assert before
    assert all(bool((buffer.bfloat16().float() != buffer).all()) for buffer in before.values())
    for part in model.modules():
        move(part, CPU, torch.bfloat16)
    assert {value.dtype for value in model.parameters()} == {torch.bfloat16}
    assert {name for name, buffer in model.named_buffers() if torch.equal(buffer, before[name])} == before.keys()


def test_a_family_that_does_not_tell_its_blocks_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model()
    monkeypatch.setattr(type(model), "blocks", lambda self: [])
    assert place(model, [CPU]) == []
    with pytest.raises(ModelError, match="does not tell its blocks apart"):
        place(model, [CPU, CPU])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_hidden_states_move_between_a_gpu_and_the_host(model: CausalLM) -> None:
    ids = random_ids(2, 9) % 17
    decoding = Decoding(max_new_tokens=6)
    with torch.inference_mode():
        logits, answers = model(ids), answer(model, PROMPTS, 3, decoding, batch=2)
        plan = place(model, [torch.device("cuda", 0), CPU])
        assert {next(block.parameters()).device.type for block in model.blocks()} == {"cuda", "cpu"}
        assert set(plan) == {0, 1}
        torch.testing.assert_close(model(ids.cuda()).cpu(), logits, atol=1e-4, rtol=1e-4)
        assert answer(model, PROMPTS, 3, decoding, batch=2) == answers
