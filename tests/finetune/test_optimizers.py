"""LionW against the published algorithm in numpy, step for step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from limit_lab.finetune.optimizers import LionW, optimizer_of
from limit_lab.recipe import Finetune


def reference(weight: np.ndarray, gradients: np.ndarray, rates: list[float], betas: tuple[float, float], decay: float) -> list:
    """Chen et al. 2023, Algorithm 2, in float64: every step's weights; ``decay`` is its lambda."""
    moment, found = np.zeros_like(weight), []
    for gradient, rate in zip(gradients, rates, strict=True):
        step = np.sign(betas[0] * moment + (1 - betas[0]) * gradient)
        weight = weight - rate * (step + decay * weight)
        moment = betas[1] * moment + (1 - betas[1]) * gradient
        found.append(weight)
    return found


def run(optimizer: LionW, weight: nn.Parameter, gradients: np.ndarray, rates: list[float]) -> list[np.ndarray]:
    found = []
    for gradient, rate in zip(gradients, rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        weight.grad = torch.tensor(gradient)
        optimizer.step()
        found.append(weight.detach().numpy().copy())
    return found


@pytest.mark.parametrize("decay", [0.0, 0.03])
def test_lion_is_the_published_algorithm(decay: float) -> None:
    """Decoupled as Mosaic's: weights shrink by decay x lr / initial lr, so lambda is decay / initial lr."""
    rng, betas = np.random.default_rng(0), (0.9, 0.95)
    start, gradients, rates = (
        rng.normal(size=(5, 7)),
        rng.normal(size=(20, 5, 7)),
        [0.01 * (1 - step / 20) for step in range(20)],
    )
    gradients[3, :2] = 0.0
    weight = nn.Parameter(torch.tensor(start))
    found = run(LionW([weight], lr=0.01, betas=betas, weight_decay=decay), weight, gradients, rates)
    for mine, theirs in zip(found, reference(start, gradients, rates, betas, decay / 0.01), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-12)


def test_lion_continues_from_its_state(tmp_path: Path) -> None:
    rng, rates = np.random.default_rng(1), [0.01, 0.02, 0.005, 0.01]
    start, gradients = rng.normal(size=6), rng.normal(size=(4, 6))
    whole = nn.Parameter(torch.tensor(start))
    expected = run(LionW([whole], lr=0.01, betas=(0.9, 0.95), weight_decay=0.1), whole, gradients, rates)
    cut = nn.Parameter(torch.tensor(start))
    first = LionW([cut], lr=0.01, betas=(0.9, 0.95), weight_decay=0.1)
    run(first, cut, gradients[:2], rates[:2])
    torch.save(first.state_dict(), tmp_path / "state")
    second = LionW([cut], lr=0.5, betas=(0.1, 0.1))
    second.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert np.array_equal(run(second, cut, gradients[2:], rates[2:])[-1], expected[-1])


def test_a_recipe_names_its_optimizer() -> None:
    weight = nn.Parameter(torch.ones(2))
    stated = {"weight_decay": 0.1, "learning_rate": 0.3, "betas": [0.7, 0.8], "eps": 1e-3}
    made = {name: optimizer_of(Finetune(name="x", optimizer=name, **stated), [weight]) for name in ("adamw", "lionw")}
    assert isinstance(made["adamw"], torch.optim.AdamW)
    assert isinstance(made["lionw"], LionW)
    for one in made.values():
        assert [one.param_groups[0][key] for key in ("weight_decay", "lr", "betas")] == [0.1, 0.3, (0.7, 0.8)]
    assert made["adamw"].param_groups[0]["eps"] == 1e-3
