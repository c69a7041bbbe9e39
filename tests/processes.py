"""What runs on this machine."""

from __future__ import annotations

import os
from pathlib import Path


def alive(text: str) -> list[str]:
    """The command lines of other processes that hold ``text``."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has just ended
            continue
        if text in line and int(folder.name) != os.getpid():
            found.append(line)
    return found
