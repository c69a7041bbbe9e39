"""A server on this machine that serves a few files, as well or as badly as it is told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread


@dataclass(kw_only=True)
class Behaviour:
    """What the server has and does; ``asked`` holds path and Range of every request, in order."""

    content: dict[str, bytes]
    ranges: bool = True
    lengths: bool = True
    version: str = '"one"'
    status: dict[str, list[int]] = field(default_factory=dict)  # answers before the content, by path
    cuts: list[int] = field(default_factory=list)  # bytes after which each of the first bodies ends
    hold: Event | None = None  # where a cut body waits instead of ending
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    address: str = ""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        behaviour, path = self.server.behaviour, self.path.removeprefix("/")
        wanted = self.headers.get("Range")
        behaviour.asked.append((path, wanted))
        if behaviour.status.get(path):
            self.send_error(behaviour.status[path].pop(0))
        elif path not in behaviour.content:
            self.send_error(404)
        else:
            self._serve(behaviour, behaviour.content[path], wanted)

    def _serve(self, behaviour: Behaviour, whole: bytes, wanted: str | None) -> None:
        start = int(re.findall(r"bytes=(\d+)-", wanted)[0]) if wanted and behaviour.ranges else 0
        if start and start >= len(whole):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("ETag", behaviour.version)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
        if behaviour.lengths:
            self.send_header("Content-Length", str(len(whole) - start))
        self.end_headers()
        if not behaviour.cuts:
            self.wfile.write(whole[start:])
            return
        self.wfile.write(whole[start : start + behaviour.cuts.pop(0)])
        self.wfile.flush()
        if behaviour.hold is not None:
            behaviour.hold.wait(60)

    def log_message(self, format: str, *args: object) -> None:
        """Silent: ``asked`` tells it."""


class _Server(ThreadingHTTPServer):
    behaviour: Behaviour

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is what some tests are about."""


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[Behaviour]:
    """The server while it runs, with its address."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.behaviour = behaviour
        behaviour.address = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield behaviour
        finally:
            if behaviour.hold is not None:
                behaviour.hold.set()
            server.shutdown()
            thread.join()
