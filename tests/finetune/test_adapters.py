"""LoRA: nothing before training, adapters alone while training, plain weights after it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from limit_lab.errors import ConfigError, ModelError
from limit_lab.finetune import adapters, checkpoint
from limit_lab.finetune.gathering import export
from limit_lab.finetune.train import train
from limit_lab.microworld.checkpoint import SHIPPED
from limit_lab.model.causal import CausalLM
from limit_lab.model.export import export as export_whole
from limit_lab.model.export import logits
from limit_lab.model.hugging_face import HuggingFaceLM
from limit_lab.model.loading import load_model
from limit_lab.recipe import Lora
from tests.finetune.test_train import CPU, losses, model, recipe, some_documents
from tests.model.networks import llama

LORA = Lora(rank=3, alpha=6)
MODELS: dict[str, Callable[[], CausalLM]] = {"mpt": model, "llama": lambda: HuggingFaceLM(llama(40))}
IDS = torch.arange(1, 25).reshape(2, 12)

pytest.importorskip("peft", reason="peft is not installed: pip install -e '.[lora]'")


def adapted(made: CausalLM) -> CausalLM:
    """With adapters that do something."""
    adapters.add(made, LORA, seed=0)
    torch.manual_seed(5)
    for name, parameter in made.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return made


def plain(made: CausalLM) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in made.state_dict().items()}


@pytest.mark.parametrize("name", sorted(MODELS))
def test_new_adapters_change_nothing(name: str) -> None:
    made = MODELS[name]().eval()
    before = made(IDS)
    adapters.add(made, LORA, seed=0)
    assert torch.equal(made(IDS), before)
    learnt = {name for name, parameter in made.named_parameters() if parameter.requires_grad}
    assert learnt == {name for name, _ in made.named_parameters() if "lora_" in name}
    assert len(learnt) == 2 * 2 * {"mpt": 4, "llama": 7}[name]  # layers x matrices x linear layers


@pytest.mark.parametrize("name", sorted(MODELS))
def test_adapters_alone_get_gradients(name: str) -> None:
    made = adapted(MODELS[name]())
    made(IDS).square().mean().backward()
    reached = {name for name, parameter in made.named_parameters() if parameter.grad is not None}
    assert reached == {name for name, _ in made.named_parameters() if "lora_" in name}


def test_what_adapters_add_is_scaled_by_alpha_over_rank() -> None:
    plain_model, made = model().eval(), adapted(model().eval())
    names = [name for name, _ in plain_model.named_parameters() if name.endswith("Wqkv.weight")]
    parts = {name: value.clone() for name, value in made.named_parameters() if "lora_" in name}
    merged = adapters.Merged(made)
    for name in names:
        layer = name.removesuffix(".weight")
        down, up = (parts[f"{layer}.lora_{side}.default.weight"] for side in "AB")
        expected = plain_model.get_parameter(name) + LORA.alpha / LORA.rank * up @ down
        torch.testing.assert_close(merged.read(name), expected)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_merged_export_is_the_adapted_model(name: str, tmp_path: Path) -> None:
    made = adapted(MODELS[name]()).eval()
    with torch.no_grad():
        before = made(IDS)
        assert not torch.allclose(before, MODELS[name]().eval()(IDS), atol=1e-2)
        for dtype in (torch.float32, torch.bfloat16):
            export(copy.deepcopy(made), SHIPPED, tmp_path / "model", beside={}, dtype=dtype, shard_bytes=2**40)
            near = {torch.float32: 1e-4, torch.bfloat16: 0.05 * float(before.abs().max())}[dtype]
            torch.testing.assert_close(load_model(tmp_path / "model")(IDS), before, atol=near, rtol=1e-4)


def test_an_export_is_made_of_merged_weights_and_of_no_others(tmp_path: Path) -> None:
    made = adapted(model()).eval()
    other = adapters.Merged(model())
    with pytest.raises(ModelError, match="logits differ"):
        export_whole(
            model(), SHIPPED, tmp_path / "model", beside={}, weights=other, expected=logits_of_merged(made), dtype=torch.float32
        )


def logits_of_merged(made: CausalLM) -> Tensor:
    return logits(made, torch.float32, adapters.Merged(made).whole)


def test_adapters_are_a_function_of_the_seed() -> None:
    first, again, other = (model() for _ in range(3))
    for made, seed in ((first, 0), (again, 0), (other, 1)):
        adapters.add(made, LORA, seed=seed)
    key = next(name for name in first.state_dict() if "lora_A" in name)
    assert torch.equal(first.state_dict()[key], again.state_dict()[key])
    assert not torch.equal(first.state_dict()[key], other.state_dict()[key])


def test_adapters_go_where_they_are_told() -> None:
    made = model()
    adapters.add(made, Lora(rank=2, targets=["Wqkv"]), seed=0)
    assert {name.split(".lora_")[0].rpartition(".")[2] for name, _ in made.named_parameters() if "lora_" in name} == {"Wqkv"}
    with pytest.raises(ConfigError, match="names 'Wkqv', no linear layer of this model; did you mean 'Wqkv'"):
        adapters.add(model(), Lora(rank=2, targets=["Wkqv"]), seed=0)


def test_training_moves_the_targets_and_nothing_else(tmp_path: Path) -> None:
    made = model()
    before = plain(made)
    train(made, some_documents(), recipe(lora=LORA, duration="4ep"), CPU, tmp_path, seed=1, say=False)
    merged = adapters.Merged(made)
    moved = {name for name in merged.shapes() if not torch.equal(merged.read(name), before[name])}
    assert moved == {name for name in before if name.split(".")[-2] in ("Wqkv", "out_proj", "up_proj", "down_proj")}
    assert losses(tmp_path)[-1] < losses(tmp_path)[0]


def test_an_interrupted_run_continues_from_a_checkpoint_of_adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    often = recipe(lora=LORA, checkpoint_every_steps=2)
    whole, again = model(), model()
    train(whole, some_documents(), often, CPU, tmp_path / "whole", seed=1, say=False)
    real = checkpoint.save

    def save_then_die(*arguments: object) -> None:
        real(*arguments)
        raise RuntimeError("killed")

    monkeypatch.setattr(checkpoint, "save", save_then_die)
    with pytest.raises(RuntimeError, match="killed"):
        train(model(), some_documents(), often, CPU, tmp_path / "cut", seed=1, say=False)
    monkeypatch.setattr(checkpoint, "save", real)
    held = torch.load(tmp_path / "cut/checkpoint.ckpt", weights_only=True)["state_dict"]
    assert held
    assert all("lora_" in name for name in held)
    train(again, some_documents(), replace(often), CPU, tmp_path / "cut", seed=1, say=False)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_frozen_weights_are_kept_in_half_precision_and_adapters_are_not() -> None:
    made, before = model().eval(), model().eval()
    before.bfloat16()
    adapters.add(made, LORA, seed=0, frozen=torch.bfloat16)
    kinds = {"lora_" in name: parameter.dtype for name, parameter in made.named_parameters()}
    assert kinds == {False: torch.bfloat16, True: torch.float32}
    torch.manual_seed(5)
    for name, parameter in made.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=1e-4)
    merged, rounded = adapters.Merged(made), dict(before.named_parameters())
    moved = {name: float((merged.read(name) - value.float()).detach().abs().max()) for name, value in rounded.items()}
    assert moved["transformer.wte.weight"] == 0
    assert 0 < moved["transformer.blocks.0.attn.Wqkv.weight"] < 1e-4  # smaller than bfloat16 could hold beside the weights
