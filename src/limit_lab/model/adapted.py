"""A base with the LoRA adapters of another training (Hu et al. 2021, in peft's layout) added to its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from limit_lab import store
from limit_lab.errors import ModelError
from limit_lab.fingerprints import fingerprint
from limit_lab.model.causal import CausalLM
from limit_lab.model.export import export
from limit_lab.model.loading import load_model

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
#: Begins the names of weights that peft saves of a wrapped model.
WRAPPED = "base_model.model."


def merged(base: Path, adapters: Path, place: Path) -> Path:
    """A model folder: ``base`` with ``adapters`` added, in float32, made once below the folder ``place``.

    Raises: ModelError when the adapters are not LoRA's, are damaged, or belong to another model.
    """
    for name in (CONFIG, WEIGHTS):
        if not (adapters / name).is_file():
            raise ModelError(f"model.adapters={adapters} has no {name}: point it at a folder that peft has saved.")
    inputs = {"base": _hashes(base), "adapters": {name: store.sha256(adapters / name) for name in (CONFIG, WEIGHTS)}}
    folder = place / f"adapted-{fingerprint(inputs)}"

    def work(own: Path) -> dict[str, Any]:
        model = load_model(base)
        add(model, adapters)
        export(model, base, own / "model", beside={})
        return inputs

    with store.locked(folder.with_name(f".{folder.name}")):
        store.stage(folder, inputs, work)
    return folder / "model"


def add(model: CausalLM, folder: Path) -> None:
    """Add the adapters of ``folder`` to the weights of ``model``, in place. Raises: ModelError as `merged` does."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.tuners_utils import BaseTunerLayer
    except ImportError as error:
        raise ModelError("model.adapters needs peft, which is not installed: pip install peft.") from error
    stated = store.read_json(folder / CONFIG)
    for name, plain in (("peft_type", "LORA"), ("bias", "none"), ("modules_to_save", None), ("use_dora", False)):
        if stated.get(name, plain) not in (plain, []):
            raise ModelError(
                f"{folder / CONFIG} has {name}={stated[name]}, and only plain LoRA adapters can be added: merge them with "
                "peft, and point model.path at the result."
            )
    target: nn.Module = getattr(model, "network", model)  # transformers' own module names
    config = LoraConfig.from_pretrained(str(folder))
    config.inference_mode = False
    try:
        inject_adapter_in_model(config, target)
    except ValueError as error:  # no module has the name of a target
        raise ModelError(
            f"{folder} holds adapters of another model ({error}): give the base that they were trained on."
        ) from error
    _load(target, folder)
    for name, layer in [(name, part) for name, part in target.named_modules() if isinstance(part, BaseTunerLayer)]:
        layer.merge()
        target.set_submodule(name, layer.get_base_layer())


@torch.no_grad()
def _load(target: nn.Module, folder: Path) -> None:
    try:
        held = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise ModelError(f"{folder / WEIGHTS} is no complete safetensors file ({error}): copy it again.") from error
    held = {name.removeprefix(WRAPPED): value for name, value in held.items()}
    own = {name.replace(".default.", "."): value for name, value in target.named_parameters() if ".lora_" in name}
    for name in sorted(own.keys() ^ held.keys()):
        where = "is missing" if name in own else "belongs to no layer of the base"
        raise ModelError(f"{folder / WEIGHTS}: {name!r} {where}: give the base that the adapters were trained on.")
    for name, value in own.items():
        if value.shape != held[name].shape:
            raise ModelError(
                f"{folder / WEIGHTS}: {name!r} has shape {list(held[name].shape)}, the base needs {list(value.shape)}: give "
                "the base that the adapters were trained on."
            )
        value.copy_(held[name])


def _hashes(base: Path) -> dict[str, str]:
    return {
        path.name: store.sha256(path) for path in sorted(base.iterdir()) if path.suffix in (".json", ".safetensors", ".bin")
    }
