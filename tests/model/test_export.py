"""An exported folder holds the model that went in, for us and for transformers, or it is not there."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, MptForCausalLM

from limit_lab.errors import ModelError
from limit_lab.microworld.checkpoint import SHIPPED
from limit_lab.model.export import export, probe
from limit_lab.model.loading import load_model, load_tokenizer
from limit_lab.model.mpt import MPT
from limit_lab.model.mpt_config import MPTConfig
from limit_lab.model.shards import InMemory, Weights, write
from tests.model.oracle import SHAPE, random_ids, random_model

CONFIG = replace(SHAPE, clip_qkv=0.7, softmax_scale=0.9, layer_norm_epsilon=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_reloaded_export_gives_the_same_logits(tmp_path: Path, dtype: torch.dtype) -> None:
    model, ids = random_model(CONFIG), random_ids(2, 20)
    export(model, SHIPPED, tmp_path / "model", beside={"README.md": "# card\n"}, dtype=dtype)
    again = load_model(tmp_path / "model")
    assert again.config == CONFIG
    assert not again.training
    assert next(again.parameters()).dtype == torch.float32
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value.to(dtype).float()), name
    assert torch.equal(again(ids), model(ids)) == (dtype == torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, d_model=48, n_heads=6)], ids=["four heads", "six heads"])
def test_transformers_loads_the_folder(tmp_path: Path, dtype: torch.dtype, config: MPTConfig) -> None:
    export(random_model(config), SHIPPED, tmp_path / "model", beside={"README.md": "# card\n"}, dtype=dtype)
    theirs, report = MptForCausalLM.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert theirs.dtype == dtype
    assert not any(report.values()), report
    ids = random_ids(2, 20)
    with torch.no_grad():
        expected = theirs.float().eval()(ids).logits
    torch.testing.assert_close(load_model(tmp_path / "model")(ids), expected, atol=1e-5, rtol=0)
    text = "### Instruction:\nName a lake.\n"
    assert AutoTokenizer.from_pretrained(tmp_path / "model").encode(text) == load_tokenizer(SHIPPED).encode(text)


def test_the_card_goes_along_and_what_was_there_goes(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"of another model")
    export(random_model(), SHIPPED, folder, beside={"README.md": "# a card, ünïcode\n"})
    assert (folder / "README.md").read_text(encoding="utf-8") == "# a card, ünïcode\n"
    names = {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in folder.iterdir()} == names
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_export_that_fails_half_way_leaves_the_old_folder(tmp_path: Path) -> None:
    folder, unwritable = tmp_path / "model", "\ud800"
    with pytest.raises(UnicodeEncodeError):
        export(random_model(), SHIPPED, folder, beside={"README.md": unwritable})
    assert not folder.exists()
    export(random_model(), SHIPPED, folder, beside={"README.md": "first\n"})
    with pytest.raises(UnicodeEncodeError):
        export(random_model(seed=1), SHIPPED, folder, beside={"README.md": unwritable})
    assert (folder / "README.md").read_text(encoding="utf-8") == "first\n"
    ids = random_ids(1, 9)
    assert torch.equal(load_model(folder)(ids), random_model()(ids))
    export(random_model(seed=1), SHIPPED, folder, beside={"README.md": "second\n"})
    assert torch.equal(load_model(folder)(ids), random_model(seed=1)(ids))


@pytest.mark.parametrize(("value", "dtype"), [(torch.nan, torch.float32), (torch.inf, torch.float32), (1e6, torch.float16)])
def test_a_diverged_model_is_not_exported(tmp_path: Path, value: float, dtype: torch.dtype) -> None:
    model = random_model()
    model.transformer.norm_f.weight[3] = value
    with pytest.raises(ModelError, match=r"norm_f.weight holds values that are not finite"):
        export(model, SHIPPED, tmp_path / "model", beside={"README.md": "# card\n"}, dtype=dtype)
    assert not (tmp_path / "model").exists()


def test_an_export_whose_configuration_forgets_something_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forgetful = random_model(SHAPE).config.to_hugging_face()
    monkeypatch.setattr(MPTConfig, "to_hugging_face", lambda _: forgetful)
    with pytest.raises(ModelError, match=r"logits differ by .* after reloading: export again"):
        export(random_model(CONFIG), SHIPPED, tmp_path / "model", beside={"README.md": "# card\n"})
    assert not (tmp_path / "model").exists()


def test_an_export_whose_logits_overflow_is_refused(tmp_path: Path) -> None:
    model = random_model()
    model.transformer.wte.weight *= 1e30
    with pytest.raises(ModelError, match="logits differ by nan after reloading"):
        export(model, SHIPPED, tmp_path / "model", beside={"README.md": "# card\n"})
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shards_load_for_us_and_for_transformers(tmp_path: Path, dtype: torch.dtype) -> None:
    model, ids = random_model(CONFIG), random_ids(2, 20)
    written = export(model, SHIPPED, tmp_path / "model", beside={}, dtype=dtype, shard_bytes=20_000)
    assert len(written) > 3
    again = load_model(tmp_path / "model")
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value.to(dtype).float()), name
    theirs = MptForCausalLM.from_pretrained(tmp_path / "model").float().eval()
    with torch.no_grad():
        torch.testing.assert_close(again(ids), theirs(ids).logits, atol=1e-5, rtol=0)


def test_weights_may_come_from_elsewhere(tmp_path: Path) -> None:
    model, empty = random_model(), MPT(random_model().config).to("meta")
    weights, ids = InMemory(model.weights()), random_ids(1, 9)
    with torch.no_grad():
        expected = model(probe(model.vocab_size))
    export(empty, SHIPPED, tmp_path / "model", beside={}, weights=weights, expected=expected)
    assert torch.equal(load_model(tmp_path / "model")(ids), model(ids))
    with pytest.raises(ModelError, match=r"logits differ by .* after reloading: export again"):
        export(empty, SHIPPED, tmp_path / "model", beside={}, weights=weights, expected=expected + 1e-4)
    export(empty, SHIPPED, tmp_path / "model", beside={}, weights=weights, expected=expected + 1e-4, tolerance=1e-3)


def test_a_file_that_changes_under_the_export_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(weights: Weights, folder: Path, dtype: torch.dtype, *, shard_bytes: int) -> dict[str, str]:
        written = write(weights, folder, dtype, shard_bytes=shard_bytes)
        with (folder / "model.safetensors").open("r+b") as file:  # a row of the vocabulary that the probe does not read
            file.seek(-64, 2)
            file.write(b"\0\0\0\0")
        return written

    monkeypatch.setattr("limit_lab.model.export.write", broken)
    with pytest.raises(ModelError, match=r"model.safetensors does not hold what was written: check the disk"):
        export(random_model(), SHIPPED, tmp_path / "model", beside={})
    assert not (tmp_path / "model").exists()


def test_one_chat_template_goes_along(tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer"
    shutil.copytree(SHIPPED, tokenizer)
    settings = json.loads((tokenizer / "tokenizer_config.json").read_text(encoding="utf-8"))
    (tokenizer / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": "old"}), encoding="utf-8")
    export(random_model(), tokenizer, tmp_path / "model", beside={"chat_template.jinja": "{{ messages[0]['content'] }}!"})
    assert json.loads((tmp_path / "model" / "tokenizer_config.json").read_text(encoding="utf-8")) == settings
    asked = [{"role": "user", "content": "Name a lake."}]
    loaded = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert loaded.apply_chat_template(asked, tokenize=False) == "Name a lake.!"
