"""What the process that waits for ranks writes for them, and what they leave for it, in the folder of their work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from limit_lab import store
from limit_lab.compose import restored
from limit_lab.config import Study
from limit_lab.evaluating import Evaluation
from limit_lab.fine_tuning import Places

ORDER, OUTCOME, LOG, GROUP = "ranks.json", "ranks-outcome.json", "ranks.log", "ranks-group.json"

#: Begins a line of the first rank that tells how many steps of how many are taken.
STEP = "\x1estep "


def failure(state: Path, rank: int) -> Path:
    """Where a rank says why it failed, in one sentence."""
    return state / f"rank-{rank}.failed.json"


def write(study: Study, work: Places | Evaluation, launcher: int) -> Path:
    """The order's file; ranks end when the process ``launcher`` on their machine does."""
    file = work.state / ORDER
    kind, told = ("fine-tuning", _places(work)) if isinstance(work, Places) else ("evaluation", _evaluation(work))
    store.write_json(file, {"study": study, "launcher": launcher, "kind": kind, "work": told})
    return file


def read(file: Path) -> tuple[Study, Places | Evaluation, int]:
    """Raises: DataError when the order is missing or damaged."""
    found = store.read_json(file)
    told = found["work"]
    work: Places | Evaluation
    if found["kind"] == "fine-tuning":
        work = Places(state=Path(told["state"]), export=Path(told["export"]), beside=told["beside"], keep=bool(told["keep"]))
    else:
        model, out, state = (Path(told[name]) for name in ("model", "out", "state"))
        work = Evaluation(prompting=told["prompting"], model=model, out=out, state=state)
    return restored(found["study"]), work, int(found["launcher"])


def _places(work: Places) -> dict[str, Any]:
    state, export = str(work.state.absolute()), str(work.export.absolute())
    return {"state": state, "export": export, "beside": dict(work.beside), "keep": work.keep}


def _evaluation(work: Evaluation) -> dict[str, Any]:
    places = {"model": work.model, "out": work.out, "state": work.state}
    return {"prompting": work.prompting, **{name: str(place.absolute()) for name, place in places.items()}}
