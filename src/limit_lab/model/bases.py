"""What a cell starts from and is asked: base weights, tokenizer, gauntlet files and open prompts, resolved to places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from limit_lab import hub, store
from limit_lab.config import Study
from limit_lab.errors import DataError, ModelError
from limit_lab.fingerprints import fingerprint
from limit_lab.model import claims
from limit_lab.prompt import Tokenizer, instruction_of
from limit_lab.shapes import config_of, folder_of, weight_files, weights


def base_folder(study: Study) -> Path:
    """The folder of the base model: embedded, given, fetched before, or random weights written once under runs/models.

    Raises: ModelError when the folder does not exist, or does not hold what the model's name states.
    """
    if study.model.embedded:
        from limit_lab.microworld.checkpoint import find

        return find(study.microworld, Path(study.runs))
    if study.model.path is None and study.model.hub is None:
        return _random(study)
    folder = folder_of(study.model)
    if folder is None:
        raise ModelError(f"model.hub={study.model.hub} is not in the local cache: the same command with do=study fetches it.")
    if not folder.is_dir():
        raise ModelError(f"model.path={study.model.path} is no folder: point it at a local copy of the weights.")
    claims.check(study.model, folder)
    if study.model.adapters is not None:
        from limit_lab.model.adapted import merged

        return merged(folder, Path(study.model.adapters), Path(study.runs) / "models")
    return folder


def fetch(cells: Sequence[Study], *, unstated: bool = False) -> None:
    """Fetch every ``model.hub`` that is not here, or only those of whose shape nothing is ``unstated``.

    Raises: ModelError when one cannot be fetched.
    """
    for cell in cells:
        model = cell.model
        if model.hub is not None and model.path is None and not (unstated and model.d_model > 0):
            hub.fetch(model.hub, model.revision)


def verified(study: Study) -> bool | None:
    """Whether published hashes vouch for the weights; None where no model was published under this name, or by its publisher.

    Raises: ModelError naming the first file whose hash is not the published one.
    """
    model = study.model
    if model.sha256 and (model.path is not None or model.hub is not None):
        base = base_folder(replace(study, model=replace(model, adapters=None)))
        claims.check_hashes(model, base, content(base))
        return True
    return False if model.copied else None


def _random(study: Study) -> Path:
    from limit_lab.model.export import export
    from limit_lab.model.mpt import MPT
    from limit_lab.model.mpt_config import MPTConfig

    shape = study.model
    if shape.tokenizer is None:
        raise ModelError(f"model={shape.name} has neither path nor tokenizer: set model.path=FOLDER or model.tokenizer=FOLDER.")
    tokenizer = Path(shape.tokenizer)
    if not (tokenizer / "tokenizer.json").is_file():
        raise ModelError(f"model.tokenizer={shape.tokenizer} has no tokenizer.json: point it at a folder that has one.")
    claims.check_tokenizer(tokenizer, shape.vocab_size)
    sizes = (shape.d_model, shape.n_layers, shape.n_heads, shape.vocab_size, shape.max_seq_len)
    inputs = {"shape": sizes, "seed": shape.init_seed, "tokenizer": store.sha256(tokenizer / "tokenizer.json")}
    folder = Path(study.runs) / "models" / f"{shape.name}-{fingerprint(inputs)}"

    def work(place: Path) -> dict[str, Any]:
        config = MPTConfig(
            d_model=shape.d_model,
            n_layers=shape.n_layers,
            n_heads=shape.n_heads,
            vocab_size=shape.vocab_size,
            max_seq_len=shape.max_seq_len,
        )
        model = MPT(config).eval()
        model.initialise(shape.init_seed)
        export(model, tokenizer, place / "model", beside={"README.md": f"# random weights, seed {shape.init_seed}\n"})
        return {"seed": shape.init_seed}

    with store.locked(folder.with_name(f".{folder.name}")):
        store.stage(folder, inputs, work)
    return folder / "model"


#: What a model folder needs beside its weights.
NEEDED = ("config.json", "tokenizer.json")
#: Names the special tokens.
SPECIAL = "tokenizer_config.json"
#: How transformers names its architectures for causal language modelling.
CAUSAL = ("ForCausalLM", "LMHeadModel")


@cache
def _hashed(folder: Path) -> dict[str, str]:
    names = [*NEEDED, *(path.name for path in weight_files(folder))]
    # the special tokens of other families differ; the fingerprints of MPTs stand in committed files without it
    if config_of(folder)["model_type"] != "mpt" and (folder / SPECIAL).is_file():
        names.append(SPECIAL)
    return {name: store.sha256(folder / name) for name in names}


def content(folder: Path) -> dict[str, str]:
    """SHA-256 of configuration, tokenizer and weights. Raises: ModelError as `check_folder` does."""
    check_folder(folder)
    return _hashed(folder)


def check_folder(folder: Path) -> None:
    """Raises: ModelError unless ``folder`` holds a causal LM: configuration, tokenizer, and weights that are not cut."""
    for name in NEEDED:
        if not (folder / name).is_file():
            raise ModelError(f"{folder} has no {name}: a model folder holds config.json, tokenizer.json and *.safetensors.")
    weight_files(folder)
    raw = config_of(folder)
    kind, named = raw.get("model_type"), raw.get("architectures") or ["no stated architecture"]
    if kind != "mpt" and (raw.get("is_encoder_decoder") or not any(str(name).endswith(CAUSAL) for name in named)):
        raise ModelError(
            f"{folder} holds a {kind!r} model ({', '.join(map(str, named))}), which is no causal language model: point "
            "model.path at one, such as a LlamaForCausalLM."
        )
    for _ in weights(folder):
        pass


def tokenizer_of(study: Study) -> Tokenizer:
    """The tokenizer of the study's base model."""
    from limit_lab.model.loading import load_tokenizer

    return load_tokenizer(base_folder(study))


def tokenizer_mark(study: Study) -> str:
    """What tells the study's tokenizer from others: it is a function of its files."""
    found = content(base_folder(study))
    return fingerprint({name: mark for name, mark in found.items() if "token" in name})


def gauntlet_data(study: Study) -> Path:
    """The folder of the gauntlet's files; the embedded world writes its own, once per seed, version and part."""
    if study.gauntlet.data is not None:
        return Path(study.gauntlet.data)
    from limit_lab.microworld import benchmarks
    from limit_lab.microworld.world import VERSION, World

    world = study.microworld
    inputs = {"seed": world.seed, "version": VERSION, "part": world.part}
    folder = Path(study.runs) / "microworld" / f"{world.part}-seed{world.seed}-v{VERSION}"

    def work(place: Path) -> dict[str, Any]:
        benchmarks.write(World(world.seed), world.part, place)
        return inputs

    with store.locked(folder.with_name(f".{folder.name}")):
        store.stage(folder, inputs, work)
    return folder


def open_prompts(study: Study) -> list[dict[str, Any]]:
    """The open prompts, each with prompt, cluster and unseen (and topics in the embedded world), first ``answers.limit``."""
    if study.answers.prompts is None:
        from limit_lab.microworld import samples
        from limit_lab.microworld.world import World

        rows = samples.open_prompts(World(study.microworld.seed), study.microworld.part)
    else:
        rows = [
            {"prompt": _instruction(row, f"{study.answers.prompts} line {index + 1}"), "cluster": str(index), "unseen": True}
            for index, row in enumerate(store.read_rows(Path(study.answers.prompts)))
        ]
    if not rows:
        raise DataError(f"answers.prompts={study.answers.prompts} holds no prompt: fill it, or pass another jsonl.")
    return rows[: study.answers.limit]


def _instruction(row: dict[str, Any], place: str) -> str:
    turns = row.get("conversations")
    text = turns[0] if isinstance(turns, list) and turns else row.get("prompt", row.get("instruction"))
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{place} has no prompt, instruction or conversations in plain text: give every row one of them.")
    extra = f"\n{row['input']}" if "prompt" not in row and row.get("input") else ""
    return instruction_of(text + extra)
