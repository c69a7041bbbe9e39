"""Where the pretrained micro base lies: inside the package for the shipped world, under runs/models for any other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from limit_lab.config import Microworld, Study
from limit_lab.errors import ModelError
from limit_lab.fingerprints import fingerprint
from limit_lab.microworld.world import VERSION
from limit_lab.store import read_json

#: The checkpoint that ships; its recipe.json holds the fingerprint of what it was made from.
SHIPPED = Path(__file__).resolve().parent / "base"


def recipe(world: Microworld) -> dict[str, object]:
    """Everything that determines the base of a world, apart from library versions."""
    return {
        "world_version": VERSION,
        "seed": world.seed,
        "tokens": world.pretrain_tokens,
        "learning_rate": world.pretrain_learning_rate,
    }


def made_at(world: Microworld, runs: Path) -> Path:
    """Where do=pretrain_micro puts this world's base."""
    return runs / "models" / f"micro-seed{world.seed}-{fingerprint(recipe(world))}"


def lock_of(world: Microworld, runs: Path) -> Path:
    """The folder whose lock is held while this world's base is made."""
    folder = made_at(world, runs)
    return folder.with_name(f".{folder.name}")


def failed_at(world: Microworld, runs: Path) -> Path:
    """The file that says why this world's base could not be made."""
    return lock_of(world, runs) / "failed.json"


def base_key(study: Study) -> str:
    """Names the making of a world's base in the study's progress."""
    return f"base of world {study.microworld.seed}"


def has_base(world: Microworld, runs: Path) -> bool:
    """Whether this world's base was made under ``runs`` or ships."""
    note = SHIPPED / "recipe.json"
    return (made_at(world, runs) / "manifest.json").is_file() or (
        note.is_file() and bool(read_json(note)["recipe"] == recipe(world))
    )


def missing(cells: Sequence[Study]) -> list[Study]:
    """One cell for each embedded world of a grid that has no base yet; a single study is told the command instead."""
    worlds = {fingerprint(recipe(study.microworld)): study for study in cells if study.model.embedded and study.study.axes}
    return [study for study in worlds.values() if not has_base(study.microworld, Path(study.runs))]


def find(world: Microworld, runs: Path) -> Path:
    """The model folder of this world's base: one made here goes before the shipped one.

    Raises: ModelError when there is neither, with the command that makes it.
    """
    made = made_at(world, runs)
    if (made / "manifest.json").is_file():
        return made / "model"
    if has_base(world, runs):
        return SHIPPED
    raise ModelError(
        f"there is no pretrained base for microworld.seed={world.seed} (world version {VERSION}): make it in minutes with "
        f"python -m limit_lab do=pretrain_micro microworld.seed={world.seed}"
    )
