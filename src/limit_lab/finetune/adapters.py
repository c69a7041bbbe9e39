"""Low-rank adapters (LoRA, Hu et al. 2021) through peft: put beside the linear layers, merged into them after training."""

from __future__ import annotations

import torch
from torch import nn

from limit_lab.errors import ConfigError, ModelError, did_you_mean
from limit_lab.model.causal import CausalLM
from limit_lab.recipe import Lora


def add(model: CausalLM, lora: Lora, *, seed: int) -> None:
    """Freeze the weights of ``model`` and put an adapter that still adds nothing beside each of the targets.

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


def linear(model: CausalLM) -> dict[str, nn.Module]:
    """The linear layers by name, but for the vocabulary projection (Conv1D is what GPT-2 calls them)."""
    from transformers.pytorch_utils import Conv1D

    vocabulary = {id(matrix) for matrix in model.vocabulary()}
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and id(module.weight) not in vocabulary
    }


@torch.no_grad()
def merge(model: CausalLM) -> None:
    """Add every adapter to the weights beside it and take it out: ``model`` has its own modules again."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]
    for name, layer in layers:
        layer.merge()
        parent, _, own = name.rpartition(".")
        model.get_submodule(parent).register_module(own, layer.get_base_layer())
    model.requires_grad_(True)
