"""What DeepSpeed is told, and by what a loss is divided."""

from __future__ import annotations

from typing import Any

import pytest

from limit_lab.config import Hardware
from limit_lab.finetune import strategies


def zero(**given: Any) -> dict[str, Any]:
    config = strategies.zero_config(Hardware(name="test", **given))
    found: dict[str, Any] = config["zero_optimization"]
    return found


@pytest.mark.parametrize(("strategy", "stage"), [("zero1", 1), ("zero2", 2), ("zero3", 3)])
def test_every_size_is_stated(strategy: str, stage: int) -> None:
    told = zero(strategy=strategy, devices=2, bucket_elements=300, sub_group_elements=700)
    assert (told["stage"], told["sub_group_size"]) == (stage, 700)
    assert {told["reduce_bucket_size"], told["allgather_bucket_size"]} == {300}
    assert ("stage3_prefetch_bucket_size" in told) == (stage == 3)


@pytest.mark.parametrize(("accelerator", "pinned"), [("cpu", False), ("gpu", True)])
def test_states_go_to_host_memory_when_asked(accelerator: str, pinned: bool) -> None:
    assert "offload_optimizer" not in zero(strategy="zero2", accelerator=accelerator)
    told = zero(strategy="zero2", accelerator=accelerator, offload="optimizer")
    assert told["offload_optimizer"] == {"device": "cpu", "pin_memory": pinned}


@pytest.mark.parametrize(
    ("strategy", "devices", "parts"), [("single", 1, 3), ("ddp", 4, 12), ("zero1", 4, 36), ("zero3", 1, 9)]
)
def test_a_loss_is_divided_by_what_averages_it(strategy: str, devices: int, parts: int) -> None:
    assert strategies.parts(Hardware(name="test", strategy=strategy, devices=devices), accumulation=3) == parts
