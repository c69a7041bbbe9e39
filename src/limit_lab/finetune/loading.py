"""The base model where a strategy wants it: in this process's memory, on its device, or in pieces among the ranks."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from limit_lab.config import Finetune, Hardware
from limit_lab.errors import ModelError
from limit_lab.finetune import pieces, strategies
from limit_lab.model.causal import CausalLM
from limit_lab.model.loading import accept, check_config, load_model, map_model
from limit_lab.model.placement import move


def load(base: Path, hardware: Hardware, recipe: Finetune) -> CausalLM:
    """The model of the folder ``base``, ready to be trained.

    Its weights go from the files straight to a GPU, in float32, or in the compute dtype under ZeRO and where only adapters
    learn. Under ZeRO-3 every rank keeps its piece of each weight as soon as it is read, so that no process ever holds the
    whole model. Raises: ModelError as `load_model` does, and for a model whose pieces could not be exported.
    """
    if hardware.zero_stage < 3 and hardware.accelerator == "cpu":
        return load_model(base)
    check_config(base)
    model = map_model(base).requires_grad_(True)
    if hardware.zero_stage:
        _require_own(model, base)
    divided = hardware.zero_stage or recipe.lora.rank
    dtype = torch.bfloat16 if recipe.precision == "bf16" and divided else torch.float32
    if hardware.zero_stage == 3:
        _cut(model, hardware, recipe, dtype)
    else:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        for part in model.modules():
            move(part, device, dtype)
    with pieces.in_float32(model):
        accept(model, base)
    return model


def _cut(model: CausalLM, hardware: Hardware, recipe: Finetune, dtype: torch.dtype) -> None:
    strategies.quiet_deepspeed()
    import deepspeed

    deepspeed.init_distributed("nccl" if hardware.accelerator == "gpu" else "gloo", timeout=strategies.PATIENCE, verbose=False)
    settings = strategies.zero_config(hardware) | {"bf16": {"enabled": recipe.precision == "bf16"}}
    pieces.cut(model, settings, dtype)


def _require_own(model: CausalLM, base: Path) -> None:
    """Raises: ModelError when files hold other tensors than memory does, for an export of pieces reads these one by one."""
    held = {id(value) for value in (*model.parameters(), *model.buffers())}
    for name, value in model.weights().items():
        if id(value) not in held:
            raise ModelError(
                f"{base} keeps {name!r} in its files otherwise than in memory, and ZeRO hands over what lies in memory: use "
                "hardware.strategy=ddp."
            )
