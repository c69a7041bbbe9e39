"""One file over HTTP: whatever the server does, either the whole file has its name or no file has."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

import limit_lab
from limit_lab.gauntlet import download
from limit_lab.gauntlet.download import FetchError, Part, UnreachableError, bring
from tests.gauntlet.loopback import Behaviour, serving

WHOLE = b"".join(b'{"context": "%d", "continuation": "x"}\n' % number for number in range(500))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between attempts, and no proxy on the way to this machine."""
    monkeypatch.setattr(download, "WAIT_SECONDS", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[Behaviour]:
    with serving(Behaviour(content={"a.jsonl": WHOLE})) as behaviour:
        yield behaviour


def fetch(server: Behaviour, folder: Path, size: int | None = None) -> bytes:
    part = Part(folder / "a.jsonl")
    bring(f"{server.address}/a.jsonl", part, size, lambda here, of: None)
    assert not part.path.exists(), "only finish gives a file its name"
    part.finish()
    assert [path.name for path in folder.iterdir()] == ["a.jsonl"]
    return part.path.read_bytes()


def begun(server: Behaviour, folder: Path, content: bytes, version: str = '"one"') -> None:
    part = Part(folder / "a.jsonl")
    part.begin(f"{server.address}/a.jsonl", version)
    part.file.write_bytes(content)


def ranges(server: Behaviour) -> list[str | None]:
    return [wanted for _, wanted in server.asked]


def test_a_cut_connection_continues_where_it_ended(server: Behaviour, tmp_path: Path) -> None:
    server.cuts = [1000, 0, 500]
    assert fetch(server, tmp_path) == WHOLE
    assert ranges(server) == [None, "bytes=1000-", "bytes=1000-", "bytes=1500-"]


def test_what_an_earlier_call_left_is_continued(server: Behaviour, tmp_path: Path) -> None:
    begun(server, tmp_path, WHOLE[:700])
    assert fetch(server, tmp_path) == WHOLE
    assert ranges(server) == ["bytes=700-"]


def test_a_kill_leaves_nothing_that_looks_whole(server: Behaviour, tmp_path: Path) -> None:
    server.cuts, server.hold = [5000], Event()
    code = (
        "import sys\nfrom pathlib import Path\nfrom limit_lab.gauntlet import download as d\nd.BLOCK_BYTES = 1000\n"
        "told = lambda here, of: print(here, flush=True)\n"
        "d.bring(sys.argv[1], d.Part(Path(sys.argv[2])), None, told)\n"
    )
    source = str(Path(limit_lab.__file__).resolve().parent.parent)
    command = [sys.executable, "-c", code, f"{server.address}/a.jsonl", str(tmp_path / "a.jsonl")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": source}) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 4000:
            pass
        process.kill()
    assert not (tmp_path / "a.jsonl").exists()
    assert WHOLE.startswith(Part(tmp_path / "a.jsonl").file.read_bytes())
    server.hold.set()
    assert fetch(server, tmp_path) == WHOLE


def test_a_server_that_ignores_ranges_starts_over(server: Behaviour, tmp_path: Path) -> None:
    server.ranges = False
    begun(server, tmp_path, b"old" * 100)
    assert fetch(server, tmp_path) == WHOLE
    assert ranges(server) == ["bytes=300-"]


def test_another_version_of_the_file_starts_over(server: Behaviour, tmp_path: Path) -> None:
    begun(server, tmp_path, b"old" * 100, version='"zero"')
    assert fetch(server, tmp_path) == WHOLE
    assert ranges(server) == ["bytes=300-", None]


def test_the_beginning_of_another_address_is_forgotten(server: Behaviour, tmp_path: Path) -> None:
    part = Part(tmp_path / "a.jsonl")
    part.begin("http://127.0.0.1/another", '"one"')
    part.file.write_bytes(b"another")
    assert fetch(server, tmp_path) == WHOLE
    assert ranges(server) == [None]


def test_a_whole_file_that_was_not_named_yet_is_not_fetched_again(server: Behaviour, tmp_path: Path) -> None:
    begun(server, tmp_path, WHOLE)
    assert fetch(server, tmp_path, size=len(WHOLE)) == WHOLE
    assert ranges(server) == [f"bytes={len(WHOLE)}-"]


def test_bytes_behind_the_end_start_over(server: Behaviour, tmp_path: Path) -> None:
    begun(server, tmp_path, WHOLE + b"more")
    assert fetch(server, tmp_path) == WHOLE
    assert ranges(server) == [f"bytes={len(WHOLE) + 4}-", None]


def test_a_server_that_is_busy_is_asked_again(server: Behaviour, tmp_path: Path) -> None:
    server.status = {"a.jsonl": [503, 429]}
    assert fetch(server, tmp_path) == WHOLE
    assert len(server.asked) == 3


def test_a_server_that_always_cuts_is_left(server: Behaviour, tmp_path: Path) -> None:
    server.ranges, server.cuts = False, [100] * 50
    with pytest.raises(UnreachableError, match=r"a.jsonl cannot be fetched \(the connection ended after 100 of 1"):
        fetch(server, tmp_path)
    assert len(server.asked) == download.ATTEMPTS + 1


def test_a_file_that_is_not_there_is_asked_for_once(server: Behaviour, tmp_path: Path) -> None:
    server.content = {}
    with pytest.raises(FetchError, match=r"/a.jsonl cannot be fetched \(404 Not Found\)") as caught:
        fetch(server, tmp_path)
    assert not isinstance(caught.value, UnreachableError)
    assert len(server.asked) == 1
    assert not list(tmp_path.iterdir())


def test_without_a_length_a_cut_would_not_show(server: Behaviour, tmp_path: Path) -> None:
    server.lengths = False
    with pytest.raises(FetchError, match="does not say how long the file is"):
        fetch(server, tmp_path)
    assert not (tmp_path / "a.jsonl").exists()
    server.cuts = [1000]
    assert fetch(server, tmp_path, size=len(WHOLE)) == WHOLE


def test_no_server_is_one_error(tmp_path: Path) -> None:
    with serving(Behaviour(content={})) as gone:
        pass
    with pytest.raises(UnreachableError, match=r"cannot be fetched \(.*refused\)"):
        fetch(gone, tmp_path)
