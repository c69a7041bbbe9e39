"""Lengths of training and sizes of batches as values: ``3ep``, ``500step``, ``40Mtok``, ``48doc``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from limit_lab.errors import ConfigError


@dataclass(kw_only=True)
class Duration:
    """A length of training as a value: ``3ep``, ``500step`` or ``40Mtok`` (OLMo-core's idea, our grammar)."""

    amount: float
    unit: str

    @classmethod
    def parse(cls, text: str, *, name: str) -> Duration:
        """Raises: ConfigError when ``text`` is not a positive number followed by ep, step or tok (k, M, B allowed)."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([kMB]?)(ep|step|tok)", text)
        if not match or float(match[1]) <= 0 or (match[3] == "step" and not match[2] and float(match[1]) < 1):
            raise ConfigError(f"{name}={text!r} is no duration: write a positive one such as 3ep, 500step or 40Mtok.")
        scale = {"": 1.0, "k": 1e3, "M": 1e6, "B": 1e9}[match[2]]
        return cls(amount=float(match[1]) * scale, unit=match[3])

    def steps(self, documents: int, batch: int, tokens_per_document: float = 0.0) -> int:
        """Optimizer steps of this duration, at least one; epochs count every batch, the partial last one too.

        Raises: ConfigError for a duration in tokens when the mean document length is unknown.
        """
        if self.unit == "step":
            return max(1, round(self.amount))
        if self.unit == "ep":
            return max(1, round(self.amount * -(-documents // batch)))
        if tokens_per_document <= 0:
            raise ConfigError(f"a duration of {self.amount:.0f} tokens needs the mean document length, which is unknown.")
        return max(1, round(self.amount / (tokens_per_document * batch)))


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What an optimizer step takes: ``48doc`` documents, or packed rows of about ``9ktok`` tokens."""

    amount: int
    unit: str

    @classmethod
    def parse(cls, text: str, *, name: str) -> Batch:
        """Raises: ConfigError when ``text`` is no positive number of documents or tokens."""
        match = re.fullmatch(r"([1-9]\d*)(doc|tok|ktok)", text)
        if not match:
            raise ConfigError(f"{name}={text!r} is no batch: write documents such as 48doc, or tokens such as 9ktok.")
        return cls(amount=int(match[1]) * (1000 if match[2] == "ktok" else 1), unit=match[2].removeprefix("k"))


def documents(text: str, *, name: str) -> int:
    """Number of documents in a batch written ``48doc``. Raises: ConfigError for anything else."""
    match = re.fullmatch(r"([1-9]\d*)doc", text)
    if not match:
        raise ConfigError(f"{name}={text!r} is no batch: write a number of documents such as 48doc.")
    return int(match[1])
