"""Models of the Hub from a local cache, by the library's own loading code; nothing here asks a server."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest

from limit_lab import hub, plan
from limit_lab.compose import compose
from limit_lab.errors import ConfigError, ModelError, PreflightError
from limit_lab.microworld.checkpoint import SHIPPED
from limit_lab.model.bases import base_folder, content, fetch
from limit_lab.model.loading import load_model
from limit_lab.shapes import shape_of
from tests.commands import call, groups

COMMIT = "0123456789012345678901234567890123456789"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    hub.fetch.cache_clear()
    return tmp_path / "home"


def cached(home: Path, name: str = "owner/name", without: str = "") -> Path:
    """The shipped base as the cache keeps a fetched repository."""
    place = home / "hub" / f"models--{name.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    snapshot = place / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        if file != without:
            shutil.copyfile(SHIPPED / file, snapshot / file)
    return snapshot


def test_a_repository_is_found_in_the_cache_and_used_as_a_folder(home: Path) -> None:
    snapshot = cached(home)
    study = compose(["model=hf", "model.hub=owner/name"])
    fetch([study])
    assert base_folder(study) == snapshot
    assert content(snapshot) == content(SHIPPED)
    assert shape_of(study.model).parameters == shape_of(compose([]).model).parameters
    assert load_model(base_folder(study)).vocab_size == 2048
    assert "read from owner/name" in plan.describe([study])
    assert hub.found("owner/name", COMMIT) == snapshot


def test_a_path_goes_before_the_hub(home: Path) -> None:
    cached(home)
    study = compose(["model=hf", "model.hub=owner/name", f"model.path={SHIPPED}"])
    assert base_folder(study) == SHIPPED


@pytest.mark.parametrize("lost", ["config.json", "model.safetensors"])
def test_a_repository_of_which_a_part_was_fetched_is_not_there(home: Path, lost: str) -> None:
    cached(home, without=lost)
    assert hub.found("owner/name", None) is None


def test_shards_are_counted(home: Path) -> None:
    snapshot = cached(home, without="model.safetensors")
    (snapshot / "model-00001-of-00002.safetensors").touch()
    assert hub.found("owner/name", None) is None
    (snapshot / "model-00002-of-00002.safetensors").touch()
    assert hub.found("owner/name", None) == snapshot


@pytest.mark.parametrize("revision", [None, "v1"])
def test_what_cannot_be_fetched_is_one_sentence(home: Path, revision: str | None) -> None:
    with pytest.raises(ModelError) as caught:
        hub.fetch("owner/name", revision)
    assert str(caught.value).startswith("model.hub=owner/name ")
    assert "pass a local copy with model.path=/path/to/folder." in str(caught.value)
    assert ("model.revision=v1" in str(caught.value)) == (revision is not None)
    assert "\n" not in str(caught.value)


def test_before_it_is_fetched_the_stated_shape_is_planned_with(home: Path) -> None:
    study = compose(["+experiment=real_rows_hf", "model=pythia_160m"])
    assert "EleutherAI/pythia-160m, not fetched yet: ~162,322,944 parameters as stated" in plan.describe([study])
    assert shape_of(study.model).body == 162_322_944 - 2 * 50_304 * 768
    with pytest.raises(ModelError, match=r"model.hub=EleutherAI/pythia-160m is not in the local cache: the same command"):
        base_folder(study)
    with pytest.raises(PreflightError, match=r"model.hub=EleutherAI/pythia-160m is not in the local cache, and HF_HUB_OFFLINE"):
        plan.preflight([study])


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model=hf", "model.hub=name"], "model.hub=name names no repository"),
        (["model=hf", "model.revision=v1"], "model.revision=v1 belongs to no repository"),
        (["model.hub=owner/name"], "model=micro is embedded: add model=hf"),
    ],
)
def test_a_hub_that_cannot_be_meant_is_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose(overrides)


@pytest.mark.slow
def test_a_study_runs_on_a_cached_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached(tmp_path / "home")
    monkeypatch.setitem(os.environ, "HF_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    chosen = [*groups(tmp_path / "conf"), "+experiment=tiny", f"runs={tmp_path / 'runs'}", "study.mixtures=[lima_tiny]"]
    made = call([*chosen, "model=hf", "model.hub=owner/name"])
    assert made.returncode == 0, made.stderr
    refused = call([*chosen, "model=hf", "model.hub=owner/other"])
    assert refused.returncode == 1
    assert "model.hub=owner/other is not in the local cache" in refused.stderr
