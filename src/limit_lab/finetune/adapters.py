"""Low-rank adapters (LoRA, Hu et al. 2021) through peft: put beside the linear layers, added to them in an export."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from limit_lab.errors import ConfigError, ModelError, did_you_mean
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
    """The weights of a model whose adapters are taken out, each with what its adapter adds: float32, one at a time.

    Raises: ModelError when files hold an adapted weight otherwise than memory does.
    """

    def __init__(self, model: CausalLM) -> None:
        self.adapters = dict(_take_out(model))
        self.held = model.weights()
        if missing := len(self.adapters.keys() - set(map(id, self.held.values()))):
            raise ModelError(
                f"files hold {missing} of the adapted weights otherwise than memory does: choose other finetune.lora.targets."
            )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(value.shape) for name, value in self.held.items()}

    def read(self, name: str) -> Tensor:
        return self.whole(self.held[name])

    @torch.no_grad()
    def whole(self, weight: Tensor) -> Tensor:
        """A weight of the model with what its adapter, if it has one, adds: float32."""
        adapter = self.adapters.get(id(weight))
        return weight.float() if adapter is None else weight.float() + adapter.get_delta_weight("default").float()


def adapted(model: nn.Module) -> bool:
    """Whether adapters stand beside its layers."""
    return any("lora_A" in name for name, _ in model.named_modules())


def _take_out(model: nn.Module) -> Iterator[tuple[int, Any]]:
    """Put every adapted layer back in its place; yields the adapters by the identity of the weights that they add to."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in [(name, module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]:
        own = layer.get_base_layer()
        model.set_submodule(name, own)
        yield id(own.weight), layer
