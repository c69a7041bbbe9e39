"""Minimal gauntlets for tests of composition, used only where conf/gauntlet has no file of that name."""

from pathlib import Path


def gauntlets(folder: Path) -> Path:
    """A ``--config-dir`` with gauntlet options; shipped options of the same name come first and win."""
    (folder / "gauntlet").mkdir(parents=True, exist_ok=True)
    for name in ("microworld", "real_rows", "v0"):
        (folder / "gauntlet" / f"{name}.yaml").write_text(f"name: {name}\n", encoding="utf-8")
    return folder
