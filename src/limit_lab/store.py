"""A run folder: atomic writes, stages with manifests, locks, and the one table that the report reads.

A stage is a folder. ``begun.json`` holds the inputs it was started for, ``manifest.json`` is written last and makes it
done. A stage whose manifest matches its inputs is skipped; one begun for the same inputs continues; any other is cleared.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from limit_lab import provenance
from limit_lab.errors import BusyError, DataError, LimitLabError
from limit_lab.fingerprints import fingerprint, plain

SCHEMA = 1


#: What the system says when there is no room: disk, quota, or the largest file it allows.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A cell of a study that has no summary yet: what it is, where it stands, and why."""

    name: str
    state: str
    note: str


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says against writing ``path`` into one sentence. Raises: DataError."""
    try:
        yield
    except Exception as error:
        code = _system_code(error)
        if code is None:
            raise
        remedy = "free some space" if code in FULL else "make its folder writable"
        raise DataError(
            f"{path} could not be written ({os.strerror(code)}): {remedy}, and the same command continues."
        ) from error


def _system_code(error: BaseException) -> int | None:
    """The errno behind an error: torch wraps it in a RuntimeError, safetensors writes it into its message."""
    if isinstance(error, OSError):
        return error.errno
    if stated := re.search(r"\(os error (\d+)\)", str(error)):
        return int(stated[1])
    return None if error.__context__ is None else _system_code(error.__context__)


def write_text(path: Path, text: str) -> None:
    """Write atomically: a reader sees the old file or the whole new one. Raises: DataError when the disk refuses."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write atomically, as `write_text` does."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(plain(value), indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Raises: DataError when the file is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist: run the study that writes it first.") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not valid JSON (line {error.lineno}): delete it and run again.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not valid JSON (byte {error.start:,} is not UTF-8): delete it and run again.") from error


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write jsonl atomically."""
    write_text(path, "".join(json.dumps(plain(row), ensure_ascii=False) + "\n" for row in rows))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read jsonl. Raises: DataError naming the line that is not a JSON object."""
    if not path.is_file():
        raise DataError(f"{path} does not exist: check the path, or data.dir if it is relative.")
    rows = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise DataError(f"{path} line {number} is not UTF-8: save the file in that encoding.") from error
            except json.JSONDecodeError as error:
                raise DataError(f"{path} line {number} is not JSON: fix or remove the line.") from error
            if not isinstance(row, dict):
                raise DataError(f"{path} line {number} is no JSON object: every line must be one row.")
            rows.append(row)
    return rows


def sha256(path: Path) -> str:
    """Hex digest of a file's content, read once as long as the file stays the same."""
    known = path.stat()
    return _sha256(path, known.st_ino, known.st_size, known.st_mtime_ns)


@lru_cache(maxsize=4096)
def _sha256(path: Path, inode: int, size: int, written_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def done(folder: Path, inputs: Mapping[str, Any]) -> bool:
    """Whether the stage in ``folder`` has finished for exactly these inputs.

    Raises: DataError when it has and a file that it wrote is gone or has another size.
    """
    if _mark(folder / "manifest.json") != fingerprint(inputs):
        return False
    whole(folder)
    return True


def whole(folder: Path) -> None:
    """Check the files of a stage; one without a manifest has not finished and is let pass.

    Raises: DataError when a file that the finished stage wrote is gone or has another size.
    """
    manifest = folder / "manifest.json"
    if _mark(manifest) is None:
        return
    for name, size in read_json(manifest).get("files", {}).items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != size:
            raise DataError(
                f"{file} is {'not as it was written' if file.is_file() else 'gone'}: delete {folder} and run again."
            )


def _mark(path: Path) -> str | None:
    """The fingerprint in a stage's manifest.json or begun.json, None without the file. Raises: DataError if it has none."""
    if not path.is_file():
        return None
    found = read_json(path)
    if not isinstance(found, dict) or not isinstance(found.get("fingerprint"), str):
        raise DataError(f"{path} holds no fingerprint: delete it and run again.")
    return str(found["fingerprint"])


def stage(folder: Path, inputs: Mapping[str, Any], work: Callable[[Path], Mapping[str, Any]]) -> dict[str, Any]:
    """Run ``work(folder)`` unless it is done for these inputs; return what it returned, from the manifest if skipped.

    ``work`` finds the folder empty, or as an interrupted run for the same inputs left it.
    """
    if done(folder, inputs):
        outputs: dict[str, Any] = read_json(folder / "manifest.json")["outputs"]
        return outputs
    begun = folder / "begun.json"
    mark = fingerprint(inputs)
    if folder.exists() and _mark(begun) != mark:
        shutil.rmtree(folder)
    (folder / "manifest.json").unlink(missing_ok=True)
    if not begun.is_file():
        write_json(begun, {"fingerprint": mark, "inputs": inputs})
    start = time.monotonic()
    outputs = plain(work(folder))
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != begun and not _hidden(path, folder)]
    manifest = {
        "schema": SCHEMA,
        "fingerprint": mark,
        "inputs": inputs,
        "outputs": outputs,
        "files": {path.relative_to(folder).as_posix(): path.stat().st_size for path in files},
        "seconds": round(time.monotonic() - start, 3),
        "provenance": provenance.collect(),
    }
    write_json(folder / "manifest.json", manifest)
    return outputs


def release(folder: Path, patterns: Sequence[str]) -> None:
    """Remove the files of a done stage that match; its manifest says first that they were there and are not kept."""
    known = read_json(folder / "manifest.json")
    found = {path.relative_to(folder).as_posix() for pattern in patterns for path in folder.glob(pattern)}
    if not found:
        return
    sizes = {name: (folder / name).stat().st_size for name in sorted(found)}
    left = {name: size for name, size in known["files"].items() if name not in found}
    write_json(folder / "manifest.json", {**known, "files": left, "released": known.get("released", {}) | sizes})
    for name in found:
        (folder / name).unlink()


def released(folder: Path) -> dict[str, int]:
    """Bytes of the files by name that a done stage wrote and did not keep."""
    manifest = folder / "manifest.json"
    found: dict[str, int] = read_json(manifest).get("released", {}) if manifest.is_file() else {}
    return found


def _hidden(path: Path, folder: Path) -> bool:
    """Whether ``path`` is a half-written leftover, whose name or folder starts with a dot."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def held(folder: Path) -> bool:
    """Whether a process holds the folder's lock; one that nobody has taken yet is not created."""
    if not (folder / ".lock").is_file():
        return False
    try:
        with FileLock(folder / ".lock", timeout=0):
            return False
    except Timeout:
        return True


@contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the folder's lock; waits for another process that holds it and says so. Raises: BusyError without ``wait``."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise BusyError(f"another process works in {folder}: wait for it, or end it.") from None
        from rich.console import Console

        Console(stderr=True).print(f"waiting: another process works in {folder}", highlight=False)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def summaries(root: Path, kind: str) -> list[dict[str, Any]]:
    """Every summary.json below ``root/kind`` (kind: cells or pairs), in path order."""
    if kind not in ("cells", "pairs"):
        raise LimitLabError(f"{kind!r} names no summaries: use cells or pairs.")
    return [read_json(path) for path in sorted((root / kind).glob("*/summary.json"))]
