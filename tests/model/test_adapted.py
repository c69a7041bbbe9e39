"""Adapters that peft has saved, added to a base: the logits of peft's own model, on networks of transformers and our MPT."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from limit_lab.errors import ModelError
from limit_lab.microworld.checkpoint import SHIPPED
from limit_lab.model.adapted import CONFIG, WEIGHTS, merged
from limit_lab.model.loading import load_model
from tests.model.networks import gpt_neox, llama, saved

peft = pytest.importorskip("peft", reason="peft is not installed: pip install -e '.[lora]'")

#: What peft 0.21 calls of transformers 5.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

IDS = torch.arange(1, 25).reshape(2, 12)


def base(kind: str, folder: Path) -> Path:
    if kind == "mpt":
        shutil.copytree(SHIPPED, folder)
        return folder
    return saved({"llama": llama, "gpt_neox": gpt_neox}[kind](2048), folder)


def adapters(folder: Path, place: Path, **settings: Any) -> torch.Tensor:
    """Random adapters of the base, saved to ``place``; returns the logits of the adapted model."""
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = peft.LoraConfig(r=3, lora_alpha=6, target_modules="all-linear", task_type="CAUSAL_LM", **settings)
    wrapped = peft.get_peft_model(network, config).eval()
    torch.manual_seed(3)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    wrapped.save_pretrained(place)
    with torch.inference_mode():
        logits: torch.Tensor = wrapped(IDS).logits
    return logits


@pytest.mark.parametrize("kind", ["mpt", "llama", "gpt_neox"])
def test_the_model_is_that_of_peft(kind: str, tmp_path: Path) -> None:
    folder = base(kind, tmp_path / "base")
    wanted = adapters(folder, tmp_path / "adapters")
    made = merged(folder, tmp_path / "adapters", tmp_path / "models")
    with torch.inference_mode():
        found, plain = load_model(made)(IDS), load_model(folder)(IDS)
    torch.testing.assert_close(found, wanted, atol=1e-4 * float(wanted.abs().max()), rtol=0)
    assert not torch.allclose(found, plain, atol=1e-2)
    written = (made / "model.safetensors").stat().st_mtime_ns
    assert merged(folder, tmp_path / "adapters", tmp_path / "models") == made
    assert (made / "model.safetensors").stat().st_mtime_ns == written


def test_what_is_no_adapter_of_the_base_is_refused(tmp_path: Path) -> None:
    folder, place = base("llama", tmp_path / "base"), tmp_path / "adapters"
    with pytest.raises(ModelError, match=f"has no {CONFIG}: point it at a folder that peft has saved"):
        merged(folder, place, tmp_path / "models")
    adapters(folder, place)
    with pytest.raises(ModelError, match=r"give the base that (they|the adapters) were trained on"):
        merged(base("mpt", tmp_path / "other"), place, tmp_path / "models")
    stated = json.loads((place / CONFIG).read_text())
    (place / CONFIG).write_text(json.dumps(stated | {"use_dora": True}))
    with pytest.raises(ModelError, match="use_dora=True, and only plain LoRA adapters can be added"):
        merged(folder, place, tmp_path / "models")
    (place / CONFIG).write_text(json.dumps(stated | {"r": 5}))
    with pytest.raises(ModelError, match=r"has shape \[3, .*the base needs \[5, "):
        merged(folder, place, tmp_path / "models")
    (place / CONFIG).write_text(json.dumps(stated))
    (place / WEIGHTS).write_bytes((place / WEIGHTS).read_bytes()[:200])
    with pytest.raises(ModelError, match="is no complete safetensors file"):
        merged(folder, place, tmp_path / "models")
    assert not list((tmp_path / "models").glob("adapted-*/manifest.json"))
