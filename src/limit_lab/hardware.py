"""What a run may use; outside every fingerprint, recorded in every result."""

from __future__ import annotations

import re
from dataclasses import dataclass

from omegaconf import MISSING

from limit_lab.durations import documents
from limit_lab.errors import ConfigError, one_of

#: Buckets of weights that ZeRO-3 keeps gathered around the one that computes (stage3_max_live_parameters, _max_reuse_distance).
LIVE_BUCKETS = 2


@dataclass(kw_only=True)
class Hardware:
    """Devices, how a fine-tuning is spread over them, and what it trades for memory."""

    name: str = MISSING
    accelerator: str = "cpu"  # cpu | gpu
    devices: int = 1  # per node; they train together, and each evaluates its share
    nodes: int = 1
    gpu_gib: float = 0.0  # of one device; 0: not known, and whatever is asked of it is taken to fit
    head: str | None = None  # HOST:PORT where several nodes meet; null: on the first of a Slurm job
    strategy: str = "single"  # single | ddp | zero1 | zero2 | zero3 (what ZeRO divides: states, gradients too, weights too)
    offload: str = "none"  # none | optimizer: master weights and optimizer states in host memory, with ZeRO
    sub_group_elements: int = 500_000_000  # elements of a partition that ZeRO-3 updates at a time
    bucket_elements: int = 200_000_000  # gradients (and with ZeRO-3 weights) that travel at a time
    micro_batch: str = "8doc"  # documents per forward pass and device
    attention: str = "auto"  # auto | mask | documents | varlen | flex: how an MPT keeps packed documents apart
    recompute: bool = False  # blocks are run again in the backward pass instead of keeping their activations
    logits_at_once: int = 4096  # targets projected onto the vocabulary at a time
    threads: int | None = None  # of this process; null: as many as OMP_NUM_THREADS or the machine says
    cells: int | None = 1  # made at the same time, each by its own process; null: as many as cores and threads allow
    tflops: float = 0.0  # bf16 peak per device, for the plan
    mfu: float = 0.4  # assumed share of the peak, for the plan

    def __post_init__(self) -> None:
        documents(self.micro_batch, name="hardware.micro_batch")
        for name, number in (("devices", self.devices), ("nodes", self.nodes), ("cells", self.cells or 1)):
            if number < 1:
                raise ConfigError(f"hardware.{name}={number} leaves nothing to run on: use 1 or more.")
        one_of("hardware.accelerator", self.accelerator, ("cpu", "gpu"))
        one_of("hardware.strategy", self.strategy, ("single", "ddp", "zero1", "zero2", "zero3"))
        one_of("hardware.offload", self.offload, ("none", "optimizer"))
        one_of("hardware.attention", self.attention, ("auto", "mask", "documents", "varlen", "flex"))
        if self.head is not None and not re.fullmatch(r"[\w.-]+:\d+", self.head):
            raise ConfigError(f"hardware.head={self.head} is no place to meet: write it as HOST:PORT.")
        if self.head is not None and self.nodes == 1:
            raise ConfigError(
                f"hardware.head={self.head} is where nodes meet, and hardware.nodes=1: use more, or leave it out."
            )
        if self.logits_at_once < 1:
            raise ConfigError(f"hardware.logits_at_once={self.logits_at_once} projects nothing: use 1 or more.")
        for name, elements in (("sub_group_elements", self.sub_group_elements), ("bucket_elements", self.bucket_elements)):
            if elements < 1:
                raise ConfigError(f"hardware.{name}={elements} holds nothing: use 1 or more, such as 200_000_000.")
        if self.offload == "optimizer" and not self.strategy.startswith("zero"):
            raise ConfigError(
                f"hardware.offload=optimizer is done by ZeRO, but hardware.strategy={self.strategy}: use zero1, zero2 or zero3."
            )
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"hardware.threads={self.threads} leaves nothing to compute with: use 1 or more, or null.")
        if self.strategy == "single" and self.devices * self.nodes > 1:
            raise ConfigError(
                f"hardware.strategy=single uses one device, but hardware.devices={self.devices} and "
                f"hardware.nodes={self.nodes}: use hardware.strategy=zero3."
            )

    @property
    def zero_stage(self) -> int:
        """What ZeRO divides over the devices: nothing 0, optimizer states 1, gradients too 2, weights too 3."""
        return int(self.strategy.removeprefix("zero")) if self.strategy.startswith("zero") else 0

    @property
    def ranks(self) -> int:
        """Processes of a fine-tuning, one a device."""
        return self.devices * self.nodes
