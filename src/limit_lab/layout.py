"""Which devices evaluate a model: as many processes as have room for it, each on as many devices as it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from limit_lab.config import Hardware, Study
from limit_lab.errors import ConfigError
from limit_lab.shapes import Shape, shape_of

#: Bytes of a weight when a model is evaluated, in float32.
WEIGHT_BYTES = 4

#: Share of a device that weights may take; the rest holds hidden states, keys and values.
WEIGHTS_SHARE = 0.9

GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """``processes`` evaluate on each node, each on ``devices`` of its own."""

    processes: int
    devices: int


def layout(study: Study) -> Layout:
    """How the study's hardware evaluates its model.

    A device a process where the weights fit; else each model is cut into the fewest devices that hold it and divide
    ``hardware.devices``. Raises: ConfigError when all devices of a node are too few.
    """
    hardware = study.hardware
    if hardware.accelerator == "cpu" or not hardware.gpu_gib:
        return Layout(processes=hardware.devices, devices=1)
    shape = shape_of(study.model)
    room = WEIGHTS_SHARE * hardware.gpu_gib * GIB
    for devices in range(1, hardware.devices + 1):
        if hardware.devices % devices == 0 and _largest(shape, devices) * WEIGHT_BYTES <= room:
            return Layout(processes=hardware.devices // devices, devices=devices)
    raise ConfigError(_refusal(shape, hardware))


def places(blocks: Sequence[int], rest: int, devices: int) -> list[int]:
    """The device of each block by its parameters, ``rest`` (embedding and all else) on the first; shares are alike."""
    total, found, before = rest + sum(blocks), [], rest
    for size in blocks:
        found.append(min((2 * before + size) * devices // (2 * total), devices - 1))
        before += size
    return found


def _largest(shape: Shape, devices: int) -> int:
    """Parameters on the fullest of the devices."""
    block = int(shape.body) // shape.n_layers
    rest = int(shape.parameters) - block * shape.n_layers
    held = [rest] + [0] * (devices - 1)
    for device in places([block] * shape.n_layers, rest, devices):
        held[device] += block
    return max(held)


def _refusal(shape: Shape, hardware: Hardware) -> str:
    weights = shape.parameters * WEIGHT_BYTES / GIB
    return (
        f"evaluation holds {weights:.1f} GiB of float32 weights, and {WEIGHTS_SHARE:.0%} of hardware.devices="
        f"{hardware.devices} x hardware.gpu_gib={hardware.gpu_gib:g} have no room for them: use more devices in a node, larger "
        "ones, or a smaller model."
    )
