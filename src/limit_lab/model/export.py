"""Export: a plain Hugging Face folder, written atomically, tensor by tensor, and verified by reloading it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from limit_lab import store
from limit_lab.errors import ModelError
from limit_lab.model.causal import CausalLM
from limit_lab.model.loading import map_model
from limit_lab.model.rounding import Whole, rounded
from limit_lab.model.shards import SHARD_BYTES, InMemory, Weights, write

#: The tokenizer files of a folder that is copied beside exported weights.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
CHAT_TEMPLATE = "chat_template.jinja"
#: Largest difference between logits that are computed alike.
TOLERANCE = 1e-5


@torch.no_grad()
def export(
    model: CausalLM,
    tokenizer_folder: Path,
    folder: Path,
    *,
    beside: Mapping[str, str],
    dtype: torch.dtype = torch.float32,
    shard_bytes: int = SHARD_BYTES,
    weights: Weights | None = None,
    expected: Tensor | None = None,
    tolerance: float = TOLERANCE,
) -> dict[str, str]:
    """Write weights, config.json, tokenizer and the texts ``beside`` them (by name) to ``folder``, replacing what was there.

    Weights that do not lie in ``model`` are read from ``weights``, and then ``expected`` holds the logits that they give for
    `probe`, float32 [1, 32, vocab_size]. Returns the SHA-256 of each file of weights. Raises: ModelError when a weight is not
    finite in ``dtype``, a file is not as written, or the reloaded logits differ by more than ``tolerance`` beyond rounding.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        model.write_config(partial, dtype)
        written = write(weights or InMemory(model.weights()), partial, dtype, shard_bytes=shard_bytes)
        _beside(tokenizer_folder, partial, beside)
        _verify(partial, written, logits(model, dtype) if expected is None else expected, tolerance)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return written


def probe(vocab_size: int) -> Tensor:
    """The ids whose logits say whether an export is its model, int64 [1, 32]."""
    return torch.arange(2, 34)[None] % vocab_size


def _beside(tokenizer_folder: Path, folder: Path, texts: Mapping[str, str]) -> None:
    """Tokenizer files, and texts that go before those of the same name."""
    for name in TOKENIZER_FILES:
        if (tokenizer_folder / name).is_file():
            with store.writing(folder / name):
                shutil.copyfile(tokenizer_folder / name, folder / name)
    for name, text in texts.items():
        store.write_text(folder / name, text)
    settings = folder / "tokenizer_config.json"
    if CHAT_TEMPLATE in texts and settings.is_file():
        stated = json.loads(settings.read_text(encoding="utf-8"))
        if stated.pop("chat_template", None) is not None:  # two templates would be one too many
            store.write_json(settings, stated)


@torch.no_grad()
def logits(model: CausalLM, dtype: torch.dtype, whole: Whole | None = None) -> Tensor:
    """What the model says to `probe` when its weights, or what ``whole`` makes of each, are rounded to ``dtype``."""
    model.eval()
    with rounded(model, dtype, whole):
        out: Tensor = model(probe(model.vocab_size).to(model.device))
    return out.float().cpu()


def _verify(folder: Path, written: Mapping[str, str], expected: Tensor, tolerance: float) -> None:
    for name, wanted in written.items():
        if store.sha256(folder / name) != wanted:
            raise ModelError(f"{folder / name} does not hold what was written: check the disk and export again.")
    again = map_model(folder)
    kind = next(again.parameters()).dtype
    with rounded(again, kind):
        worst = float((again(probe(again.vocab_size)) - expected).abs().max())
    if not worst <= tolerance:
        raise ModelError(f"{folder}: the exported model's logits differ by {worst:.2g} after reloading: export again.")
