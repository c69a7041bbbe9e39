"""Whether a fine-tuning has room: what devices and this machine hold, and what would make it fit."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from limit_lab.config import Hardware, Study
from limit_lab.memory import GIB, Memory, host, peak
from limit_lab.recipe import Finetune, Lora
from limit_lab.shapes import Shape, shape_of

#: Rank of the adapters that are proposed where all weights have no room.
RANK = 16

Value = str | int | bool
#: Other values by the keys of the command line.
Change = Mapping[str, Value]


def machine_gib() -> float:
    """Memory of this machine, or what its control group leaves of it."""
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text(encoding="ascii").strip() if limit.is_file() else "max"
    return (found if text == "max" else min(found, int(text))) / GIB


def on_devices(study: Study) -> Iterator[str]:
    """What a fine-tuning needs and its devices do not have, with the largest term and three remedies."""
    shape, recipe, hardware = shape_of(study.model), study.finetune, study.hardware
    held = peak(shape, recipe, hardware)
    if hardware.accelerator == "gpu" and 0 < hardware.gpu_gib < held.total and study.mixture.samples:
        remedies = _listed(on_device(shape, recipe, hardware))
        yield (
            f"fine-tuning needs up to {held.total:.1f} GiB a device and hardware.gpu_gib={hardware.gpu_gib:g}, in "
            f"{held.moment}; most are {_largest(held)}: use {remedies}."
        )


def on_this_machine(study: Study) -> Iterator[str]:
    """What a cell needs and this machine's memory does not hold, with the largest term and three remedies."""
    shape, recipe, hardware = shape_of(study.model), study.finetune, study.hardware
    phases = host(shape, recipe, hardware)
    most = max(phases, key=lambda one: one.total) if study.mixture.samples else phases[0]
    if most.total > (has := machine_gib()):
        yield (
            f"{most.moment} needs ~{most.total:.0f} GiB of host memory and this machine has {has:.0f}; most are "
            f"{_largest(most)}: use {_listed(on_host(shape, recipe, hardware))}."
        )


def _largest(held: Memory) -> str:
    return f"{held.terms[held.largest]:.1f} of {held.largest}"


def _listed(found: Sequence[str]) -> str:
    return ", ".join(found[:-1]) + f", or {found[-1]}"


def on_device(shape: Shape, recipe: Finetune, hardware: Hardware) -> list[str]:
    """Three remedies for a device, with what it would hold: those that make room, then those that leave least to hold."""
    found = [
        (peak(shape, *changed(recipe, hardware, change)).total, change) for change in _for_a_device(shape, recipe, hardware)
    ]
    fits = [one for one in found if one[0] <= hardware.gpu_gib]
    rest = sorted((one for one in found if one[0] > hardware.gpu_gib), key=lambda one: one[0])
    return [f"{_written(change)} ({gib:.1f} GiB)" for gib, change in (*fits, *rest)][:3]


def on_host(shape: Shape, recipe: Finetune, hardware: Hardware) -> list[str]:
    """Three remedies for a node's host memory."""

    def needed(change: Change) -> float:
        return max(held.total for held in host(shape, *changed(recipe, hardware, change)))

    before = needed({})
    found = [(needed(change), change) for change in _for_a_host(shape, recipe, hardware)]
    less = sorted((one for one in found if one[0] < before), key=lambda one: one[0])
    written = [f"{_written(change)} ({gib:.0f} GiB)" for gib, change in less]
    return [*written, "a smaller model", "a machine with more memory", "fewer devices"][:3]


def changed(recipe: Finetune, hardware: Hardware, change: Change) -> tuple[Finetune, Hardware]:
    """Recipe and hardware with other values, by the keys of the command line."""
    ours: dict[str, Any] = {
        key.removeprefix("hardware."): value for key, value in change.items() if key.startswith("hardware.")
    }
    if "finetune.lora.rank" in change:
        recipe = replace(recipe, lora=Lora(rank=int(change["finetune.lora.rank"])))
    if "finetune.max_seq_tokens" in change:
        recipe = replace(recipe, max_seq_tokens=int(change["finetune.max_seq_tokens"]))
    return recipe, replace(hardware, **ours)


def _written(change: Change) -> str:
    return " ".join(f"{key}={str(value).lower()}" for key, value in change.items())


def _for_a_device(shape: Shape, recipe: Finetune, hardware: Hardware) -> list[Change]:
    """What takes memory off a device, that which costs least first."""
    lean: Change = {"hardware.recompute": True, "hardware.micro_batch": "1doc"}
    asked: list[Change] = [{"hardware.recompute": True}, {"hardware.micro_batch": "1doc"}, lean]
    pieces: Change = {"hardware.strategy": "zero3"}
    more: Change = {**pieces, "hardware.devices": max(8, 2 * hardware.devices)}
    asked += [pieces, {**pieces, **lean}, {**more, **lean}]
    if not recipe.lora.rank:
        asked.append({**pieces, "hardware.offload": "optimizer", **lean})
    asked.append({"finetune.max_seq_tokens": recipe.max_seq_tokens // 2, **lean})
    if not recipe.lora.rank:
        asked.append({**_adapters(hardware), **lean})
    return _that_change(asked, recipe, hardware)


def _adapters(hardware: Hardware) -> Change:
    """Adapters, whose states are too small to be worth dividing."""
    whole = "single" if hardware.ranks == 1 else "ddp"
    return {"finetune.lora.rank": RANK, "hardware.strategy": whole, "hardware.offload": "none"}


def _for_a_host(shape: Shape, recipe: Finetune, hardware: Hardware) -> list[Change]:
    """What takes memory off a node's host."""
    asked: list[Change] = [
        {"hardware.offload": "none"},
        {"hardware.micro_batch": "1doc", "hardware.recompute": True},
    ]
    asked.append({"hardware.strategy": "zero3"})
    if not recipe.lora.rank:
        asked.append(_adapters(hardware))
    if hardware.strategy.startswith("zero"):
        asked.append({"hardware.nodes": 2 * hardware.nodes})
    return _that_change(asked, recipe, hardware)


def _that_change(asked: Sequence[Change], recipe: Finetune, hardware: Hardware) -> list[Change]:
    """The changes without what is so already, each once."""
    found: list[Change] = []
    for change in asked:
        own = {key: value for key, value in change.items() if _now(key, recipe, hardware) != value}
        if own and own not in found:
            found.append(own)
    return found


def _now(key: str, recipe: Finetune, hardware: Hardware) -> Value:
    values: dict[str, Value] = {
        "hardware.recompute": hardware.recompute,
        "hardware.micro_batch": hardware.micro_batch,
        "hardware.strategy": hardware.strategy,
        "hardware.offload": hardware.offload,
        "hardware.devices": hardware.devices,
        "hardware.nodes": hardware.nodes,
        "finetune.lora.rank": recipe.lora.rank,
        "finetune.max_seq_tokens": recipe.max_seq_tokens,
    }
    return values[key]
