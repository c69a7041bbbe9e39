"""What the process that waits for ranks writes for them, and what they leave for it, in the fine-tuning's folder."""

from __future__ import annotations

from pathlib import Path

from limit_lab import store
from limit_lab.compose import restored
from limit_lab.config import Study
from limit_lab.fine_tuning import Places

ORDER, OUTCOME, LOG, GROUP = "ranks.json", "ranks-outcome.json", "ranks.log", "ranks-group.json"

#: Begins a line of the first rank that tells how many steps of how many are taken.
STEP = "\x1estep "


def failure(state: Path, rank: int) -> Path:
    """Where a rank says why it failed, in one sentence."""
    return state / f"rank-{rank}.failed.json"


def write(study: Study, places: Places, launcher: int) -> Path:
    """The order's file; ranks end when the process ``launcher`` on their machine does."""
    file = places.state / ORDER
    beside, state, export = dict(places.beside), str(places.state.absolute()), str(places.export.absolute())
    store.write_json(
        file,
        {"study": study, "state": state, "export": export, "beside": beside, "keep": places.keep, "launcher": launcher},
    )
    return file


def read(file: Path) -> tuple[Study, Places, int]:
    """Raises: DataError when the order is missing or damaged."""
    found = store.read_json(file)
    places = Places(state=Path(found["state"]), export=Path(found["export"]), beside=found["beside"], keep=bool(found["keep"]))
    return restored(found["study"]), places, int(found["launcher"])
