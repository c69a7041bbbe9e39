"""Trainings that are exported on their way: their state lies beside the cells, and each export goes on from the last one's."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from limit_lab import store
from limit_lab.config import Study
from limit_lab.errors import BusyError
from limit_lab.fingerprints import fingerprint


def place(study: Study, identity: Mapping[str, Any]) -> Path:
    """The folder of the training behind a cell, known by the cell's ``identity`` but for the point of its export."""
    recipe = {key: value for key, value in identity["recipe"].items() if key != "stop"}
    return Path(study.runs) / "trainings" / fingerprint({**identity, "recipe": recipe})


@contextmanager
def opened(study: Study, identity: Mapping[str, Any], own: Path) -> Iterator[Path]:
    """Where a cell trains: its ``own`` folder, or with exports the training's, locked, whose metrics are copied to ``own``.

    With ``export.keep=all`` the checkpoint of the export is copied too. Raises: BusyError when another process trains there.
    """
    if study.finetune.export is None:
        yield own
        return
    state = place(study, identity)
    with store.locked(_lock(state), wait=False):
        yield state
        checkpoints = state.glob("checkpoint.ckpt") if study.export.keep == "all" else ()
        for file in (*sorted(state.glob("*.jsonl")), *checkpoints):
            with store.writing(own / file.name):
                shutil.copyfile(file, own / file.name)


def close(study: Study, identity: Mapping[str, Any]) -> None:
    """Remove the state of a finished training, unless another process goes on with it."""
    if study.finetune.export is None or not place(study, identity).is_dir():
        return
    try:
        with store.locked(_lock(place(study, identity)), wait=False):
            shutil.rmtree(place(study, identity))
    except BusyError:
        return


def _lock(state: Path) -> Path:
    return state.with_name(f".{state.name}")
