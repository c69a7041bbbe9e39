"""Folders that several tests need."""

from pathlib import Path


def user_configs(folder: Path) -> Path:
    """An empty folder for ``--config-dir``, to which a test adds its own groups."""
    (folder / "gauntlet").mkdir(parents=True, exist_ok=True)
    return folder
