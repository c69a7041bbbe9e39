"""What a model's name states of its weights, and whether a folder keeps it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from limit_lab.config import Model
from limit_lab.errors import ModelError
from limit_lab.model.mpt_config import MPTConfig, canonical
from limit_lab.shapes import config_of, shape_of, weights

Sizes = tuple[tuple[str, Any], ...]

#: Share of a file's numbers that may be no parameters: older files hold buffers, such as rotary frequencies.
BUFFERS = 1e-3


def check(model: Model, folder: Path) -> None:
    """Raises: ModelError naming the first of sizes and tensors in which the folder of a published model is not as stated."""
    if model.parameters is not None:
        _check(folder, model.name, _stated(model), None if model.kind == "mpt" else int(model.parameters))


def _stated(model: Model) -> Sizes:
    sizes = [("model_type", model.kind), ("d_model", model.d_model), ("n_layers", model.n_layers)]
    sizes += [("n_heads", model.n_heads), ("vocab_size", model.vocab_size)]
    return (*sizes, ("max_seq_len", model.max_seq_len)) if model.kind == "mpt" else tuple(sizes)


@cache
def _check(folder: Path, name: str, stated: Sizes, parameters: int | None) -> None:
    for what, expected, found in _differences(folder, dict(stated), parameters):
        raise ModelError(
            f"{folder} is not {name}, whose {what} is {expected} and here is {found}: pass a copy of {name}, or use model=hf "
            "for the model that it is."
        )


def _differences(folder: Path, stated: Mapping[str, Any], parameters: int | None) -> Iterator[tuple[str, object, object]]:
    raw = config_of(folder)
    yield from _unequal("model_type", stated["model_type"], raw.get("model_type"))
    held = shape_of(Model(name=folder.name, path=str(folder)))
    for size in ("d_model", "n_layers", "n_heads", "vocab_size"):
        yield from _unequal(size, stated[size], getattr(held, size))
    if stated["model_type"] == "mpt":
        yield from _unequal("max_seq_len", stated["max_seq_len"], raw.get("max_seq_len"))
        yield from _tensors(folder, MPTConfig.from_hugging_face(raw))
    else:
        if abs(held.parameters - (parameters or 0)) > BUFFERS * held.parameters:
            yield "number of parameters", f"{parameters:,}", f"{held.parameters:,}"


def _tensors(folder: Path, config: MPTConfig) -> Iterator[tuple[str, object, object]]:
    """Names that only one side has, and shapes that differ; the embedding may lie in the files again as the head."""
    expected = dict(config.tensors())
    head = expected["transformer.wte.weight"]
    found = {"lm_head.weight": head, **{canonical(name): shape for name, shape in weights(folder)}}
    for name, shape in {**expected, "lm_head.weight": head}.items():
        yield from _unequal(f"weight {name}", _text(shape), _text(found.get(name)))
    for name in sorted(found.keys() - expected.keys() - {"lm_head.weight"}):
        yield f"weight {name}", "absent", _text(found[name])


def _text(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else f"{list(shape)}"


def _unequal(what: str, expected: object, found: object) -> Iterator[tuple[str, object, object]]:
    if expected != found:
        yield what, expected, found


def check_hashes(model: Model, folder: Path, found: Mapping[str, str]) -> None:
    """Compare the SHA-256 of every weight file with the published one.

    Raises: ModelError naming the first file that differs or has no published hash, and the first that is absent.
    """
    held = {name: hash_ for name, hash_ in found.items() if name.endswith((".safetensors", ".bin"))}
    for name in sorted(held.keys() | model.sha256.keys()):
        if held.get(name) != model.sha256.get(name):
            raise ModelError(
                f"{folder}/{name} has the SHA-256 {held.get(name, 'of no file')}, and that of {model.name} as published is "
                f"{model.sha256.get(name, 'not stated')}: fetch the file again, or use model=hf for the model that it is."
            )


def check_tokenizer(folder: Path, vocab_size: int) -> None:
    """Raises: ModelError when the tokenizer of ``folder`` writes ids for which an embedding of ``vocab_size`` has no row."""
    highest = _highest(folder / "tokenizer.json")
    if highest >= vocab_size:
        raise ModelError(
            f"the tokenizer in {folder} has {highest + 1:,} tokens and the model's embedding {vocab_size:,}: use the tokenizer "
            "that the model was trained with."
        )


@cache
def _highest(file: Path) -> int:
    """The highest id that a tokenizer writes; -1 for one without a table of its own, which loading it judges."""
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        table = (raw.get("model") or {}).get("vocab") or {}
        ids = table.values() if isinstance(table, dict) else range(len(table))
        return max((*ids, *(token["id"] for token in raw.get("added_tokens") or ())), default=-1)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"{file} cannot be read as a tokenizer: copy it again from the model's source.") from error
