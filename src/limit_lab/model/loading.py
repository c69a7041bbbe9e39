"""From a folder to a model and its tokenizer. A folder has the layout of transformers' ``save_pretrained``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from limit_lab.errors import ModelError
from limit_lab.model.attention import alibi_slopes
from limit_lab.model.causal import CausalLM
from limit_lab.model.mpt import MPT
from limit_lab.model.mpt_config import MPTConfig, canonical
from limit_lab.model.pickled import tensors
from limit_lab.prompt import Tokenizer
from limit_lab.shapes import config_of, weight_files

#: What transformers' tokenizers take for no limit.
NO_LIMIT = int(1e30)


def load_tokenizer(folder: Path) -> Tokenizer:
    """The folder's fast tokenizer. Raises: ModelError when there is none or it has no end-of-sequence token."""
    from transformers import PreTrainedTokenizerFast

    if not (folder / "tokenizer.json").is_file():
        raise ModelError(f"{folder} has no tokenizer.json: point model.path (or model.tokenizer) at a folder that has one.")
    try:
        # what transformers does for byte-level BPE whatever the file says, with a warning if that is True
        tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder), clean_up_tokenization_spaces=False)
    except Exception as error:  # the tokenizers library raises bare exceptions
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{folder}/tokenizer.json cannot be read ({reason}): copy the tokenizer again.") from error
    if tokenizer.eos_token_id is None:
        raise ModelError(f"the tokenizer in {folder} has no eos token: name one in its tokenizer_config.json.")
    # lengths are checked and counted where they matter; the tokenizer would only warn about them
    tokenizer.model_max_length = NO_LIMIT
    return cast(Tokenizer, tokenizer)


def is_mpt(folder: Path) -> bool:
    """Whether our own MPT reads the folder; transformers reads every other. Raises: ModelError for a damaged config.json."""
    return config_of(folder).get("model_type") == "mpt"


def check_config(folder: Path) -> None:
    """Raises: ModelError when the folder's configuration is not supported."""
    if is_mpt(folder):
        MPTConfig.from_hugging_face(config_of(folder))
    else:
        from limit_lab.model import hugging_face

        hugging_face.check_config(folder)


def load_model(folder: Path) -> CausalLM:
    """The folder's model in float32, in evaluation mode, on the CPU: our MPT, or any causal LM of transformers.

    Raises: ModelError when a file is damaged, or weights are missing, surplus or misshapen; the first such name is given.
    """
    if is_mpt(folder):
        return load_mpt(folder)
    from limit_lab.model import hugging_face

    return hugging_face.load(folder)


def accept(model: CausalLM, folder: Path) -> None:
    """Try a model of `map_model` where it lies now. Raises: ModelError as `load_model` does."""
    from limit_lab.model import hugging_face

    if isinstance(model, hugging_face.HuggingFaceLM):
        hugging_face.accept(model, folder)


def map_model(folder: Path) -> CausalLM:
    """The folder's model for reading only: its weights stay in the files as they lie there, mapped into memory.

    Raises: ModelError as `load_model` does.
    """
    if is_mpt(folder):
        return map_mpt(folder)
    from limit_lab.model import hugging_face

    return hugging_face.mapped(folder)


def load_mpt(folder: Path) -> MPT:
    """The folder's MPT in float32, in evaluation mode, on the CPU. Raises: ModelError as `load_model` does."""
    model = map_mpt(folder)
    own = {name: value.to(torch.float32, copy=True) for name, value in model.state_dict().items()}  # the only copy in memory
    model.load_state_dict(own, assign=True)
    return model.requires_grad_(True)


def map_mpt(folder: Path) -> MPT:
    """The folder's MPT with its weights in the files. Raises: ModelError as `load_model` does."""
    config = MPTConfig.from_hugging_face(config_of(folder))
    with torch.device("meta"):
        model = MPT(config)
    model.slopes = alibi_slopes(config.n_heads)
    state = _state(folder)
    _require_all(model, state, folder)
    model.load_state_dict(state, assign=True)
    return model.requires_grad_(False).eval()


def mpt_weights(folder: Path) -> tuple[MPTConfig, dict[str, torch.Tensor]]:
    """An MPT's configuration, and its weights by name, which stay in the files. Raises: ModelError as `load_model` does."""
    config, state = MPTConfig.from_hugging_face(config_of(folder)), _state(folder)
    with torch.device("meta"):
        _require_all(MPT(config), state, folder)
    return config, state


def _state(folder: Path) -> dict[str, torch.Tensor]:
    """An MPT's weights by their names, mapped from the files."""
    state: dict[str, torch.Tensor] = {}
    for file in weight_files(folder):
        try:
            state |= tensors(file) if file.suffix == ".bin" else load_file(file)
        except SafetensorError as error:
            raise ModelError(f"{file} is no complete safetensors file ({error}): export or download it again.") from error
    return {canonical(key): value for key, value in state.items() if not key.startswith("lm_head.")}


def _require_all(model: MPT, state: Mapping[str, torch.Tensor], folder: Path) -> None:
    own = {name: parameter.shape for name, parameter in model.named_parameters()}
    for name in sorted(own.keys() ^ state.keys()):
        raise ModelError(f"{folder}: the weight {name!r} is {'missing' if name in own else 'not part of an MPT'}.")
    for name, shape in own.items():
        if state[name].shape != shape:
            raise ModelError(f"{folder}: {name} has shape {list(state[name].shape)}, config.json says {list(shape)}.")
