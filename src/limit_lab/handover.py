"""What goes along with a cell's weights, what of them stays once it is evaluated, and the way to the Hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limit_lab import hub, store
from limit_lab.config import Study
from limit_lab.errors import DataError
from limit_lab.prompt import Tokenizer, beginning, chat_template, template

#: What ``export.keep=records`` removes of a cell, below its folder: by stage, the files.
WEIGHTS = {
    "export": ("model/*.safetensors", "model/*.safetensors.index.json"),
    "finetune": ("checkpoint.ckpt",),
}


def texts(study: Study, tokenizer: Tokenizer) -> dict[str, str]:
    """The files beside exported weights that say how to ask them: the prompt's format twice, and how answers end."""
    how, eos = study.answers, tokenizer.eos_token_id
    generation: dict[str, Any] = {"eos_token_id": eos, "pad_token_id": eos, "max_new_tokens": how.max_new_tokens}
    generation["do_sample"] = how.temperature > 0
    if how.temperature > 0:
        generation |= {"temperature": how.temperature, "top_p": how.top_p, "top_k": how.top_k}
    return {
        "chat_template.jinja": chat_template(study.prompt.format, beginning(tokenizer)),
        "prompt_format.txt": template(study.prompt.format),
        "generation_config.json": json.dumps(generation, indent=2) + "\n",
    }


def settled(study: Study, folder: Path, mark: Mapping[str, str]) -> bool:
    """Whether a complete cell's weights are where ``export`` wants them."""
    if not study.mixture.samples:
        return True
    pushed = study.export.push is None or store.done(folder / "push", _to(study, folder, mark))
    return pushed and not (study.export.keep == "records" and any(_held(folder)))


def settle(study: Study, folder: Path, mark: Mapping[str, str]) -> None:
    """Push a complete cell's weights where that is asked, then remove those that are not kept.

    Raises: ModelError when the Hub does not take them; nothing is removed then, and the same call tries again.
    """
    if not study.mixture.samples:
        return
    push(study, folder, mark)
    if study.export.keep == "records":
        for stage, patterns in WEIGHTS.items():
            store.release(folder / stage, patterns)


def push(study: Study, folder: Path, mark: Mapping[str, str]) -> None:
    """Send the verified export to the repository that ``export.push`` names, once. Raises: ModelError."""
    if study.export.push is None:
        return
    inputs = _to(study, folder, mark)

    def work(place: Path) -> dict[str, Any]:
        print(f"  push: {inputs['to']}", flush=True)
        return hub.push(folder / "export" / "model", inputs["to"], public=study.export.public)

    store.stage(folder / "push", inputs, work)


def missing(folder: Path) -> bool:
    """Whether the cell's export is done and its weights were not kept."""
    return bool(store.released(folder / "export"))


def require(folder: Path, readers: list[str]) -> None:
    """Raises: DataError when the weights were not kept and ``readers`` (stages, in words) would read them."""
    if readers and missing(folder):
        raise DataError(
            f"the weights of {folder.name} were not kept once it was evaluated (export.keep=records), and {', '.join(readers)} "
            f"would read them: delete {folder / 'export'}, and the same command trains them again (keep them with "
            "export.keep=export)."
        )


def _held(folder: Path) -> list[Path]:
    return [path for stage, patterns in WEIGHTS.items() for one in patterns for path in (folder / stage).glob(one)]


def _to(study: Study, folder: Path, mark: Mapping[str, str]) -> dict[str, Any]:
    """The inputs of the push: the cell and its repository."""
    return {**mark, "to": (study.export.push or "").replace("*", folder.name)}
