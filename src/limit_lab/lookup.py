"""What runs where: the first way, from the fastest, in which a model's fine-tuning has room on a kind of hardware."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from limit_lab.compose import compose
from limit_lab.config import Hardware, Model
from limit_lab.memory import Memory, host, peak
from limit_lab.recipe import Finetune, Lora
from limit_lab.room import RANK
from limit_lab.shapes import Shape, shape_of

MODELS = ("mpt_7b", "mpt_30b")
HARDWARE = ("1x80gb", "h200", "8x40gb", "8x80gb")
WIDTHS = (2048, 8192)
#: Assumed: host memory of a node for each of its devices.
HOST_GIB = 128

#: What is divided over the devices, the fastest first; then the optimizer leaves them too.
ALONE: tuple[str, ...] = ("single", "zero3")
TOGETHER: tuple[str, ...] = ("ddp", "zero1", "zero2", "zero3")


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to run, with what a device and a node's host memory hold at most."""

    hardware: Hardware
    device: Memory
    host_gib: float

    @property
    def fits(self) -> bool:
        return self.device.total <= self.hardware.gpu_gib and self.host_gib <= HOST_GIB * self.hardware.devices

    @property
    def text(self) -> str:
        how = self.hardware.strategy + (" offload" if self.hardware.offload == "optimizer" else "")
        how += " recompute" if self.hardware.recompute else ""
        return f"{how if self.fits else 'no:'} {self.device.total:.0f} ({self.host_gib:,.0f})"


def ways(shape: Shape, recipe: Finetune, hardware: Hardware) -> Iterator[Way]:
    """All ways to run on ``hardware``, one document a pass, the fastest first. Of adapters only weights are worth dividing."""
    strategies = TOGETHER if hardware.ranks > 1 else ALONE
    if recipe.lora.rank:
        strategies = (strategies[0], "zero3")
    plain = replace(hardware, micro_batch="1doc", offload="none")
    asked = [replace(plain, strategy=name, recompute=again) for again in (False, True) for name in strategies]
    if not recipe.lora.rank:
        asked.append(replace(plain, strategy="zero3", recompute=True, offload="optimizer"))
    for one in asked:
        most = max(held.total for held in host(shape, recipe, one))
        yield Way(hardware=one, device=peak(shape, recipe, one), host_gib=most)


def way(shape: Shape, recipe: Finetune, hardware: Hardware) -> Way:
    """The fastest way that fits, else the one whose device holds least."""
    found = list(ways(shape, recipe, hardware))
    return next((one for one in found if one.fits), min(found, key=lambda one: one.device.total))


def table(recipe: Finetune) -> str:
    """The lookup as text, for the models of the paper with the optimizer and precision of ``recipe``."""
    places: list[Hardware] = [compose([f"hardware={name}"]).hardware for name in HARDWARE]
    models: list[Model] = [compose([f"model={name}"]).model for name in MODELS]
    rows = [["", "", "tokens", *(f"{one.name} ({one.gpu_gib:g})" for one in places)]]
    for model in models:
        for rank in (0, RANK):
            for width in WIDTHS:
                own = replace(recipe, lora=Lora(rank=rank), freeze_embeddings=False, max_seq_tokens=width)
                found = [way(shape_of(model), own, one).text for one in places]
                rows.append([model.name, "adapters" if rank else "all weights", f"{width:,}", *found])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(text.ljust(size) for text, size in zip(row, widths, strict=True)).rstrip() for row in rows]
    head = (
        f"what runs where ({recipe.optimizer}, {recipe.precision}, one document of full length a pass): the first way that "
        f"fits, the fastest first; GiB a device, in brackets of a node's host, which is taken to have {HOST_GIB} a device"
    )
    return "\n".join([head, "", *lines])
