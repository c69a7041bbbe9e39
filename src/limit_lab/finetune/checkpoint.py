"""The one checkpoint of a fine-tuning: replaced atomically, read back to resume."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from limit_lab import store
from limit_lab.config import Hardware
from limit_lab.errors import DataError
from limit_lab.finetune import universal
from limit_lab.finetune.module import Finetuning
from limit_lab.finetune.strategies import stage_of

#: The file that makes a checkpoint in pieces valid, and what it says of the ranks when any number of them can read it.
COMPLETE, ANY = "complete.json", 0

#: Where a fine-tuning's folder holds its last checkpoint, the one under way, and the one before while it is replaced.
CHECKPOINT, PARTIAL, OLD = "checkpoint.ckpt", "checkpoint.partial", "checkpoint.old"


def save(trainer: pl.Trainer, folder: Path) -> None:
    """Write the checkpoint beside the last one, then replace it: at every moment one valid checkpoint exists.

    Under ZeRO it is a folder to which every rank writes its pieces; ``complete.json``, written last, makes it valid.
    """
    partial, checkpoint = folder / PARTIAL, folder / CHECKPOINT
    with store.writing(checkpoint):
        try:
            _write(trainer, partial, checkpoint)
            if trainer.is_global_zero:
                if partial.is_dir():
                    _complete(partial, trainer)
                _replace(checkpoint, partial)
            trainer.strategy.barrier()
        except BaseException:
            if trainer.is_global_zero:
                _remove(partial)
            raise


def _write(trainer: pl.Trainer, partial: Path, checkpoint: Path) -> None:
    try:
        trainer.save_checkpoint(partial)
    except RuntimeError as error:
        if "inline_container" not in str(error):  # torch's writer of files, which does not say what the system said
            raise
        raise DataError(
            f"{checkpoint} could not be written, as when a disk is full: free some space, and the same command continues."
        ) from error


def _complete(folder: Path, trainer: pl.Trainer) -> None:
    module = trainer.lightning_module
    assert isinstance(module, Finetuning)
    state = {"global_step": trainer.global_step, "ranks": trainer.world_size, "stage": stage_of(trainer.strategy)}
    _mark(folder, {**state, "optimizer": module.recipe.optimizer})


def _mark(folder: Path, state: dict[str, Any]) -> None:
    files = {str(file.relative_to(folder)): file.stat().st_size for file in sorted(folder.rglob("*")) if file.is_file()}
    store.write_json(folder / COMPLETE, {**state, "files": files})


def _replace(checkpoint: Path, partial: Path) -> None:
    """A folder cannot take another's place at once: the old one waits under another name meanwhile."""
    old = checkpoint.with_name(OLD)
    if partial.is_dir() and checkpoint.exists():
        _remove(old)
        checkpoint.rename(old)
    partial.replace(checkpoint)
    _remove(old)


def _remove(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)


def remove(folder: Path) -> None:
    """Remove a fine-tuning's checkpoint, and what an interrupted one left."""
    for name in (CHECKPOINT, PARTIAL, OLD):
        _remove(folder / name)


def settle(folder: Path, hardware: Hardware) -> Path:
    """The last valid checkpoint's place, after a kill at any moment; for one process, before its ranks start.

    One of another number of ranks under ZeRO-3 is converted for any number, if its optimizer is AdamW.
    Raises: DataError when it was written by other ranks or pieces than ``hardware`` would read, or is damaged.
    """
    checkpoint, old = folder / CHECKPOINT, folder / OLD
    _remove(folder / PARTIAL)
    if old.exists() and not checkpoint.exists():
        old.rename(checkpoint)
    _remove(old)
    if not checkpoint.exists():
        return checkpoint
    written, state = (0, 1), dict[str, Any]()
    if checkpoint.is_dir():
        state = _state(checkpoint)
        written = (int(state["stage"]), int(state["ranks"]))
    reads = (hardware.zero_stage, hardware.ranks if hardware.zero_stage else 1)
    if written[0] == reads[0] == 3 and written != reads and state.get("optimizer") in universal.OPTIMIZERS:
        if written[1] != ANY:
            _convert(checkpoint, state)
        return checkpoint
    if written != reads:
        count = written[1] if written[1] != ANY else "any number of"
        what = f"ZeRO stage {written[0]} on {count} devices" if written[0] else "one device or DDP"
        raise DataError(
            f"{checkpoint} holds {completed_steps(checkpoint)} steps written by {what}, and hardware.strategy="
            f"{hardware.strategy} on {hardware.ranks} cannot read it: continue with the hardware that wrote "
            "it, or delete it to begin this fine-tuning anew."
        )
    return checkpoint


def _convert(checkpoint: Path, state: dict[str, Any]) -> None:
    """Put the checkpoint for any number of ranks in the place of one of ZeRO-3."""
    partial = checkpoint.with_name(PARTIAL)
    with store.writing(checkpoint):
        try:
            universal.write(checkpoint, partial, int(state["ranks"]))
            _mark(partial, {**state, "ranks": ANY})
            _replace(checkpoint, partial)
        except BaseException:
            _remove(partial)
            raise


def for_any_ranks(checkpoint: Path) -> bool:
    """Whether a checkpoint was converted. Raises: DataError when it is damaged."""
    return checkpoint.is_dir() and int(_state(checkpoint)["ranks"]) == ANY


class InPlace(TorchCheckpointIO):
    """Writes where it is told to: Lightning's own way buffers the checkpoint in memory and goes through the system's /tmp."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        with Path(path).open("wb") as file:  # torch's own writer would hide the reason when the disk refuses
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())


def completed_steps(checkpoint: Path) -> int:
    """Steps that a checkpoint holds, 0 without one. Raises: DataError when it cannot be read."""
    if checkpoint.is_dir():
        return int(_state(checkpoint)["global_step"])
    if not checkpoint.is_file():
        return 0
    try:
        return int(torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["global_step"])
    except (RuntimeError, ValueError, KeyError, EOFError, UnpicklingError) as error:
        raise _damaged(checkpoint) from error


def _state(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint in pieces says of itself. Raises: DataError when a piece is missing or has another size."""
    try:
        state: dict[str, Any] = store.read_json(checkpoint / COMPLETE)
        sound = all((checkpoint / name).stat().st_size == size for name, size in state["files"].items())
    except (DataError, KeyError, FileNotFoundError) as error:
        raise _damaged(checkpoint) from error
    if not sound:
        raise _damaged(checkpoint)
    return state


def _damaged(checkpoint: Path) -> DataError:
    return DataError(f"{checkpoint} is damaged: delete it, and the same command starts this fine-tuning from its beginning.")
