"""One world for all tests of its rooms; nothing changes it."""

from __future__ import annotations

import pytest

from limit_lab.microworld.world import World


@pytest.fixture(scope="session")
def world() -> World:
    return World(0)
