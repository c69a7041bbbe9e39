"""Files of weights are those that safetensors and transformers write, and memory holds one weight at a time."""

from __future__ import annotations

import json
import weakref
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from limit_lab.errors import ModelError
from limit_lab.model.hugging_face import HuggingFaceLM
from limit_lab.model.shards import INDEX, InMemory, write
from limit_lab.store import read_json, sha256
from tests.model.networks import NETWORKS, llama
from tests.model.oracle import random_model

HELD = {"b.weight": torch.randn(3, 5), "a": torch.tensor(2.5), "ünïcode": torch.randn(7), "c": torch.randn(4, 2).T}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_bytes_are_those_of_safetensors(tmp_path: Path, dtype: torch.dtype) -> None:
    for number, held in enumerate((HELD, random_model().weights())):
        folder = tmp_path / str(number)
        folder.mkdir()
        written = write(InMemory(held), folder, dtype)
        wanted = {name: value.detach().to(dtype).contiguous() for name, value in held.items()}
        save_file(wanted, folder / "theirs", metadata={"format": "pt"})
        assert (folder / "model.safetensors").read_bytes() == (folder / "theirs").read_bytes()
        assert written == {"model.safetensors": sha256(folder / "theirs")}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_shards_are_those_of_transformers(tmp_path: Path, name: str) -> None:
    network, ours, theirs = NETWORKS[name](), tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    written = write(InMemory(HuggingFaceLM(network).weights()), ours, torch.float32, shard_bytes=4000)
    network.save_pretrained(theirs, max_shard_size=4000)
    found = {path.name: path.read_bytes() for path in theirs.glob("*.safetensors")}
    assert len(found) > 2
    assert {path.name: path.read_bytes() for path in ours.glob("*.safetensors")} == found
    assert read_json(ours / INDEX) == read_json(theirs / INDEX)
    assert written == {path.name: sha256(path) for path in ours.glob("*.safetensors")}


def test_tied_weights_are_written_once(tmp_path: Path) -> None:
    write(InMemory(HuggingFaceLM(llama(tied=True)).weights()), tmp_path, torch.bfloat16)
    names = load_file(tmp_path / "model.safetensors").keys()
    assert "model.embed_tokens.weight" in names
    assert "lm_head.weight" not in names


class Made:
    """Weights that exist only while they are read, as those gathered from several ranks do; counts the bytes alive."""

    def __init__(self, count: int, elements: int) -> None:
        self.names = {f"layer.{number}": (elements,) for number in range(count)}
        self.alive: list[weakref.ref[Tensor]] = []
        self.most = 0

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self.names

    def read(self, name: str) -> Tensor:
        made = torch.full(self.names[name], float(name.partition(".")[2]))
        self.alive.append(weakref.ref(made))
        self.most = max(self.most, sum(one.nbytes for held in self.alive if (one := held()) is not None))
        return made


@pytest.mark.parametrize("shard_bytes", [1, 10_000, 10**9])
def test_one_weight_at_a_time_is_held_however_large_the_files(tmp_path: Path, shard_bytes: int) -> None:
    weights = Made(count=40, elements=1000)
    written = write(weights, tmp_path, torch.bfloat16, shard_bytes=shard_bytes)
    assert len(weights.alive) == 40
    assert weights.most == 4000
    found = {name: value for file in written for name, value in load_file(tmp_path / file).items()}
    assert {name: float(value[0]) for name, value in found.items()} == {f"layer.{number}": number for number in range(40)}
    assert len(written) == {1: 40, 10_000: 8, 10**9: 1}[shard_bytes]
    if len(written) > 1:
        index = json.loads((tmp_path / INDEX).read_text(encoding="utf-8"))
        assert index["metadata"] == {"total_parameters": 40_000, "total_size": 80_000}
        assert set(index["weight_map"]) == set(found)


class Wrong(InMemory):
    """Announces other shapes than it reads."""

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {"w": (9,)}


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (Wrong({"w": torch.ones(8)}), r"w came with shape \[8\] and was announced with \[9\]: export again"),
        (InMemory({"w": torch.ones(3, dtype=torch.int64)}), "w holds torch.int64, no floating-point numbers"),
        (InMemory({"w": torch.tensor([1e39], dtype=torch.float64)}), "w holds values that are not finite"),
    ],
)
def test_what_is_no_weight_is_named(tmp_path: Path, weights: InMemory, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        write(weights, tmp_path, torch.bfloat16)
