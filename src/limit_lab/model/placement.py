"""A model for reading on one device, or its blocks spread over several of one process: hidden states move along."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limit_lab.errors import ModelError
from limit_lab.layout import places
from limit_lab.model.causal import CausalLM
from limit_lab.model.loading import is_mpt, load_model, map_mpt


def load_on(folder: Path, devices: Sequence[torch.device]) -> CausalLM:
    """The folder's model in float32, for reading, on ``devices``.

    An MPT is read straight from its files into the devices; transformers' models pass through host memory.
    Raises: ModelError as `load_model` and `place` do.
    """
    if {device.type for device in devices} == {"cpu"} and len(devices) == 1:
        return load_model(folder)
    model = map_mpt(folder) if is_mpt(folder) else load_model(folder)
    place(model, devices)
    if len(devices) > 1 and not is_mpt(folder):
        _try(model, folder)
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
            # what `to` does, without the parts inside
            part._apply(partial(_read, device=devices[0]), recurse=False)  # type: ignore[no-untyped-call]
    for block, number in zip(blocks, plan, strict=True):
        block.to(devices[number], torch.float32)
        if len(devices) > 1:
            _take_along(block, devices[number])
    if len(devices) > 1:
        blocks[-1].register_forward_hook(lambda block, given, out: _moved(out, devices[0]))
    return plan


def _read(value: Tensor, device: torch.device) -> Tensor:
    return value.to(device, torch.float32) if value.is_floating_point() else value.to(device)


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


def _try(model: CausalLM, folder: Path) -> None:
    """Raises: ModelError when a spread model of transformers fails or gives other logits when it is padded or cached."""
    from limit_lab.model.hugging_face import HuggingFaceLM, verify

    assert isinstance(model, HuggingFaceLM)
    try:
        verify(model, folder)
    except RuntimeError as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{folder} holds a {model.network.config.model_type!r} model, which does not run spread over devices ({reason}): "
            "use devices that hold all of it."
        ) from error
