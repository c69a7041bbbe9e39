"""Where the pretrained micro base lies: inside the package for the shipped world, under runs/models for any other."""

from __future__ import annotations

from pathlib import Path

from limit_lab.config import Microworld, fingerprint
from limit_lab.errors import ModelError
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


def has_base(world: Microworld, runs: Path) -> bool:
    """Whether this world's base was made under ``runs`` or ships."""
    note = SHIPPED / "recipe.json"
    return (made_at(world, runs) / "manifest.json").is_file() or (
        note.is_file() and bool(read_json(note)["recipe"] == recipe(world))
    )


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
