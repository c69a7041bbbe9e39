"""The base model where a strategy wants it: in this process's memory, on its device, or in pieces among the ranks."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from limit_lab.config import Finetune, Hardware
from limit_lab.errors import ModelError
from limit_lab.finetune import strategies
from limit_lab.model.attention import alibi_slopes
from limit_lab.model.causal import CausalLM
from limit_lab.model.loading import is_mpt, load_model, map_model, mpt_weights
from limit_lab.model.mpt import MPT


def load(base: Path, hardware: Hardware, recipe: Finetune) -> CausalLM:
    """The model of the folder ``base``, ready to be trained.

    An MPT goes from its files straight to a GPU, in float32, or in the compute dtype under ZeRO and where only adapters learn.
    Under ZeRO-3 every rank keeps its piece of each weight as soon as it is read, so that no process ever holds the whole model.
    Raises: ModelError as `load_model` does, and for a model that ZeRO-3 cannot load in pieces.
    """
    if strategies.stage(hardware) == 3:
        return _in_pieces(base, hardware, recipe)
    if hardware.accelerator == "cpu":
        return load_model(base)
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if not is_mpt(base):  # transformers' models are tried on the host first
        return load_model(base).to(device)
    halved = recipe.precision == "bf16" and (strategies.stage(hardware) or recipe.lora.rank)
    return map_model(base).requires_grad_(True).to(device=device, dtype=torch.bfloat16 if halved else torch.float32)


def _in_pieces(base: Path, hardware: Hardware, recipe: Finetune) -> MPT:
    if not is_mpt(base):
        raise ModelError(
            f"hardware.strategy=zero3 loads an MPT in pieces, and {base} holds another model: use hardware.strategy=zero2, or "
            "ddp with finetune.lora.rank=16."
        )
    strategies.quiet_deepspeed()
    import deepspeed

    deepspeed.init_distributed("nccl" if hardware.accelerator == "gpu" else "gloo", timeout=strategies.PATIENCE, verbose=False)
    config, weights = mpt_weights(base)
    # by its configuration, for Init ignores its argument dtype where there is no float16 (DeepSpeed 0.19.8, on CPUs)
    settings = strategies.zero_config(hardware) | {"bf16": {"enabled": recipe.precision == "bf16"}}
    with deepspeed.zero.Init(config_dict_or_path=settings):
        model = MPT(config)
    model.slopes = alibi_slopes(config.n_heads).to(model.device)
    for name, parameter in model.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0), torch.no_grad():
            if strategies.rank() == 0:
                parameter.copy_(weights[name])
    return model.eval()
