"""A job's folder: its order (which cells, called how), its command line, its log, and the reports on its work.

The launcher writes the order and reads the reports; the job, on whatever machine, does the reverse.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limit_lab import store
from limit_lab.compose import restored
from limit_lab.config import Study

#: A cell with its number in the study.
Numbered = tuple[int, Study]

#: Seconds between two reports on how far one stage is.
PACE = 1.0

ORDER, REPORTS, LOG = "order.json", "reports.jsonl", "log.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The cells that one training makes, with their numbers among ``of``; ``arguments`` are those of the study's command."""

    name: str
    cells: list[Numbered]
    of: int
    arguments: list[str]


def place(study: Study, name: str) -> Path:
    """A new folder for a job beside the records of its study, so that two launchers never share one."""
    root = Path(study.runs).absolute() / "studies" / study.study.name / "jobs"
    root.mkdir(parents=True, exist_ok=True)
    plain_name = re.sub(r"[^\w.-]+", "-", name)
    number = 1
    while True:
        folder = root / f"{plain_name}.{number}"
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            return folder


def write(folder: Path, order: Order) -> None:
    store.write_json(folder / ORDER, order)


def read(folder: Path) -> Order:
    """Raises: DataError when the order is missing or damaged."""
    found = store.read_json(folder / ORDER)
    cells = [(number, restored(values)) for number, values in found["cells"]]
    return Order(name=found["name"], cells=cells, of=found["of"], arguments=found["arguments"])


def command(folder: Path) -> list[str]:
    """The command line that does the job in ``folder``, for the same environment on another machine."""
    return [sys.executable, "-m", "limit_lab.jobs", str(folder)]


class Reports:
    """What a job writes down for its launcher, one line of JSON a report."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / REPORTS
        self._moved: dict[str, float] = {}

    def tell(self, kind: str, *content: Any) -> None:
        """Append one report; of a stage's moves at most one in `PACE` seconds."""
        if kind == "move":
            now = time.monotonic()
            if now - self._moved.get(content[0], -PACE) < PACE:
                return
            self._moved[content[0]] = now
        line = json.dumps([kind, *content], ensure_ascii=False) + "\n"
        with self._file.open("ab", buffering=0) as file:
            file.write(line.encode())
            os.fsync(file.fileno())


class Heard:
    """The reports of a job as its launcher reads them."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / REPORTS
        self._offset = 0

    def new(self) -> list[Sequence[Any]]:
        """The reports since the last look; a line that is still being written waits for the next."""
        if not self._file.is_file():
            return []
        with self._file.open("rb") as file:
            file.seek(self._offset)
            found = file.read()
        whole = found[: found.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [json.loads(line) for line in whole.decode().splitlines()]
