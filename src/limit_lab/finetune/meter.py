"""How fast a run is: tokens with and without padding, the share of the peak by two counts, memory, time left."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch


class Clock:
    """Seconds of training since it was made; what is looked at in between does not count."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._paused = 0.0

    def seconds(self) -> float:
        return time.monotonic() - self._start - self._paused

    @contextmanager
    def paused(self) -> Iterator[None]:
        before = time.monotonic()
        try:
            yield
        finally:
            self._paused += time.monotonic() - before


@dataclass(slots=True, kw_only=True)
class Amount:
    """What one or several optimizer steps read and computed; ``raw_tokens`` and ``raw_flops`` count padding too."""

    tokens: int = 0
    raw_tokens: int = 0
    flops: float = 0.0
    raw_flops: float = 0.0
    seconds: float = 0.0

    def add(self, other: Amount) -> None:
        self.tokens += other.tokens
        self.raw_tokens += other.raw_tokens
        self.flops += other.flops
        self.raw_flops += other.raw_flops
        self.seconds += other.seconds

    def said(self, tflops: float) -> str:
        """Speed, and the shares of a peak of ``tflops`` (nothing of them at 0, or where no operations were counted)."""
        seconds = max(self.seconds, 1e-9)
        text = f"{self.tokens / seconds:,.0f} tok/s ({self.raw_tokens / seconds:,.0f} raw)"
        if tflops <= 0 or not self.flops:
            return text
        peak = tflops * 1e12 * seconds
        return f"{text}  mfu {self.flops / peak:.0%} (mosaic {self.raw_flops / peak:.0%})"


def peak_gib(device: torch.device) -> float:
    """The most memory so far, in GiB: what tensors took on a GPU, what the process held in RAM on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def left(seconds: float, done: int, steps: int) -> str:
    """Time that the remaining steps take at the mean pace of the ``done`` ones, as h:mm:ss."""
    return str(timedelta(seconds=round(seconds / max(done, 1) * steps)))
