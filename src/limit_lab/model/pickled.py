"""Weights in torch's own format, as old folders hold them: tensors only, never code."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch

from limit_lab.errors import ModelError


def tensors(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a ``pytorch_model*.bin``, mapped from the disk and read when they are used.

    Raises: ModelError for a file that is damaged, too old to be mapped, or holds anything but tensors by name.
    """
    try:
        held = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")
        raise ModelError(f"{file} cannot be read as weights ({reason}): copy it again, or save it as safetensors.") from error
    if not isinstance(held, dict) or not all(isinstance(value, torch.Tensor) for value in held.values()):
        raise ModelError(f"{file} holds more than tensors by name: save the weights alone, best as safetensors.")
    return held
