"""do=fetch: the original files of a suite, where its folder does not hold them yet, and what all of them are worth."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TextColumn

from limit_lab import store
from limit_lab.config import Gauntlet, Study
from limit_lab.errors import ConfigError, DataError
from limit_lab.gauntlet import files
from limit_lab.gauntlet.download import FetchError, Part, UnreachableError, bring

MIB = 2**20


def run(study: Study) -> None:
    """Fetch what is missing, and say of every file whether it is verified, unverified or altered.

    Files that are there are never replaced. Raises: ConfigError where there is nothing to fetch or no folder for it;
    DataError naming every file that did not come; BusyError while another process fetches into the folder.
    """
    suite, folder = study.gauntlet, _folder(study)
    wanted = list(dict.fromkeys(task.file for task in suite.tasks))
    failed: dict[str, list[str]] = {}
    if _missing(folder, wanted):
        with store.writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with store.locked(folder, wait=False):  # looked at again, for another process may have fetched them since
            failed = _fetched(_missing(folder, wanted), folder, study.fetch.address.rstrip("/"))
    print(_summary(suite, folder, [file for file in wanted if (folder / file).is_file()]), flush=True)
    if failed:
        count = sum(len(own) for own in failed.values())
        told = "; ".join(f"{', '.join(own)}: {reason}" for reason, own in failed.items())
        raise DataError(
            f"{count} of the {len(wanted)} files of gauntlet={suite.name} did not come, {told}: go online, correct "
            f"fetch.address, or copy the files into {folder}, and the same command continues."
        )


def _missing(folder: Path, wanted: Sequence[str]) -> list[str]:
    return [file for file in wanted if not (folder / file).is_file()]


def _folder(study: Study) -> Path:
    """Where the files belong. Raises: ConfigError for a suite of other files than the original's, or without a folder."""
    suite = study.gauntlet
    own = [task.file for task in suite.tasks if task.file not in files.originals()]
    if suite.data is None or own:
        raise ConfigError(
            f"gauntlet={suite.name} cannot be fetched, because the original gauntlet has no {', '.join(own) or 'such files'}: "
            "choose a suite of original files, such as gauntlet=v0."
        )
    if study.data.dir is None and suite.data.startswith("None/"):
        raise ConfigError(f"do=fetch needs a folder for the files of gauntlet={suite.name}: pass data.dir=/path/to/data.")
    return Path(suite.data)


def _fetched(missing: Sequence[str], folder: Path, address: str) -> dict[str, list[str]]:
    """Fetch one file after another; returns those that did not come by the reason. Raises: DataError when the disk refuses."""
    failed: dict[str, list[str]] = {}
    console = Console(stderr=True)
    with Progress(TextColumn("{task.description}"), console=console, disable=not console.is_terminal, transient=True) as line:
        shown = line.add_task("", total=None)
        for number, file in enumerate(missing, 1):
            pace = _Pace(
                f"file {number} of {len(missing)}  {file}",
                Part(folder / file).bytes,
                lambda text: line.update(shown, description=text),
            )
            try:
                _fetch(file, folder, f"{address}/{file}", pace)
            except UnreachableError as error:
                return failed | {str(error): list(missing[number - 1 :])}
            except FetchError as error:
                failed.setdefault(str(error), []).append(file)
            else:
                print(f"{pace.text}  {files.stated(folder, file)['state']}", flush=True)
    return failed


class _Pace:
    """The line of one file: its number, MiB here and in all, and MiB a second since it began."""

    def __init__(self, name: str, before: int, show: Callable[[str], None]) -> None:
        self._name, self._before, self._show, self._start = name, before, show, time.monotonic()
        self.text = name

    def __call__(self, here: int, of: int | None) -> None:
        seconds = max(time.monotonic() - self._start, 1e-3)
        whole = "" if of is None else f" of {of / MIB:,.1f}"
        speed = max(here - self._before, 0) / MIB / seconds
        self.text = f"{self._name}  {here / MIB:,.1f}{whole} MiB, {speed:,.1f} MiB/s"
        self._show(self.text)


def _fetch(file: str, folder: Path, address: str, pace: _Pace) -> None:
    """Put one file in its place, if it is what it should be. Raises: FetchError, UnreachableError; DataError of the disk."""
    known, part = files.originals()[file], Part(folder / file)
    wanted, continued = files.expected(folder, file), part.mark(address) is not None
    bring(address, part, known.bytes, pace)
    if continued and wanted not in (None, store.sha256(part.file)):  # what an earlier call left may be to blame
        part.drop()
        bring(address, part, known.bytes, pace)
    found = store.sha256(part.file)
    if wanted not in (None, found):
        part.drop()
        whose = "the original's" if known.sha256 is not None else f"that of its first fetch, in {files.FETCHED},"
        raise FetchError(f"{address} has the sha256 {found[:12]}, and {whose} is {str(wanted)[:12]}")
    if known.sha256 is None:
        _note(file, folder, address, part, found)
    part.finish()


def _note(file: str, folder: Path, address: str, part: Part, found: str) -> None:
    """Keep the hash of a file that nobody vouches for. Raises: FetchError when what came are no rows."""
    try:
        rows = len(store.read_rows(part.file))
    except DataError:
        rows = 0
    if not rows:
        part.drop()
        raise FetchError(f"{address} holds no rows")
    noted = folder / files.FETCHED
    before = store.read_json(noted) if noted.is_file() else {}
    own = {"sha256": found, "bytes": part.bytes, "rows": rows, "address": address}
    store.write_json(noted, {**before, file: own})


def _summary(suite: Gauntlet, folder: Path, here: Sequence[str]) -> str:
    """How many files are verified, and which of them are not."""
    found = {file: files.stated(folder, file) for file in here}
    lines = [f"gauntlet={suite.name} in {folder}: " + ", ".join(_count(found, state) for state in files.STATES)]
    for file, own in found.items():
        if own["state"] == files.UNVERIFIED:
            lines.append(f"  unverified  {file}  {own['sha256'][:12]}, and no hash of the original is known")
        if own["state"] == files.ALTERED:
            wanted = str(files.expected(folder, file))[:12]
            lines.append(f"  altered  {file}  {own['sha256'][:12]}, not {wanted}: remove it, and the same command fetches it")
    return "\n".join(lines)


def _count(found: dict[str, dict[str, str]], state: str) -> str:
    return f"{sum(own['state'] == state for own in found.values())} {state}"
