"""Weights to safetensors files, one tensor at a time, however they are held: the largest one is all that memory must take."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

import torch
from torch import Tensor

from limit_lab import store
from limit_lab.errors import ModelError

#: What safetensors calls the types that weights are exported as.
TYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
#: What says in which file each weight lies.
INDEX = "model.safetensors.index.json"
#: Bytes of one file of weights where nothing else is asked.
SHARD_BYTES = 5 * 2**30


class Weights(Protocol):
    """The weights of a model under the names that their files will hold, wherever they lie; tied ones once."""

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Every weight's shape, in the order of the files; reads none."""

    def read(self, name: str) -> Tensor:
        """One weight, of any floating-point type and on any device; nobody holds it longer than until the next is read."""


class InMemory:
    """Weights that a process holds whole, by name."""

    def __init__(self, held: Mapping[str, Tensor]) -> None:
        self.held = held

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: tuple(value.shape) for name, value in self.held.items()}

    def read(self, name: str) -> Tensor:
        return self.held[name].detach()


def write(weights: Weights, folder: Path, dtype: torch.dtype, *, shard_bytes: int = SHARD_BYTES) -> dict[str, str]:
    """Write ``weights`` as ``dtype`` into ``folder``, which exists; returns the SHA-256 of each file by its name.

    One file, or several of at most ``shard_bytes`` (more only for a single larger weight) with the index that transformers
    reads. A file's weights are in the order of their names, so its bytes are those that safetensors itself would write.
    Raises: ModelError naming a weight that is not finite in ``dtype`` or not of its stated shape; DataError for a full disk.
    """
    from huggingface_hub import split_state_dict_into_shards_factory

    shapes = weights.shapes()
    sizes = {name: math.prod(shape) * dtype.itemsize for name, shape in shapes.items()}
    split = split_state_dict_into_shards_factory(
        sizes, get_storage_size=int, filename_pattern="model{suffix}.safetensors", max_shard_size=shard_bytes
    )
    written = {name: _file(folder / name, weights, shapes, own, dtype) for name, own in split.filename_to_tensors.items()}
    if split.is_sharded:
        metadata = {"total_parameters": sum(map(math.prod, shapes.values())), **split.metadata}
        index = {"metadata": metadata, "weight_map": split.tensor_to_filename}
        store.write_text(folder / INDEX, json.dumps(index, indent=2, sort_keys=True) + "\n")
    return written


def _file(path: Path, weights: Weights, shapes: Mapping[str, tuple[int, ...]], names: Sequence[str], dtype: torch.dtype) -> str:
    """One file in the layout of safetensors (length of the header, header, values); returns its SHA-256."""
    ordered, digest = sorted(names), hashlib.sha256()
    with store.writing(path), path.open("wb") as file:
        _put(file, digest, _header(ordered, shapes, dtype))
        for name in ordered:
            _put(file, digest, _values(weights.read(name), name, shapes[name], dtype).numpy().data)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _put(file: BinaryIO, digest: hashlib._Hash, data: bytes | memoryview) -> None:
    file.write(data)
    digest.update(data)


def _header(names: Sequence[str], shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> bytes:
    """Its length, and where each weight lies behind it, filled up with blanks to whole 8 bytes."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        begin, end = end, end + math.prod(shapes[name]) * dtype.itemsize
        entries[name] = {"dtype": TYPES[dtype], "shape": list(shapes[name]), "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _values(value: Tensor, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """The bytes of a weight as ``dtype``, uint8 [bytes]."""
    if tuple(value.shape) != shape:
        raise ModelError(f"{name} came with shape {list(value.shape)} and was announced with {list(shape)}: export again.")
    if not value.is_floating_point():
        raise ModelError(f"{name} holds {value.dtype}, no floating-point numbers, and cannot be exported: use another model.")
    given = value.to("cpu", dtype).contiguous().reshape(-1)
    if not given.isfinite().all():
        raise ModelError(f"{name} holds values that are not finite: the training diverged, lower finetune.learning_rate.")
    return given.view(torch.uint8)
