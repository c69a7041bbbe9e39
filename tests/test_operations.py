"""Counted operations: against numbers worked out by hand, and against the plan's."""

from __future__ import annotations

import pytest

from limit_lab import estimate
from limit_lab.compose import compose
from limit_lab.durations import documents
from limit_lab.operations import counted, mosaic
from limit_lab.shapes import Shape, shape_of

SIZES = Shape(
    kind="mpt", d_model=10, n_layers=2, n_heads=2, vocab_size=100, parameters=3450, body=2400, vocabulary=1000, linear={}
)


def test_operations_by_hand() -> None:
    # two documents of 30 and 40 tokens, 20 of which carry loss
    assert counted(SIZES, 70, 20, 30**2 + 40**2) == 6 * (2400 * 70 + 100 * 10 * 20) + 6 * 2 * 10 * 2500
    assert counted(SIZES, 70, 20, 2500, adapters=True) * 6 == counted(SIZES, 70, 20, 2500) * 4
    assert mosaic(SIZES, 128, 64) == (6 * 3450 + 12 * 2 * 10 * 64) * 128


def test_the_plan_counts_every_pass_so() -> None:
    study = compose(["mixture=lima_plus_instruct", "finetune.duration=3ep"])
    expected, planned = estimate.tokens(study), estimate.schedule(study)
    assert expected is not None
    assert planned is not None
    passes = planned.stop * documents(study.finetune.batch, name="finetune.batch") / sum(study.mixture.samples.values())
    one = counted(shape_of(study.model), expected.total, expected.response, expected.square_sum)
    assert estimate.flops(study) == pytest.approx(one * passes)
    assert passes == pytest.approx(3, rel=0.01)
