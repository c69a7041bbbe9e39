"""Models of the Hugging Face Hub: fetched into its local cache, found there without network, and handed over to it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from limit_lab.errors import ModelError

#: Configuration, tokenizer and weights; neither code nor other formats of the same weights.
DESCRIBING = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
SAFE = ("model*.safetensors", "model.safetensors.index.json")
PICKLED = ("pytorch_model*.bin", "pytorch_model.bin.index.json")
#: What to do about files that are not here.
REMEDY = "go online, correct the name, or pass a local copy with model.path=/path/to/folder"


def offline() -> bool:
    """Whether the environment forbids to ask the server."""
    from huggingface_hub import constants

    return constants.is_offline_mode()


def found(name: str, revision: str | None) -> Path | None:
    """The local copy of the repository ``name`` with configuration and weights, or None; asks no server."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True, allow_patterns=[*DESCRIBING]))
    except HFValidationError as error:
        raise ModelError(f"model.hub={name} is no name of a repository: write it as owner/name.") from error
    except (LocalEntryNotFoundError, HfHubHTTPError):
        return None
    whole = any(_whole([path.name for path in folder.glob(form)]) for form in (SAFE[0], PICKLED[0]))
    return folder if whole and (folder / "config.json").is_file() else None


def _whole(names: list[str]) -> bool:
    """Whether there are weights, and as many shards as their names count (``model-00001-of-00003``)."""
    counted = [int(found[1]) for name in names if (found := re.search(r"-of-(\d+)\.", name))]
    return bool(names) and all(count == len(counted) for count in counted)


@cache
def fetch(name: str, revision: str | None) -> Path:
    """The folder of the repository ``name`` in the local cache, fetched where it is not there.

    Raises: ModelError when the server cannot be reached, refuses, or has no such repository.
    """
    here = found(name, revision)
    if here is not None:
        return here
    from huggingface_hub import HfApi, snapshot_download

    try:
        files = HfApi().list_repo_files(name, revision=revision)
        weights = SAFE if any(file.endswith(".safetensors") for file in files) else PICKLED
        return Path(snapshot_download(name, revision=revision, allow_patterns=[*DESCRIBING, *weights]))
    except Exception as error:  # the library raises its own, httpx's and the system's errors
        at = f" at model.revision={revision}" if revision is not None else ""
        raise ModelError(
            f"model.hub={name}{at} is not in the local cache and cannot be fetched ({type(error).__name__}: "
            f"{_reason(error)}): {REMEDY}."
        ) from error


def refusal() -> str | None:
    """Why nothing can be pushed from here, with the remedy, as far as that is known without asking the server."""
    from huggingface_hub import get_token

    if offline():
        return "HF_HUB_OFFLINE forbids to push: unset it, or leave out export.push and push later with do=export."
    if get_token() is None:
        return "to push needs a token that may write: run 'hf auth login' or set HF_TOKEN, or leave out export.push."
    return None


def push(folder: Path, name: str, *, public: bool) -> dict[str, str]:
    """Send a folder to the repository ``name``, made private (or ``public``) if it is not there; returns commit and address.

    Weights of an earlier push that the folder does not have are removed there. Raises: ModelError when there is no token, or
    the server cannot be reached or refuses.
    """
    from huggingface_hub import HfApi

    if (reason := refusal()) is not None:
        raise ModelError(f"export.push={name}: {reason}")
    try:
        api = HfApi()
        api.create_repo(name, private=not public, exist_ok=True)
        made = api.upload_folder(
            repo_id=name,
            folder_path=folder,
            commit_message="Hand over verified weights",
            delete_patterns=["*.safetensors", "*.safetensors.index.json"],
        )
    except Exception as error:  # the library raises its own, httpx's and the system's errors
        raise ModelError(
            f"export.push={name} failed ({type(error).__name__}: {_reason(error)}): the weights stay in {folder}; check the "
            "network, the name and what the token may write, and the same command pushes again."
        ) from error
    return {"commit": str(made.oid), "url": str(made.commit_url)}


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")
