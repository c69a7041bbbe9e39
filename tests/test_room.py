"""Whether a fine-tuning has room: one sentence with the largest term and three remedies, each of which is what it says."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from limit_lab import room
from limit_lab.compose import compose
from limit_lab.config import Study
from limit_lab.memory import peak
from limit_lab.shapes import shape_of

SEVEN = ["+experiment=paper_7b_lima_plus_instruct", "finetune=default"]


def said(given: list[str]) -> list[str]:
    return refused(compose(given))


def refused(study: Study) -> list[str]:
    return [*room.on_devices(study), *room.on_this_machine(study)]


@pytest.fixture(autouse=True)
def plenty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "machine_gib", lambda: 10_000.0)


def test_a_device_that_is_too_small_is_told_the_largest_term_and_three_remedies() -> None:
    (sentence,) = said([*SEVEN, "hardware=8x80gb", "hardware.micro_batch=8doc"])
    assert re.search(r"needs up to [\d.]+ GiB a device and hardware.gpu_gib=79.1, in the backward pass; most are", sentence)
    assert "GiB" in sentence
    assert "of activations: use hardware.recompute=true (" in sentence
    assert len(re.findall(r"\([\d.]+ GiB\)", sentence)) == 3
    assert not said([*SEVEN, "hardware=8x80gb", "hardware.micro_batch=8doc", "hardware.recompute=true"])


def test_every_remedy_makes_the_room_it_names() -> None:
    study = compose([*SEVEN, "hardware=1x80gb"])
    shape, recipe, hardware = shape_of(study.model), study.finetune, study.hardware
    found = room.on_device(shape, recipe, hardware)
    assert len(found) == 3
    for remedy in found:
        named = re.fullmatch(r"(.+) \(([\d.]+) GiB\)", remedy)
        assert named, remedy
        text, gib = named.groups()
        changed: Study = compose([*SEVEN, "hardware=1x80gb", *text.split()])
        held = peak(shape, changed.finetune, changed.hardware)
        assert float(gib) == pytest.approx(held.total, abs=0.05)
        assert held.total <= hardware.gpu_gib


def test_a_host_that_is_too_small_is_told_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "machine_gib", lambda: 128.0)
    given = [*SEVEN, "model=mpt_30b", "hardware=8x40gb", "hardware.offload=optimizer"]
    (sentence,) = said(given)
    assert re.match(r"training needs ~5\d\d GiB of host memory and this machine has 128; most are 223.2 of optimizer", sentence)
    assert "use " in sentence
    assert sentence.count("=") >= 3


def test_the_untouched_base_is_only_loaded() -> None:
    study = compose([*SEVEN, "hardware=1x80gb", "mixture=none"])
    assert not refused(study)
    trained = replace(study, mixture=compose(["mixture=lima"]).mixture)
    assert refused(trained) == said([*SEVEN, "hardware=1x80gb"])


def test_this_machine_has_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 0 < room.machine_gib() < 1e6
