"""The arithmetic of a printed line."""

from __future__ import annotations

import time

import pytest
import torch

from limit_lab.finetune.meter import Amount, Clock, left, peak_gib


def test_a_pause_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = Clock()
    now[0] = 103.0
    with clock.paused():
        now[0] = 110.0
    now[0] = 111.0
    assert clock.seconds() == 4.0


def test_shares_of_the_peak_are_operations_over_what_it_could_do_in_that_time() -> None:
    amount = Amount(tokens=1000, raw_tokens=1500, flops=4e12, raw_flops=9e12, seconds=2.0)
    amount.add(Amount(tokens=1000, raw_tokens=1500, flops=4e12, raw_flops=9e12, seconds=2.0))
    assert amount.said(10.0) == "500 tok/s (750 raw)  mfu 20% (mosaic 45%)"
    assert amount.said(0.0) == "500 tok/s (750 raw)"
    assert Amount(tokens=3, raw_tokens=6, seconds=1.0).said(10.0) == "3 tok/s (6 raw)"


def test_time_left_is_the_mean_pace_so_far() -> None:
    assert left(60.0, 20, 1200) == "1:00:00"
    assert left(60.0, 20, 0) == "0:00:00"


def test_memory_of_this_process_is_told_in_gib() -> None:
    assert 0.05 < peak_gib(torch.device("cpu")) < 64
