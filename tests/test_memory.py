"""GiB by term against numbers worked out by hand for MPT-7B and 30B, and against what one device and DeepSpeed hold."""

from __future__ import annotations

from dataclasses import replace

import pytest

from limit_lab.compose import compose
from limit_lab.config import Hardware
from limit_lab.memory import GIB, Memory, activations, device, host, largest, logits, peak
from limit_lab.recipe import Finetune, Lora
from limit_lab.shapes import Shape, shape_of

RECIPE = Finetune(name="r", batch="48doc", max_seq_tokens=2048)
EIGHT = Hardware(name="h", accelerator="gpu", devices=8, strategy="zero3", micro_batch="1doc", recompute=True)
ONE = replace(EIGHT, devices=1, strategy="single")


def shape(name: str) -> Shape:
    return shape_of(compose([f"model={name}"]).model)


def turn(shape: Shape, recipe: Finetune, hardware: Hardware) -> Memory:
    return device(shape, recipe, hardware)[0]


@pytest.mark.parametrize(
    ("name", "strategy", "gib"),
    [
        ("mpt_7b", "zero3", 12.4),
        ("mpt_7b", "zero2", 23.2),
        ("mpt_7b", "zero1", 34.1),
        ("mpt_30b", "zero3", 55.8),
        ("mpt_30b", "zero2", 104.6),
        ("mpt_30b", "zero1", 153.0),
    ],
)
def test_what_zero_leaves_on_each_of_eight_devices(name: str, strategy: str, gib: float) -> None:
    assert turn(shape(name), RECIPE, replace(EIGHT, strategy=strategy)).states == pytest.approx(gib, rel=0.005)


@pytest.mark.parametrize(("name", "weights", "optimizer"), [("mpt_7b", 12.4, 74.3), ("mpt_30b", 55.8, 334.8)])
def test_zero_on_one_device_holds_sixteen_bytes_a_parameter(name: str, weights: float, optimizer: float) -> None:
    held = turn(shape(name), RECIPE, replace(EIGHT, devices=1))
    assert (held.weights, held.gradients) == (pytest.approx(weights, rel=0.005), pytest.approx(weights, rel=0.005))
    assert held.optimizer == pytest.approx(optimizer, rel=0.005)
    assert "gathered weights" not in held.terms


@pytest.mark.parametrize(
    ("name", "tokens", "inputs", "block"),
    [("mpt_7b", 2048, 0.50, 0.25), ("mpt_30b", 2048, 1.31, 0.44), ("mpt_30b", 8192, 5.3, 1.75)],
)
def test_recomputation_keeps_the_inputs_of_the_blocks_and_one_live_block(
    name: str, tokens: int, inputs: float, block: float
) -> None:
    model, recipe = shape(name), replace(RECIPE, max_seq_tokens=tokens)
    found = activations(model, recipe, EIGHT) / GIB
    live = found - 2 * model.n_layers * model.d_model * tokens / GIB
    assert found - live == pytest.approx(inputs, rel=0.02)
    assert live == pytest.approx(block, rel=0.25)  # the estimate counts 32 bytes a channel, and no float32 inputs of norms
    assert activations(model, recipe, replace(EIGHT, recompute=False)) / GIB == pytest.approx(live * model.n_layers)


def test_one_device_holds_float32_and_autocasts_copies() -> None:
    model = shape("mpt_7b")
    held, end, step = device(model, RECIPE, ONE)
    assert held.terms["weights"] == held.gradients == pytest.approx(4 * model.parameters / GIB)
    assert held.terms["bf16 copies"] == pytest.approx(2 * model.parameters / GIB)
    assert held.terms["optimizer states"] == pytest.approx(8 * model.parameters / GIB)
    assert "bf16 copies" not in turn(model, replace(RECIPE, precision="fp32"), ONE).terms
    # torch's fused AdamW on a GPU holds nothing beside the states
    assert "update" not in step.terms
    assert step.states == pytest.approx(16 * model.parameters / GIB)
    assert peak(model, RECIPE, ONE) == max(held, end, step, key=lambda one: one.total)


@pytest.mark.parametrize(
    ("optimizer", "accelerator", "copies"), [("adamw", "cpu", 2), ("lionw", "cpu", 1), ("lionw", "gpu", 1)]
)
def test_updates_of_one_tensor_at_a_time_take_copies_of_the_largest(optimizer: str, accelerator: str, copies: int) -> None:
    model, at = shape("mpt_7b"), replace(ONE, accelerator=accelerator)
    step = device(model, replace(RECIPE, optimizer=optimizer), at)[2]
    assert largest(model) == 50432 * 4096
    assert step.terms["update"] == pytest.approx(copies * 4 * 50432 * 4096 / GIB)


def test_ddp_copies_the_gradients_into_its_buckets() -> None:
    held = turn(shape("mpt_7b"), RECIPE, replace(EIGHT, strategy="ddp"))
    assert held.terms["buckets"] == held.gradients


def test_zero3_updates_a_sub_group_at_a_time() -> None:
    model, alone = shape("mpt_7b"), replace(EIGHT, devices=1, sub_group_elements=500_000_000)
    step = device(model, RECIPE, alone)[2]
    assert step.terms["gradients in float32"] == pytest.approx(4 * 5e8 / GIB)
    lion = device(model, replace(RECIPE, optimizer="lionw"), alone)[2]
    assert lion.terms["update"] == pytest.approx(4 * 5e8 / GIB)
    whole = device(model, RECIPE, replace(alone, sub_group_elements=10**12))[2]
    assert whole.terms["gradients in float32"] == pytest.approx(24.8, rel=0.005)


def test_zero_gathers_the_live_weights_and_fills_buckets() -> None:
    held = turn(shape("mpt_7b"), RECIPE, replace(EIGHT, bucket_elements=100_000_000))
    assert held.terms["gathered weights"] == pytest.approx(2 * (2 * 1e8 + 50432 * 4096) / GIB)
    assert held.terms["buckets"] == pytest.approx(2 * 2 * 1e8 / GIB)
    small = turn(shape("mpt_125m"), RECIPE, EIGHT)
    assert small.terms["gathered weights"] == pytest.approx(2 * shape("mpt_125m").parameters / GIB)


def test_offloading_moves_the_optimizer_to_the_host() -> None:
    model, at = shape("mpt_30b"), replace(EIGHT, offload="optimizer")
    held = turn(model, RECIPE, at)
    assert (held.optimizer, held.gradients) == (0.0, 0.0)
    assert held.states == held.weights == pytest.approx(55.8 / 8, rel=0.005)
    training = host(model, RECIPE, at)[1]
    assert training.terms["master weights"] + training.terms["optimizer states"] == pytest.approx(334.8, rel=0.005)
    assert training.terms["gradients in float32"] == pytest.approx(4 * model.parameters / GIB)
    halves = host(model, RECIPE, replace(at, nodes=2))[1]
    assert halves.terms["master weights"] == training.terms["master weights"] / 2


def test_adapters_leave_the_weights_in_bf16_once_a_device_or_divided() -> None:
    model, recipe = shape("mpt_30b"), replace(RECIPE, lora=Lora(rank=16))
    whole, parts = turn(model, recipe, ONE), turn(model, recipe, EIGHT)
    assert whole.weights == pytest.approx(55.8, rel=0.005)
    assert parts.weights == whole.weights / 8
    own = 16 * 16 * 7168 * 48
    assert whole.terms["adapters"] == whole.gradients == pytest.approx(4 * own / GIB)
    assert parts.gradients == pytest.approx(2 * own / 8 / GIB)


def test_logits_by_chunks_need_the_matrix_in_bf16_beside_them() -> None:
    model, small = shape("mpt_7b"), replace(ONE, logits_at_once=512)
    assert logits(model, RECIPE, replace(ONE, logits_at_once=2048)) == 12 * 2048 * 50432
    matrix = 50432 * 4096
    assert logits(model, RECIPE, small) == 6 * 512 * 50432 + (2 + 2) * matrix
    assert logits(model, replace(RECIPE, freeze_embeddings=True), small) == 6 * 512 * 50432 + 2 * matrix
    assert logits(model, RECIPE, replace(EIGHT, logits_at_once=512)) == 12 * 512 * 50432


def test_the_projections_gradient_waits_for_the_embeddings() -> None:
    model, one = shape("mpt_7b"), 4 * 50432 * 4096 / GIB
    turning, end, _ = device(model, RECIPE, ONE)
    assert turning.terms["vocabulary's gradients"] == pytest.approx(one)
    assert end.terms["vocabulary's gradients"] == pytest.approx(3 * one)
    assert "activations" not in end.terms
    frozen = device(model, replace(RECIPE, freeze_embeddings=True), ONE)
    assert not any("vocabulary's gradients" in held.terms for held in frozen)


def test_attention_with_a_bias_costs_the_square_of_the_width() -> None:
    model, one = shape("mpt_7b"), 32 * 2048**2
    on_cpu = replace(ONE, accelerator="cpu", micro_batch="3doc")
    fused, mask, auto = (activations(model, RECIPE, replace(on_cpu, attention=name)) for name in ("flex", "mask", "auto"))
    assert mask - fused == 3 * one * (4 + 2)  # a bias for every row, and a copy in bf16 for the layer that computes
    assert auto - fused == one * (4 + 3 * 2)  # one bias for all, and the scores of that layer
    kept, none = (activations(model, RECIPE, replace(on_cpu, attention=name, recompute=False)) for name in ("auto", "flex"))
    assert kept - none == one * (4 + 3 * 2 * 32)


def test_a_30b_is_exported_from_zero3_within_64_gib() -> None:
    loading, _, export = host(shape("mpt_30b"), RECIPE, replace(EIGHT, devices=1))
    assert loading.total < 64
    assert export.total < 64


@pytest.mark.parametrize("kind", ["mpt", "llama"])
def test_no_host_holds_the_model_of_a_gpu(kind: str) -> None:
    for recipe in (RECIPE, replace(RECIPE, lora=Lora(rank=16))):
        phases = host(replace(shape("mpt_7b"), kind=kind), recipe, replace(EIGHT, strategy="ddp"))
        assert not any("model" in held.terms for held in phases)
    on_cpu = host(shape("mpt_7b"), RECIPE, replace(EIGHT, strategy="ddp", accelerator="cpu"))
    assert on_cpu[0].terms["model"] == pytest.approx(8 * 4 * 6.649e9 / GIB)


def test_only_a_gpu_has_a_context() -> None:
    assert "context and slack" not in turn(shape("micro"), RECIPE, replace(ONE, accelerator="cpu")).terms
    assert turn(shape("micro"), RECIPE, ONE).terms["context and slack"] >= 1.0
