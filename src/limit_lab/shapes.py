"""The shape and size of a base model without loading it: as configured, or read from a folder's config.json and weights."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from limit_lab.config import Model
from limit_lab.errors import ModelError

#: What model families call the same sizes in config.json.
WIDTH = ("hidden_size", "d_model", "n_embd")
LAYERS = ("num_hidden_layers", "n_layers", "n_layer")
HEADS = ("num_attention_heads", "n_heads", "n_head")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes that the arithmetic of a study needs; ``parameters`` counts tied weights once."""

    kind: str
    d_model: int
    n_layers: int
    n_heads: int
    vocab_size: int
    parameters: float
    body: float  # weights that every token passes: all but embedding and vocabulary projection
    vocabulary: float  # embedding and vocabulary projection


def shape_of(model: Model) -> Shape:
    """What ``model.path`` holds, else what the configuration states.

    Raises: ModelError for a folder that cannot be read, and when no folder is there and no shape is stated.
    """
    if model.path is None or (not Path(model.path).is_dir() and model.parameters is not None):
        return _stated(model)
    if not Path(model.path).is_dir():
        raise ModelError(f"model.path={model.path} is no folder here: pass the one with weights, config.json and tokenizer.")
    return _read(Path(model.path))


def _stated(model: Model) -> Shape:
    """The published count, else that of an MPT without biases: ``12 L d^2 + V d + (2 L + 1) d``, embeddings tied."""
    layers, width = model.n_layers, model.d_model
    if width < 1:
        raise ModelError(f"model={model.name} states no shape: pass a local folder of weights with model.path=/path/to/folder.")
    body, vocabulary = 12 * layers * width**2, model.vocab_size * width
    published = model.parameters
    return Shape(
        kind="mpt",
        d_model=width,
        n_layers=layers,
        n_heads=model.n_heads,
        vocab_size=model.vocab_size,
        parameters=body + vocabulary + (2 * layers + 1) * width if published is None else published,
        body=body,
        vocabulary=vocabulary,
    )


@cache
def _read(folder: Path) -> Shape:
    raw = config_of(folder)
    width, layers, heads = (_size(folder, raw, names) for names in (WIDTH, LAYERS, HEADS))
    vocab = _size(folder, raw, ("vocab_size",))
    sizes = dict(weights(folder))
    matrices = [name for name, shape in sizes.items() if shape == (vocab, width)]
    # a tied projection may lie in the file a second time
    copies = max(len(matrices), 1) if raw.get("tie_word_embeddings", raw.get("model_type") == "mpt") else 1
    kept = len(matrices) // copies * vocab * width
    every = sum(math.prod(shape) for shape in sizes.values()) - (len(matrices) - len(matrices) // copies) * vocab * width
    return Shape(
        kind=str(raw.get("model_type")),
        d_model=width,
        n_layers=layers,
        n_heads=heads,
        vocab_size=vocab,
        parameters=every,
        body=every - kept,
        vocabulary=kept,
    )


def _size(folder: Path, raw: dict[str, Any], names: tuple[str, ...]) -> int:
    found = next((raw[name] for name in names if name in raw), None)
    if not isinstance(found, int) or found < 1:
        raise ModelError(f"{folder}/config.json states no {' or '.join(names)}: use a model folder that states its shape.")
    return found


def config_of(folder: Path) -> dict[str, Any]:
    """The content of a folder's config.json. Raises: ModelError when it is missing or no JSON object."""
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"{folder} has no config.json: model.path must name a folder saved in the Hugging Face layout.")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not JSON ({error}): copy it again from the model's source.") from error
    if not isinstance(raw, dict):
        raise ModelError(f"{path} is no JSON object: copy it again from the model's source.")
    return raw


def weights(folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every floating-point weight, from the headers of the safetensors files.

    Raises: ModelError when there is no file, one is cut, or the index names a file that is not there.
    """
    from safetensors import SafetensorError, safe_open

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(f"{folder} has no *.safetensors: a model folder holds config.json, tokenizer.json and *.safetensors.")
    for absent in sorted(_indexed(folder) - {file.name for file in files}):
        raise ModelError(f"{folder} has no {absent}, which its index of the weights names: copy it from the model's source.")
    for file in files:
        try:
            with safe_open(str(file), framework="numpy") as held:
                for name in held.keys():  # noqa: SIM118 (a safetensors file is no mapping)
                    part = held.get_slice(name)
                    if "F" in part.get_dtype():
                        yield name, tuple(part.get_shape())
        except SafetensorError as error:
            raise ModelError(f"{file} is damaged ({error}): copy it again.") from error


def _indexed(folder: Path) -> set[str]:
    """Files that the folder's index of sharded weights names."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return set()
    try:
        return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index} is no index of weights: copy it again from the model's source.") from error
