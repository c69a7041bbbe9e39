"""What stays of a cell once it is evaluated: manifests always, weights and checkpoints as ``export.keep`` says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, GenerationConfig

from limit_lab import cell, handover, hub, store
from limit_lab.__main__ import main
from limit_lab.compose import compose
from limit_lab.config import Study
from limit_lab.errors import ModelError
from limit_lab.model.bases import tokenizer_of
from limit_lab.model.loading import load_tokenizer
from limit_lab.prompt import prompt_ids
from tests.commands import groups
from tests.model.networks import SHIPPED

WEIGHTS = "export/model/model.safetensors"


def asked(folder: Path, *more: str) -> list[str]:
    few = [
        "answers.limit=2",
        "gauntlet.prompting=[raw]",
        "gauntlet.raw_only=true",
        "finetune.duration=3step",
        "finetune.held_out=0",
    ]
    given = [
        *groups(folder / "groups"),
        "+experiment=tiny",
        f"runs={folder / 'runs'}",
        "mixture=lima_tiny",
        "study.mixtures=[]",
    ]
    return [*given, "study.baseline=null", *few, *more]


def only(folder: Path) -> Path:
    (found,) = (folder / "runs/cells").iterdir()
    return found


def said(call: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> str:
    """What a call that ends with ``code`` says: its one line on stderr, or for 0 all of its output."""
    capsys.readouterr()
    assert main(call) == code
    out = capsys.readouterr()
    return out.out if code == 0 else out.err


class Hub:
    """Stands in for the library's client: remembers what it was sent."""

    fails = False

    def __init__(self) -> None:
        self.repositories: dict[str, bool] = {}
        self.files: dict[str, set[str]] = {}

    def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> None:
        assert exist_ok
        if self.fails:
            raise ConnectionError("name resolution failed.")
        self.repositories[name] = private

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str, delete_patterns: list[str]) -> Any:
        self.files[repo_id] = {path.name for path in folder_path.iterdir()}
        return type("Commit", (), {"oid": "abc", "commit_url": f"https://example.org/{repo_id}"})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Hub:
    found = Hub()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: found)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "token")
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: False)
    return found


@pytest.mark.slow
def test_a_cell_without_its_weights_is_done_until_somebody_asks_it_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], server: Hub
) -> None:
    server.fails = True
    push, keep = "export.push=me/mine-*", "export.keep=records"
    first = said(asked(tmp_path, push, keep), 1, capsys)
    assert "export.push=me/mine-lima_tiny-" in first
    assert "(ConnectionError: name resolution failed): the weights stay in" in first
    folder = only(tmp_path)
    assert (folder / WEIGHTS).is_file()  # nothing is removed before it was sent

    server.fails = False
    assert "finetune:" not in said(asked(tmp_path, push, keep), 0, capsys)
    name = f"me/mine-{folder.name}"
    assert server.repositories == {name: True}
    assert {"model.safetensors", "README.md", "chat_template.jinja", "generation_config.json"} <= server.files[name]
    assert not list(folder.rglob("*.safetensors*"))
    assert store.read_json(folder / "export/manifest.json")["released"].keys() == {"model/model.safetensors"}
    assert store.read_json(folder / "summary.json")["weights"].keys() == {"model.safetensors"}

    for verb in ("do=study", "do=status", "do=report"):
        assert "finetune:" not in said(asked(tmp_path, keep, verb), 0, capsys)
    assert "1 done" in said(asked(tmp_path, "do=status"), 0, capsys)

    records = {path: path.read_bytes() for path in folder.rglob("*.json*") if path.name != "failed.json"}
    for other in ("answers.max_new_tokens=5", "gauntlet.max_seq_tokens=200"):
        again = said(asked(tmp_path, keep, other), 1, capsys)
        assert f"the weights of {folder.name} were not kept once it was evaluated (export.keep=records)" in again
        assert f"delete {folder / 'export'}, and the same command trains them again" in again
    assert "do=export would read them" in said(asked(tmp_path, "do=export"), 1, capsys)
    assert all(path.read_bytes() == before for path, before in records.items())


@pytest.mark.slow
def test_all_keeps_the_last_checkpoint_and_the_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str], server: Hub) -> None:
    said(asked(tmp_path, "export.keep=all", "export.dtype=bf16", "export.shard_gib=0.0005"), 0, capsys)
    folder = only(tmp_path)
    assert (folder / "finetune/checkpoint.ckpt").is_file()
    shards = sorted(path.name for path in (folder / "export/model").glob("*.safetensors"))
    assert len(shards) > 1
    assert store.read_json(folder / "summary.json")["identity"]["export"] == "bf16"
    assert store.read_json(folder / "export/model/config.json")["dtype"] == "bfloat16"
    same = asked(tmp_path, "export.dtype=bf16")
    assert said([*same, "do=export"], 0, capsys) == f"lima_tiny: {folder / 'export/model'}\n"
    said([*same, "do=export", "export.push=me/mine", "export.public=true"], 0, capsys)
    assert server.repositories == {"me/mine": False}
    assert set(shards) <= server.files["me/mine"]
    said([*same, "export.keep=records"], 0, capsys)
    assert not list(folder.rglob("*.safetensors*"))
    assert not (folder / "finetune/checkpoint.ckpt").exists()


def test_nothing_is_exported_that_is_not_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is not there yet: run the same command with do=study first" in said(asked(tmp_path, "do=export"), 1, capsys)


def test_only_the_type_counts_as_another_cell(tmp_path: Path) -> None:
    def identity(*more: str) -> dict[str, Any]:
        given = asked(tmp_path, *more)
        return cell.identity(compose(given[2:], Path(given[1])))

    plain = identity()
    assert "export" not in plain
    assert identity("export.keep=records", "export.push=me/mine", "export.shard_gib=1", "export.public=true") == plain
    assert identity("export.dtype=bf16") == {**plain, "export": "bf16"}
    base = identity("mixture=none")
    assert identity("mixture=none", "export.dtype=bf16") == base


def test_texts_say_how_to_ask_and_when_to_stop(tmp_path: Path) -> None:
    study = compose(["answers.temperature=0.7", "answers.top_p=0.9", "answers.top_k=40", "prompt.format=alpaca_tight"])
    tokenizer = tokenizer_of(study)
    for name, text in handover.texts(study, tokenizer).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    found = GenerationConfig.from_pretrained(tmp_path)
    eos = tokenizer.eos_token_id
    assert (found.eos_token_id, found.pad_token_id, found.max_new_tokens) == (eos, eos, study.answers.max_new_tokens)
    assert (found.do_sample, found.temperature, found.top_p, found.top_k) == (True, 0.7, 0.9, 40)
    greedy = json.loads(handover.texts(compose([]), tokenizer)["generation_config.json"])
    assert greedy == {"eos_token_id": eos, "pad_token_id": eos, "max_new_tokens": 120, "do_sample": False}
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((SHIPPED / name).read_bytes())
    asked_so = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template([{"role": "user", "content": "Name a lake."}])
    assert asked_so["input_ids"] == prompt_ids(load_tokenizer(SHIPPED), "Name a lake.", "alpaca_tight")
    assert (tmp_path / "prompt_format.txt").read_text(encoding="utf-8").count("{instruction}") == 1


def test_a_push_needs_a_token_and_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Hub) -> None:
    assert hub.refusal() is None
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ModelError, match=r"^export.push=me/mine: to push needs a token that may write: run 'hf auth login'"):
        hub.push(tmp_path, "me/mine", public=False)
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: True)
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE forbids to push"):
        hub.push(tmp_path, "me/mine", public=False)
    assert server.repositories == {}


@pytest.mark.parametrize(
    ("name", "count", "wanted"),
    [("me/mine", 2, "would take 2 cells, each over the one before: write me/mine-*"), ("me/mine-*", 2, None)],
)
def test_cells_do_not_overwrite_one_another_on_the_hub(name: str, count: int, wanted: str | None, server: Hub) -> None:
    from limit_lab.preflight import _push

    cells = [_cell("lima", name), _cell("none", name), _cell("lima_plus_instruct", name)]
    found = list(_push(cells))
    assert len(found) == (0 if wanted is None else 1)
    assert wanted is None or wanted in found[0]
    assert list(_push(cells[:2])) == []


def _cell(mixture: str, push: str) -> Study:
    return compose([f"mixture={mixture}", f"export.push={push}"])
