"""Export: a plain Hugging Face folder, written atomically and verified by reloading it."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import torch

from limit_lab import store
from limit_lab.errors import ModelError
from limit_lab.model.causal import CausalLM
from limit_lab.model.loading import load_model

#: The tokenizer files of a folder that is copied beside exported weights.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


@torch.inference_mode()
def export(model: CausalLM, tokenizer_folder: Path, folder: Path, *, card: str, dtype: torch.dtype = torch.float32) -> None:
    """Write weights, config.json, tokenizer and README.md (``card``) to ``folder``, replacing what was there.

    Raises: ModelError when a weight is not finite in ``dtype``, or when the reloaded model's logits differ from the given
    one's beyond rounding to it.
    """
    for name, value in model.state_dict().items():
        if not value.to(dtype).isfinite().all():
            raise ModelError(f"{name} holds values that are not finite: the training diverged, lower finetune.learning_rate.")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        model.write(partial, dtype)
        _beside(tokenizer_folder, partial, card)
        _verify(model, partial, dtype)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _beside(tokenizer_folder: Path, folder: Path, card: str) -> None:
    """Card and tokenizer files."""
    store.write_text(folder / "README.md", card)
    for name in TOKENIZER_FILES:
        if (tokenizer_folder / name).is_file():
            with store.writing(folder / name):
                shutil.copyfile(tokenizer_folder / name, folder / name)


def _verify(model: CausalLM, folder: Path, dtype: torch.dtype) -> None:
    ids = torch.arange(2, 34, device=model.device)[None] % model.vocab_size
    rounded = copy.deepcopy(model).eval()
    rounded.load_state_dict({name: value.to(dtype).float() for name, value in model.state_dict().items()})
    worst = float((rounded(ids) - load_model(folder)(ids)).abs().max())
    if not worst <= 1e-5:
        raise ModelError(f"{folder}: the exported model's logits differ by {worst:.2g} after reloading: export again.")
