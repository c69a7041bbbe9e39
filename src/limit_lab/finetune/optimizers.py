"""The optimizers of a recipe: AdamW, and LionW as the 30B runs of LIMIT used it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from limit_lab.recipe import Finetune


def optimizer_of(recipe: Finetune, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """The recipe's optimizer. torch's AdamW equals Mosaic's DecoupledAdamW, which LIMIT used, where weight_decay is 0.

    On a GPU AdamW is torch's fused one: the other holds another 4 bytes a parameter while it takes a step.
    """
    parameters = list(parameters)
    betas, rate = (recipe.betas[0], recipe.betas[1]), recipe.learning_rate
    if recipe.optimizer == "lionw":
        return LionW(parameters, lr=rate, betas=betas, weight_decay=recipe.weight_decay)
    fused = bool(parameters) and all(parameter.is_cuda for parameter in parameters)
    return AdamW(parameters, lr=rate, betas=betas, eps=recipe.eps, weight_decay=recipe.weight_decay, fused=fused or None)


class LionW(Optimizer):
    """Lion (Chen et al. 2023, Algorithm 2): a step of ``lr`` in every weight, by the sign of an interpolated momentum.

    Weight decay is decoupled from the learning rate as in Mosaic's DecoupledLionW: weights shrink by ``weight_decay * lr /
    initial lr`` a step, so Algorithm 2's lambda is ``weight_decay / initial lr``. Holds one moment a weight, in its dtype.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], *, lr: float, betas: tuple[float, float], weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, {"lr": lr, "initial_lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient; one at a time, so that no second copy of all is held."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            shrink = group["weight_decay"] * group["lr"] / group["initial_lr"]
            for parameter in group["params"]:
                if parameter.grad is not None:
                    if not self.state[parameter]:
                        self.state[parameter]["moment"] = torch.zeros_like(parameter)
                    _update(parameter, parameter.grad, self.state[parameter]["moment"], group["lr"], group["betas"], shrink)
        return loss


def _update(weight: Tensor, gradient: Tensor, moment: Tensor, rate: float, betas: tuple[float, float], shrink: float) -> None:
    if shrink:
        weight.mul_(1 - shrink)
    weight.add_(moment.lerp(gradient, 1 - betas[0]).sign_(), alpha=-rate)
    moment.lerp_(gradient, 1 - betas[1])
