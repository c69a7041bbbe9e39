"""Low-rank adapters (LoRA, Hu et al. 2021) through peft: put beside the linear layers, added to them in an export."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from limit_lab.errors import ConfigError, ModelError, did_you_mean
from limit_lab.finetune.pieces import master, whole_shape
from limit_lab.model.causal import CausalLM
from limit_lab.recipe import Lora


def add(model: CausalLM, lora: Lora, *, seed: int, frozen: torch.dtype = torch.float32) -> None:
    """Freeze the weights of ``model``, kept as ``frozen``, and put an adapter that adds nothing yet beside each target.

    In bfloat16 the weights take half the memory, and those of a float32 checkpoint are rounded; adapters stay in float32.
    Raises: ModelError without peft; ConfigError for a target that names no linear layer of the model.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
        from transformers.pytorch_utils import Conv1D
    except ImportError as error:
        raise ModelError(f"finetune.lora.rank={lora.rank} needs peft: pip install peft, or use rank 0.") from error

    found = linear(model)
    names = {name.rpartition(".")[2] for name in found}
    for target in lora.targets:
        if target not in names:
            raise ConfigError(
                f"finetune.lora.targets names {target!r}, no linear layer of this model{did_you_mean(target, names)}"
            )
    chosen = [name for name in found if not lora.targets or name.rpartition(".")[2] in lora.targets]
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=0.0,  # a run is a function of its seeds
        target_modules=chosen,
        fan_in_fan_out=any(isinstance(found[name], Conv1D) for name in chosen),
    )
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model)
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if own and not list(module.children()) and not any(parameter.requires_grad for parameter in own):
            module.to(frozen)


def linear(model: CausalLM) -> dict[str, nn.Module]:
    """The linear layers by name, but for the vocabulary projection (Conv1D is what GPT-2 calls them)."""
    from transformers.pytorch_utils import Conv1D

    vocabulary = {id(matrix) for matrix in model.vocabulary()}
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and id(module.weight) not in vocabulary
    }


class Merged:
    """The weights of a trained model, each with what its adapter, if it has one, adds: float32, one at a time.

    Takes the adapters out. Raises: ModelError when files hold an adapted weight otherwise than memory does.
    """

    def __init__(self, model: CausalLM) -> None:
        self.adapters = dict(_take_out(model))
        self.held = model.weights()
        if missing := len(self.adapters.keys() - set(map(id, self.held.values()))):
            raise ModelError(
                f"files hold {missing} of the adapted weights otherwise than memory does: choose other finetune.lora.targets."
            )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: whole_shape(value) for name, value in self.held.items()}

    def read(self, name: str) -> Tensor:
        return self.whole(self.held[name])

    @torch.no_grad()
    def whole(self, weight: Tensor) -> Tensor:
        """The float32 values of a weight; under ZeRO every rank must ask for it."""
        values, adapter = master(weight), self.adapters.get(id(weight))
        if adapter is None:
            return values
        down, up = (master(parts["default"].weight) for parts in (adapter.lora_A, adapter.lora_B))
        added: Tensor = adapter.scaling["default"] * (up @ down)
        return values + (added.T if adapter.fan_in_fan_out else added)


def _take_out(model: nn.Module) -> Iterator[tuple[int, Any]]:
    """Put every adapted layer back in its place; yields the adapters by the identity of the weights that they add to."""
    adapted = [name for name, _ in model.named_modules() if name.endswith(".lora_A")]
    for name in (name.removesuffix(".lora_A") for name in adapted):
        layer: Any = model.get_submodule(name)
        model.set_submodule(name, layer.get_base_layer())
        yield id(layer.get_base_layer().weight), layer
