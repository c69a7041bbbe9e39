"""Lengths of training and sizes of batches as values: ``3ep``, ``500step``, ``40Mtok``, ``48doc``, ``9ktok``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from limit_lab.errors import ConfigError

SCALE = {"": 1.0, "k": 1e3, "M": 1e6, "B": 1e9}


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
        return cls(amount=float(match[1]) * SCALE[match[2]], unit=match[3])

    def steps(self, epoch: int, tokens: float = 0.0) -> int:
        """Optimizer steps of this duration, at least one, for ``epoch`` steps an epoch and ``tokens`` a step.

        Raises: ConfigError for a duration in tokens when the tokens of a step are unknown.
        """
        if self.unit == "step":
            return max(1, round(self.amount))
        if self.unit == "ep":
            return max(1, round(self.amount * epoch))
        if tokens <= 0:
            raise ConfigError(f"a duration of {self.amount:.0f} tokens needs the mean document length, which is unknown.")
        return max(1, round(self.amount / tokens))


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one optimizer step reads: ``48doc`` or ``9ktok``. A batch of tokens holds whole documents."""

    amount: int
    unit: str  # doc | tok

    @classmethod
    def parse(cls, text: str, *, name: str) -> Batch:
        """Raises: ConfigError when ``text`` is not a positive whole number of documents or tokens (k, M allowed)."""
        match = re.fullmatch(r"([1-9]\d*)(doc)|(\d+(?:\.\d+)?)([kM]?)(tok)", text)
        amount = 0.0 if not match else float(match[1]) if match[2] else float(match[3]) * SCALE[match[4]]
        if not match or amount < 1 or amount != int(amount):
            raise ConfigError(f"{name}={text!r} is no batch: write documents or tokens such as 48doc or 9ktok.")
        return cls(amount=int(amount), unit=match[2] or match[5])

    def epoch(self, documents: int, tokens: float, *, drop: bool) -> int:
        """Optimizer steps of one pass over the documents; ``drop`` leaves out a last batch that is not full.

        Raises: ConfigError for a batch of tokens when their number is unknown.
        """
        if self.unit == "doc":
            return documents // self.amount if drop else -(-documents // self.amount)
        if tokens <= 0:
            raise ConfigError(f"a batch of {self.amount:,} tokens needs the mean document length, which is unknown.")
        return int(tokens // self.amount if drop else -(-tokens // self.amount))

    def tokens(self, mean: float) -> float:
        """Tokens of one step, for documents of ``mean`` tokens (0 when that is unknown)."""
        return float(self.amount) if self.unit == "tok" else self.amount * mean


def documents(text: str, *, name: str) -> int:
    """Number of documents in a batch written ``48doc``. Raises: ConfigError for anything else."""
    match = re.fullmatch(r"([1-9]\d*)doc", text)
    if not match:
        raise ConfigError(f"{name}={text!r} is no batch: write a number of documents such as 48doc.")
    return int(match[1])
