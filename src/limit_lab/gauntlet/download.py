"""One address to one file over HTTP: a cut download continues, and what is not whole never has the file's own name."""

from __future__ import annotations

import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from limit_lab import __version__, store
from limit_lab.errors import DataError

#: Called with the bytes that are here and the bytes there are, None where the server does not say.
Arrived = Callable[[int, int | None], None]

#: Attempts one after another that bring nothing new, and the seconds before the second of them, which double each time.
ATTEMPTS = 4
WAIT_SECONDS = 1.0
#: Seconds without a byte after which a connection counts as cut.
SILENCE_SECONDS = 30.0
BLOCK_BYTES = 1 << 18

#: Answers that may be another one a moment later.
PASSING = (408, 429, 500, 502, 503, 504)


class FetchError(DataError):
    """A file did not come, or not as it should be; its message ends without a remedy."""


class UnreachableError(FetchError):
    """The server does not answer, or no longer: other files of it need not be tried."""


class _CutError(Exception):
    """An attempt ended before the file was whole; the next one may continue it."""


@dataclass(frozen=True, slots=True)
class Part:
    """The beginning of a file, beside its place: the bytes that are here, and a note on where they came from."""

    path: Path

    @property
    def file(self) -> Path:
        return self.path.with_name(f".{self.path.name}.part")

    @property
    def note(self) -> Path:
        return self.path.with_name(f".{self.path.name}.part.json")

    @property
    def bytes(self) -> int:
        return self.file.stat().st_size if self.file.is_file() else 0

    def mark(self, address: str) -> str | None:
        """The validator of the server's version that these bytes belong to; None if they are none of ``address``."""
        if not (self.file.is_file() and self.note.is_file()):
            return None
        noted = store.read_json(self.note)
        return str(noted["version"]) if noted["address"] == address else None

    def begin(self, address: str, version: str) -> None:
        """Forget what is here, and note whose bytes come next."""
        self.drop()
        store.write_json(self.note, {"address": address, "version": version})

    def drop(self) -> None:
        self.file.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def finish(self) -> None:
        """Give the whole file its name, at once."""
        with store.writing(self.path):
            self.file.replace(self.path)
        self.note.unlink(missing_ok=True)


def bring(address: str, part: Part, size: int | None, arrived: Arrived) -> None:
    """Complete ``part`` with what lies at ``address``, of ``size`` bytes where that is known.

    Raises: UnreachableError when the server is silent, however often it is asked; FetchError when it refuses the file, or
    nobody says how long the file is; DataError when the disk refuses.
    """
    idle, furthest = 0, part.bytes
    while True:
        try:
            _attempt(address, part, size, arrived)
            return
        except _CutError as cut:
            reason = str(cut)
        idle = 0 if part.bytes > furthest else idle + 1
        furthest = max(furthest, part.bytes)
        if idle == ATTEMPTS:
            raise UnreachableError(f"{address} cannot be fetched ({reason})")
        if idle:
            time.sleep(WAIT_SECONDS * 2 ** (idle - 1))


def _attempt(address: str, part: Part, size: int | None, arrived: Arrived) -> None:
    """One request, for what is missing if the server continues files. Raises: _CutError, FetchError."""
    version = part.mark(address)
    start = 0 if version is None else part.bytes
    response = _ask(address, start)
    if response is None:  # nothing lies behind what is here: either that is all, or it is another file's
        if start == size:
            return
        part.drop()
        raise _CutError("nothing lies behind the bytes that are here")
    with response:
        if start and response.status == HTTPStatus.PARTIAL_CONTENT:
            if (_version(response), _first(response)) != (version, start):
                part.drop()
                raise _CutError("the server sent another file, or another part of it")
        else:
            start = 0
            part.begin(address, _version(response))
        total = _total(response, start, size, address)
        cut = _receive(response, part, start, total, arrived)
    if cut is not None or (total is not None and part.bytes < total):
        raise _CutError(cut or f"the connection ended after {part.bytes:,} of {total:,} bytes")


def _ask(address: str, start: int) -> HTTPResponse | None:
    """The answer with its body ahead; None where nothing begins at ``start``. Raises: _CutError, FetchError."""
    headers = {"User-Agent": f"limit_lab/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response: HTTPResponse = urllib.request.urlopen(
            urllib.request.Request(address, headers=headers), timeout=SILENCE_SECONDS
        )
        return response
    except urllib.error.HTTPError as error:
        with error:
            if start and error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return None
            said = f"{error.code} {error.reason}"
            if error.code in PASSING:
                raise _CutError(said) from error
            raise FetchError(f"{address} cannot be fetched ({said})") from error
    except urllib.error.URLError as error:
        raise _CutError(str(error.reason)) from error
    except (OSError, HTTPException) as error:
        raise _CutError(str(error) or type(error).__name__) from error


def _receive(response: HTTPResponse, part: Part, start: int, total: int | None, arrived: Arrived) -> str | None:
    """Append the body to what is here; returns why it was cut, or None where its end came."""
    cut, here = None, start
    with store.writing(part.file), part.file.open("ab") as file:
        while True:
            try:
                block = response.read(BLOCK_BYTES)
            except (OSError, HTTPException) as error:  # not raised in here, where it would pass for an error of the disk
                cut = str(error) or type(error).__name__
                break
            if not block:
                break
            file.write(block)
            here += len(block)
            arrived(here, total)
        file.flush()
        os.fsync(file.fileno())
    return cut


def _version(response: HTTPResponse) -> str:
    """What tells versions of a file apart, as far as the server says."""
    return response.headers.get("ETag") or response.headers.get("Last-Modified") or ""


def _first(response: HTTPResponse) -> int | None:
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _total(response: HTTPResponse, start: int, size: int | None, address: str) -> int | None:
    """Bytes of the whole file; None in a chunked answer, whose end shows. Raises: FetchError where it would not."""
    length = response.headers.get("Content-Length")
    if length is not None and length.isdigit():
        return start + int(length)
    if response.chunked or size is not None:
        return size
    raise FetchError(f"{address} cannot be fetched (the server does not say how long the file is, so a cut would not show)")
