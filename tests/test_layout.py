"""How many processes evaluate, and on how many devices each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from limit_lab.compose import compose
from limit_lab.config import Study
from limit_lab.errors import ConfigError
from limit_lab.layout import Layout, layout, places
from limit_lab.preflight import problems


def study(*overrides: str) -> Study:
    return compose(list(overrides))


def test_a_cpu_takes_a_process_for_every_device() -> None:
    given = study("hardware.devices=3", "hardware.strategy=ddp")
    assert layout(given) == Layout(processes=3, devices=1)


@pytest.mark.parametrize(
    ("model", "gib", "wanted"),
    [
        ("mpt_7b", 79.1, Layout(processes=8, devices=1)),  # 24.8 GiB of float32 weights
        ("mpt_30b", 139, Layout(processes=8, devices=1)),  # 111.6 GiB
        ("mpt_30b", 79.1, Layout(processes=4, devices=2)),
        ("mpt_30b", 39.6, Layout(processes=2, devices=4)),
        ("mpt_30b", 23.0, Layout(processes=1, devices=8)),
    ],
)
def test_a_model_gets_the_fewest_devices_that_hold_it(model: str, gib: float, wanted: Layout) -> None:
    assert layout(study(f"model={model}", "hardware=8x80gb", f"hardware.gpu_gib={gib}")) == wanted


def test_devices_of_unknown_size_are_taken_to_hold_the_model() -> None:
    assert layout(study("model=mpt_30b", "hardware=8x80gb", "hardware.gpu_gib=0")) == Layout(processes=8, devices=1)


def test_too_few_devices_are_refused_with_what_is_missing() -> None:
    given = study("model=mpt_30b", "hardware=8x80gb")
    given = replace(given, hardware=replace(given.hardware, devices=1))
    with pytest.raises(ConfigError, match=r"evaluation holds 111\.\d GiB .* hardware\.devices=1 x hardware\.gpu_gib=79\.1"):
        layout(given)
    assert any(problem.startswith("evaluation holds 111.") for problem in problems([given]))


def test_blocks_lie_in_order_in_shares_that_are_alike() -> None:
    assert places([1] * 6, 0, 3) == [0, 0, 1, 1, 2, 2]
    assert places([1] * 6, 6, 2) == [1] * 6, "the first device is filled by what is no block"
    assert places([2, 2, 2, 2], 1, 1) == [0, 0, 0, 0]
    plan = places([7] * 48, 20, 8)
    assert plan == sorted(plan)
    assert {plan.count(device) for device in range(1, 8)} <= {6, 7}
