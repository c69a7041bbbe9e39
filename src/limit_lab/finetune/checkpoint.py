"""The one checkpoint of a fine-tuning: replaced atomically, read back to resume."""

from __future__ import annotations

import os
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from limit_lab import store
from limit_lab.errors import DataError


def save(trainer: pl.Trainer, folder: Path) -> None:
    """Write the checkpoint beside the last one, then replace it: at every moment one valid checkpoint exists."""
    partial, checkpoint = folder / "checkpoint.partial", folder / "checkpoint.ckpt"
    with store.writing(checkpoint):
        try:
            trainer.save_checkpoint(partial)
            partial.replace(checkpoint)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


class InPlace(TorchCheckpointIO):
    """Writes where it is told to: Lightning's own way buffers the checkpoint in memory and goes through the system's /tmp."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        with Path(path).open("wb") as file:  # torch's own writer would hide the reason when the disk refuses
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())


def completed_steps(checkpoint: Path) -> int:
    """Steps that a checkpoint holds, 0 without one. Raises: DataError when it cannot be read."""
    if not checkpoint.is_file():
        return 0
    try:
        return int(torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["global_step"])
    except (RuntimeError, ValueError, KeyError, EOFError, UnpicklingError) as error:
        raise DataError(
            f"{checkpoint} is damaged: delete it, and the same command starts this fine-tuning from its beginning."
        ) from error
