"""A model for reading on one device, or its blocks spread over several of one process: hidden states move along."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limit_lab.errors import ModelError
from limit_lab.layout import places
from limit_lab.model.causal import CausalLM
from limit_lab.model.loading import accept, check_config, load_model, map_model


def load_on(folder: Path, devices: Sequence[torch.device]) -> CausalLM:
    """The folder's model in float32, for reading, on ``devices``.

    Its weights go from the files straight to a device that is no CPU.
    Raises: ModelError as `load_model` and `place` do.
    """
    if {device.type for device in devices} == {"cpu"} and len(devices) == 1:
        return load_model(folder)
    check_config(folder)
    model = map_model(folder)
    place(model, devices)
    try:
        accept(model, folder)
    except RuntimeError as error:
        if len(devices) == 1:
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{folder} holds a model that does not run spread over devices ({reason}): use devices that hold all of it."
        ) from error
    return model


def place(model: CausalLM, devices: Sequence[torch.device]) -> list[int]:
    """Move ``model`` to ``devices`` in float32: its blocks in order, all else to the first; returns each block's device.

    Raises: ModelError when the model does not tell its blocks and there is more than one device.
    """
    blocks = model.blocks()
    if not blocks and len(devices) > 1:
        raise ModelError("this model does not tell its blocks apart, so it cannot be spread: use devices that hold all of it.")
    sizes = [sum(value.numel() for value in block.parameters()) for block in blocks]
    inside = {id(part) for block in blocks for part in block.modules()}
    plan = places(sizes, sum(value.numel() for value in model.parameters()) - sum(sizes), len(devices))
    for part in model.modules():
        if id(part) not in inside:
            move(part, devices[0], torch.float32)
    for block, number in zip(blocks, plan, strict=True):
        block.to(devices[number], torch.float32)
        if len(devices) > 1:
            _take_along(block, devices[number])
    if len(devices) > 1:
        blocks[-1].register_forward_hook(lambda block, given, out: _moved(out, devices[0]))
    return plan


def move(part: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Move what ``part`` holds itself, without the parts inside: weights as ``dtype``, buffers as they are."""
    for weight in part.parameters(recurse=False):
        weight.data = weight.data.to(device, dtype)
    for name, buffer in part.named_buffers(recurse=False):
        part._buffers[name] = buffer.to(device)


def _take_along(block: nn.Module, device: torch.device) -> None:
    """Have all tensors that a block is called with moved to where its weights lie."""

    def move(block: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return tuple(_moved(value, device) for value in given), {key: _moved(value, device) for key, value in named.items()}

    block.register_forward_pre_hook(move, with_kwargs=True)


def _moved(value: Any, device: torch.device) -> Any:
    """The tensors of a value, alone or in a tuple; what else a block takes (caches, ways to attend) moves by itself."""
    if isinstance(value, Tensor):
        return value.to(device)
    return tuple(_moved(part, device) for part in value) if type(value) is tuple else value
