"""Which folders load, and the sentence for every one that does not."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from limit_lab.config import Model
from limit_lab.errors import ModelError
from limit_lab.microworld.checkpoint import SHIPPED
from limit_lab.model.bases import content
from limit_lab.model.export import export
from limit_lab.model.loading import check_config, load_model, load_tokenizer
from limit_lab.model.mpt_config import canonical
from limit_lab.shapes import shape_of, weights
from tests.model.oracle import oracle, random_ids, random_model

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "model"
    export(random_model(), SHIPPED, folder, beside={"README.md": "# card\n"})
    return folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return shutil.copytree(exported, tmp_path / "model")


def reconfigure(folder: Path, **changes: object) -> None:
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(raw | changes), encoding="utf-8")


def same_as_exported(folder: Path) -> bool:
    ids = random_ids(2, 11)
    return torch.equal(load_model(folder)(ids), random_model()(ids))


def test_the_folder_that_transformers_saves_is_read(tmp_path: Path) -> None:
    oracle(random_model()).save_pretrained(tmp_path)
    assert same_as_exported(tmp_path)


def test_weights_may_lack_the_prefix_carry_a_head_and_lie_in_several_files(folder: Path) -> None:
    state = {name.removeprefix("transformer."): value for name, value in load_file(folder / WEIGHTS).items()}
    state["lm_head.weight"] = state["wte.weight"].clone()
    names = sorted(state)
    for part in range(3):
        save_file({name: state[name] for name in names[part::3]}, folder / f"model-{part}.safetensors")
    (folder / WEIGHTS).unlink()
    assert same_as_exported(folder)


def test_half_precision_weights_are_read_as_float32(folder: Path) -> None:
    state = {name: value.half() for name, value in load_file(folder / WEIGHTS).items()}
    save_file(state, folder / WEIGHTS)
    loaded = load_model(folder)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.transformer.wte.weight, random_model().transformer.wte.weight.half().float())


def rewrite(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        state = load_file(folder / WEIGHTS)
        change(state)
        save_file(state, folder / WEIGHTS)

    return damage


def cut(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2])


NORM = "transformer.norm_f.weight"


def pickled(folder: Path, parts: int = 1) -> list[Path]:
    """The folder's weights as torch's own files in the Hub's old layout, without prefix, instead of safetensors."""
    state = {name.removeprefix("transformer."): value for name, value in load_file(folder / WEIGHTS).items()}
    files = [folder / f"pytorch_model-{part + 1:05}-of-{parts:05}.bin" for part in range(parts)]
    for part, file in enumerate(files):
        torch.save({name: state[name] for name in sorted(state)[part::parts]}, file)
    shards = {name: files[at % parts].name for at, name in enumerate(sorted(state))}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": shards}), encoding="utf-8")
    (folder / WEIGHTS).unlink()
    return files


@pytest.mark.parametrize("parts", [1, 3])
def test_weights_in_the_format_of_torch_are_read_and_hashed(folder: Path, parts: int) -> None:
    before = dict(weights(folder))
    files = pickled(folder, parts)
    assert same_as_exported(folder)
    assert {canonical(name): shape for name, shape in weights(folder)} == before
    assert set(content(folder)) == {"config.json", "tokenizer.json", *(file.name for file in files)}
    assert shape_of(Model(name="m", path=str(folder))).parameters == sum(math.prod(shape) for shape in before.values())


def test_safetensors_go_before_the_format_of_torch(folder: Path) -> None:
    torch.save({"wte.weight": torch.zeros(1)}, folder / "pytorch_model.bin")
    assert same_as_exported(folder)
    assert "pytorch_model.bin" not in content(folder)


class Harmful:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("code in a weight file ran",)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda files: files[1].unlink(), "has no pytorch_model-00002-of-00002.bin, which its index of the weights names"),
        (lambda files: files[1].write_bytes(files[1].read_bytes()[:200]), "00002-of-00002.bin cannot be read as weights"),
        (lambda files: files[1].write_bytes(b""), "00002-of-00002.bin cannot be read as weights"),
        (lambda files: torch.save({"wte.weight": Harmful()}, files[1]), "00002-of-00002.bin cannot be read as weights"),
        (lambda files: torch.save([torch.ones(1)], files[1]), "holds more than tensors by name"),
    ],
)
def test_a_damaged_file_of_torch_is_one_sentence(
    damage: Callable[[list[Path]], object], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(pickled(folder, 2))
    for read in (load_model, content):
        with pytest.raises(ModelError) as caught:
            read(folder)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
    assert "code in a weight file" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "config.json").unlink(), "has no config.json: model.path must name"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is not JSON"),
        (lambda folder: reconfigure(folder, model_type="llama"), "parameters, and the files hold 26,688: copy"),
        (lambda folder: reconfigure(folder, no_bias=False), "no_bias=False; use a model without"),
        (lambda folder: reconfigure(folder, d_model=64), "has shape [61, 32], config.json says [61, 64]"),
        (lambda folder: reconfigure(folder, n_layers=3), "blocks.2.attn.Wqkv.weight' is missing"),
        (lambda folder: reconfigure(folder, n_layers=1), "blocks.1.attn.Wqkv.weight' is not part of an MPT"),
        (lambda folder: (folder / WEIGHTS).unlink(), "has no *.safetensors or pytorch_model*.bin: a model folder"),
        (cut, "model.safetensors is no complete safetensors file"),
        (rewrite(lambda state: state.pop(NORM)), f"the weight '{NORM}' is missing"),
        (rewrite(lambda state: state.update({"transformer.wpe.weight": torch.ones(3)})), "wpe.weight' is not part of an MPT"),
        (rewrite(lambda state: state.update({NORM: torch.ones(31)})), f"{NORM} has shape [31], config.json says [32]"),
    ],
)
def test_a_damaged_folder_is_one_sentence(damage: Callable[[Path], object], said: str, folder: Path) -> None:
    assert same_as_exported(folder)
    damage(folder)
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert said in str(caught.value)
    assert str(folder) in str(caught.value) or "configuration is not supported" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no config.json: model.path must name a folder"):
        check_config(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"has no tokenizer.json: point model.path"):
        load_tokenizer(tmp_path / "nowhere")


def test_a_tokenizer_without_eos_is_refused(folder: Path) -> None:
    assert load_tokenizer(folder).eos_token_id == load_tokenizer(SHIPPED).eos_token_id
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}', encoding="utf-8")
    with pytest.raises(ModelError, match=r"has no eos token: name one in its tokenizer_config.json"):
        load_tokenizer(folder)


def test_a_text_beyond_the_limit_of_its_tokenizer_warns_of_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(SHIPPED, tmp_path / "model")
    config = tmp_path / "model" / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_max_length": 8}), encoding="utf-8")
    tokenizer = load_tokenizer(tmp_path / "model")
    library = logging.getLogger("transformers")
    library.addHandler(caplog.handler)
    try:
        assert len(tokenizer.encode("one " * 20, add_special_tokens=False)) >= 20
    finally:
        library.removeHandler(caplog.handler)
    assert not caplog.records
