"""Weights of which every rank of ZeRO-3 holds a piece: cut, made whole for a moment, measured."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from limit_lab.finetune.strategies import rank, stage_of, total
from limit_lab.model.causal import CausalLM


def cut(model: nn.Module, settings: dict[str, Any], dtype: torch.dtype) -> None:
    """Cut the weights of ``model``, one after another as ``dtype``, and keep this rank's piece of each.

    Nobody holds more than one of them whole, where they are mapped from files. Every rank calls this with the same model and
    DeepSpeed configuration ``settings``.
    """
    import deepspeed

    first, *others = model.parameters()
    first.data = first.data.to(dtype, copy=True)  # what is mapped from a file must not be written to
    deepspeed.zero.Init(module=nn.ParameterList([first]), config_dict_or_path=settings)
    for parameter in others:
        parameter.data = parameter.data.to(dtype, copy=True)
        vars(first)["convert_to_zero_parameters"](param_list=[parameter])


@contextmanager
def whole(parameter: Tensor) -> Iterator[Tensor]:
    """The values of one parameter wherever its pieces lie; every rank must ask for it."""
    if not is_cut(parameter):
        yield parameter.detach()
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters([parameter]):
        yield parameter.detach()


@contextmanager
def in_float32(model: nn.Module) -> Iterator[None]:
    """Within, each module of ``model`` computes in float32 with its weights made whole just before it runs, and let go after.

    Every rank must run the same modules.
    """
    own = {module: list(module.named_parameters(recurse=False)) for module in model.modules()}
    running: dict[nn.Module, ExitStack] = {}

    def before(module: nn.Module, given: object) -> None:
        running[module] = ExitStack()
        for name, parameter in own[module]:
            values = running[module].enter_context(whole(parameter))
            running[module].callback(module.register_parameter, name, parameter)
            module.register_parameter(name, nn.Parameter(values.float(), requires_grad=False))

    def after(module: nn.Module, given: object, out: object) -> None:
        running.pop(module).close()

    with ExitStack() as stack:
        for module in [module for module, held in own.items() if held]:
            stack.callback(module.register_forward_pre_hook(before).remove)
            stack.callback(module.register_forward_hook(after).remove)
        try:
            yield
        finally:  # a forward pass that failed left its module open
            for module in list(running):
                running.pop(module).close()


def master(parameter: Tensor) -> Tensor:
    """The float32 values of one parameter; under ZeRO its master copy, gathered, so every rank must ask for it."""
    if is_divided(parameter):
        from deepspeed.utils import safe_get_full_fp32_param

        found: Tensor | None = safe_get_full_fp32_param(parameter)
        if found is not None:
            return found.detach()
    with whole(parameter) as value:
        return value.float().clone()


def whole_shape(parameter: Tensor) -> tuple[int, ...]:
    """The shape of a parameter, wherever its pieces lie."""
    return tuple(vars(parameter).get("ds_shape", parameter.shape))


def is_cut(parameter: Tensor) -> bool:
    """Whether ranks hold pieces of it."""
    return "ds_id" in vars(parameter)


def is_divided(parameter: Tensor) -> bool:
    """Whether ranks hold pieces of it or of its master copy."""
    return is_cut(parameter) or "_hp_mapping" in vars(parameter)  # None on a rank that holds no piece of it


def gather_head(model: CausalLM) -> None:
    """Have the vocabulary's matrix gathered around the head, which uses it without owning it."""
    matrix = model.projection()
    if isinstance(matrix, nn.Parameter) and is_cut(matrix):
        import deepspeed

        deepspeed.zero.register_external_parameter(model.head, matrix)


def weights_norm(trainer: pl.Trainer, module: pl.LightningModule) -> float:
    """Norm of the weights that this rank holds, summed over the ranks where they hold different ones."""
    held = float(torch.nn.utils.get_total_norm([_own(parameter) for parameter in module.parameters()])) ** 2
    if stage_of(trainer.strategy) < 3:
        return math.sqrt(held)
    return math.sqrt(total(trainer, torch.tensor(held, dtype=torch.float64)))


def _own(parameter: Tensor) -> Tensor:
    """The values of a parameter that this rank holds; the last ranks' pieces end in padding, which has no values."""
    if not is_cut(parameter):
        return parameter.detach()
    piece: Tensor = vars(parameter)["ds_tensor"]
    every = int(vars(parameter)["ds_numel"])
    return piece.detach()[: max(0, every - rank() * piece.numel())]
