"""Fixtures shared by all rooms."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Before torch loads: tiny tensors, and several test processes, are many times slower when each uses every core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A slow machine is no failure.
settings.register_profile("limit_lab", deadline=None)
settings.load_profile("limit_lab")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with ``data/`` and ``golden/``: ``LIMIT_LAB_DATA``, else ``../shared`` beside the repository.

    Where it is missing the test is skipped, except under ``CI`` or ``LIMIT_LAB_REQUIRE_DATA=1``, where it fails.
    """
    folder = Path(os.environ.get("LIMIT_LAB_DATA") or ROOT.parent / "shared")
    if not (folder / "golden").is_dir():
        reason = f"{folder} has no golden/ folder: set LIMIT_LAB_DATA to the folder that holds data/ and golden/."
        if os.environ.get("CI") or os.environ.get("LIMIT_LAB_REQUIRE_DATA") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
