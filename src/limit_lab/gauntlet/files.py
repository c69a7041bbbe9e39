"""The original files of the gauntlet: which there are, whether a copy is the original, and the command that fetches them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from limit_lab import store
from limit_lab.config import Gauntlet

#: Lies in the folder of task files: hash, bytes, rows and address of what was fetched without a known hash.
FETCHED = "fetched.json"

#: VERIFIED: the original's hash. UNVERIFIED: no hash of the original is known. ALTERED: another hash than that of the
#: original, or than at the first fetch. OWN: a file that the original gauntlet does not have.
STATES = VERIFIED, UNVERIFIED, ALTERED = "verified", "unverified", "altered"
OWN = "own"


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """What is known of an original file; ``rows`` and ``bytes`` are counts, None where nobody stated them."""

    sha256: str | None
    rows: int | None
    bytes: int | None


@cache
def originals() -> dict[str, Original]:
    """Every file that a version of the gauntlet reads, by its path below the folder of task files."""
    known = store.read_json(Path(__file__).with_name("originals.json"))
    return {name: Original(**stated) for name, stated in known.items()}


def expected(folder: Path, file: str) -> str | None:
    """The SHA-256 that ``file`` should have: the original's, else that of its first fetch; None where neither is known."""
    known = originals().get(file)
    if known is None or known.sha256 is not None:
        return None if known is None else known.sha256
    noted = folder / FETCHED
    fetched = store.read_json(noted).get(file) if noted.is_file() else None
    return None if fetched is None else str(fetched["sha256"])


def stated(folder: Path, file: str) -> dict[str, str]:
    """``sha256`` and ``state`` of a task file that is there, as they are recorded beside its scores."""
    found, known = store.sha256(folder / file), originals().get(file)
    if known is None:
        return {"sha256": found, "state": OWN}
    if expected(folder, file) not in (None, found):
        return {"sha256": found, "state": ALTERED}
    return {"sha256": found, "state": UNVERIFIED if known.sha256 is None else VERIFIED}


def remedy(suite: Gauntlet, folder: Path, absent: list[str]) -> str:
    """How to come by task files that are not in ``folder``: fetch those that are the original's, add the others."""
    fetched = [file for file in absent if file in originals()]
    own = dict.fromkeys(file for file in absent if file not in originals())
    if not fetched:
        return "add the files"
    fetching = f"{command(suite, folder)} fetches {'it' if len(fetched) == 1 else 'them'}"
    return f"{fetching}, except {', '.join(own)}, which you add" if own else fetching


def command(suite: Gauntlet, folder: Path) -> str:
    """The command line that fetches a shipped suite's files into ``folder``; for another suite, in words."""
    option = _option(suite.name)
    if option is None:
        return "the same command with do=fetch"
    place = f"data.dir={folder.parent}" if folder.name == "gauntlet" else f"gauntlet.data={folder}"
    return shlex.join(["python", "-m", "limit_lab", "do=fetch", f"gauntlet={option}", place])


def _option(name: str) -> str | None:
    """The shipped option of the group gauntlet whose suite has this name."""
    from limit_lab.compose import config_dir

    for path in sorted((config_dir() / "gauntlet").glob("*.yaml")):
        if f"name: {name}" in path.read_text(encoding="utf-8").splitlines():
            return path.stem
    return None
