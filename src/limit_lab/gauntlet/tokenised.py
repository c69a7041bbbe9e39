"""Prompts as token ids, kept on disk by content: the cells of a grid ask the same questions of the same tokenizer."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limit_lab import store
from limit_lab.errors import DataError
from limit_lab.fingerprints import fingerprint
from limit_lab.gauntlet.sequences import Scorable

Questions = list[list[Scorable]]


def tokenised(folder: Path | None, inputs: Mapping[str, Any], build: Callable[[], Questions]) -> Questions:
    """What ``build`` makes, from ``folder`` if it was made for the same ``inputs`` before; they name all that decides it.

    Raises: DataError for a damaged file.
    """
    if folder is None:
        return build()
    file = folder / f"{fingerprint(inputs)}.npz"
    if not file.is_file():
        built = build()
        store.write_bytes(file, _packed(built))
        return built
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as held:
            return _unpacked(held["ids"], held["lengths"], held["starts"], held["counts"])
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} is damaged ({error}): delete it, and the prompts are tokenised again.") from error


def _packed(questions: Questions) -> bytes:
    """All ids one after another, with the length and start of every sequence and the sequences of every question."""
    every = [sequence for question in questions for sequence in question]
    arrays: dict[str, NDArray[np.int32]] = {
        "ids": np.fromiter((token for sequence in every for token in sequence.ids), np.int32),
        "lengths": np.array([len(sequence.ids) for sequence in every], np.int32),
        "starts": np.array([sequence.start for sequence in every], np.int32),
        "counts": np.array([len(question) for question in questions], np.int32),
    }
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    return file.getvalue()


def _unpacked(
    ids: NDArray[np.int32], lengths: NDArray[np.int32], starts: NDArray[np.int32], counts: NDArray[np.int32]
) -> Questions:
    if int(lengths.sum()) != len(ids) or int(counts.sum()) != len(lengths) or len(starts) != len(lengths):
        raise ValueError("its parts do not fit each other")
    every = tuple(ids.tolist())
    sequences = [
        Scorable(ids=every[begin:end], start=start)
        for (begin, end), start in zip(_spans(lengths), starts.tolist(), strict=True)
    ]
    return [sequences[begin:end] for begin, end in _spans(counts)]


def _spans(sizes: NDArray[np.int32]) -> Sequence[tuple[int, int]]:
    return list(pairwise(accumulate(sizes.tolist(), initial=0)))
