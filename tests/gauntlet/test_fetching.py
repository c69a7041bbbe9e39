"""do=fetch from a server on this machine: what comes, what does not, and what is said of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from limit_lab import __main__ as door
from limit_lab.gauntlet import download, files
from limit_lab.gauntlet.files import Original, stated
from tests.commands import groups
from tests.gauntlet.loopback import Behaviour, serving

KNOWN, FREE = "a/known.jsonl", "b/free.jsonl"
ROWS = {KNOWN: b'{"context": "a", "continuation": "b"}\n', FREE: b'{"context": "c", "continuation": "d"}\n' * 3}
SHA256 = {name: hashlib.sha256(rows).hexdigest() for name, rows in ROWS.items()}
SUITE = """
name: two
data: ${data.dir}/gauntlet
average: [c]
tasks:
  - {label: known, type: language_modeling, file: a/known.jsonl, category: c}
  - {label: free, type: language_modeling, file: b/free.jsonl, category: c}
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Behaviour]:
    """The two files of a gauntlet of which one has a known hash."""
    known = {
        KNOWN: Original(sha256=SHA256[KNOWN], rows=1, bytes=len(ROWS[KNOWN])),
        FREE: Original(sha256=None, rows=None, bytes=None),
    }
    monkeypatch.setattr(files, "originals", lambda: known)
    monkeypatch.setattr(download, "WAIT_SECONDS", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(Behaviour(content=dict(ROWS))) as behaviour:
        yield behaviour


@pytest.fixture
def arguments(server: Behaviour, tmp_path: Path) -> list[str]:
    user = groups(tmp_path / "groups", gauntlet__two=SUITE)
    return [*user, "do=fetch", "gauntlet=two", f"data.dir={tmp_path / 'data'}", f"fetch.address={server.address}/"]


def fetch(arguments: list[str], capsys: pytest.CaptureFixture[str], *, code: int = 0) -> str:
    """What the call says: its lines, or its error."""
    assert door.main(arguments) == code
    said = capsys.readouterr()
    return said.err if code else said.out


def test_files_come_once_and_are_told_apart(
    server: Behaviour, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data" / "gauntlet"
    said = fetch(arguments, capsys).splitlines()
    assert said[0].startswith(f"file 1 of 2  {KNOWN}  0.0 of 0.0 MiB, ")
    assert said[0].endswith(" MiB/s  verified")
    assert said[1].startswith(f"file 2 of 2  {FREE}  ")
    assert said[2:] == [
        f"gauntlet=two in {folder}: 1 verified, 1 unverified, 0 altered",
        f"  unverified  {FREE}  {SHA256[FREE][:12]}, and no hash of the original is known",
    ]
    assert {name: (folder / name).read_bytes() for name in ROWS} == ROWS
    noted = json.loads((folder / files.FETCHED).read_text(encoding="utf-8"))
    assert noted == {FREE: {"sha256": SHA256[FREE], "bytes": len(ROWS[FREE]), "rows": 3, "address": f"{server.address}/{FREE}"}}
    assert len(server.asked) == 2
    assert fetch(arguments, capsys).splitlines() == said[2:]
    assert len(server.asked) == 2, "what is there is not fetched again"


def test_an_existing_copy_is_labelled_and_left_as_it_is(
    server: Behaviour, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data" / "gauntlet"
    for name in ROWS:
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(b"{}\n")
    found = hashlib.sha256(b"{}\n").hexdigest()
    assert stated(folder, KNOWN) == {"sha256": found, "state": "altered"}
    assert stated(folder, FREE) == {"sha256": found, "state": "unverified"}
    said = fetch(arguments, capsys)
    assert "0 verified, 1 unverified, 1 altered" in said
    assert f"altered  {KNOWN}  {found[:12]}, not {SHA256[KNOWN][:12]}: remove it, and the same command fetches it" in said
    assert (folder / KNOWN).read_bytes() == b"{}\n"
    assert not server.asked


def test_a_file_of_another_hash_never_takes_its_place(
    server: Behaviour, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data" / "gauntlet"
    server.content[KNOWN] = b'{"context": "a", "continuation": "z"}\n'
    wrong = hashlib.sha256(server.content[KNOWN]).hexdigest()
    said = fetch(arguments, capsys, code=1)
    assert f"1 of the 2 files of gauntlet=two did not come, {KNOWN}: {server.address}/{KNOWN} has the sha256" in said
    assert f"{wrong[:12]}, and the original's is {SHA256[KNOWN][:12]}: go online" in said
    assert not list((folder / "a").iterdir())
    assert (folder / FREE).read_bytes() == ROWS[FREE], "the other one came"


def test_a_wrong_beginning_is_fetched_anew(
    server: Behaviour, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = download.Part(tmp_path / "data" / "gauntlet" / KNOWN)
    part.begin(f"{server.address}/{KNOWN}", server.version)
    part.file.write_bytes(b"wrong")
    assert "1 verified" in fetch(arguments, capsys)
    assert [wanted for _, wanted in server.asked] == ["bytes=5-", None, None]
    assert part.path.read_bytes() == ROWS[KNOWN]


def test_the_hash_of_the_first_fetch_holds_from_then_on(
    server: Behaviour, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data" / "gauntlet"
    fetch(arguments, capsys)
    (folder / FREE).write_bytes(b"{}\n")
    assert stated(folder, FREE)["state"] == "altered"
    (folder / FREE).unlink()
    server.content[FREE] = b"{}\n"
    assert f"and that of its first fetch, in {files.FETCHED}, is {SHA256[FREE][:12]}" in fetch(arguments, capsys, code=1)
    assert not (folder / FREE).exists()


@pytest.mark.parametrize("page", [b"<html>sign in</html>\n", b""])
def test_what_are_no_rows_is_no_file(
    page: bytes, server: Behaviour, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.content[FREE] = page
    assert f"{server.address}/{FREE} holds no rows" in fetch(arguments, capsys, code=1)
    assert not (tmp_path / "data" / "gauntlet" / FREE).exists()
    assert not (tmp_path / "data" / "gauntlet" / files.FETCHED).exists()


def test_a_file_that_the_server_does_not_have_is_named(
    server: Behaviour, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del server.content[KNOWN]
    said = fetch(arguments, capsys, code=1)
    assert said.startswith(f"1 of the 2 files of gauntlet=two did not come, {KNOWN}: ")
    assert "(404 Not Found)" in said
    assert stated(tmp_path / "data" / "gauntlet", FREE)["state"] == "unverified"


def test_offline_every_missing_file_is_named_in_one_sentence(
    server: Behaviour, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(Behaviour(content={})) as gone:
        pass
    said = fetch([*arguments[:-1], f"fetch.address={gone.address}"], capsys, code=1)
    assert said.startswith(f"2 of the 2 files of gauntlet=two did not come, {KNOWN}, {FREE}: {gone.address}/{KNOWN} cannot")
    assert said.count("\n") == 1
    assert said.endswith("and the same command continues.\n")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["gauntlet=microworld"], "gauntlet=microworld cannot be fetched, because the original gauntlet has no facts_em.jsonl"),
        (["gauntlet=two", "data.dir=null"], "do=fetch needs a folder for the files of gauntlet=two: pass data.dir="),
        (["gauntlet=two", "fetch.address=/etc"], "fetch.address=/etc is no address: write it as https://host/folder."),
    ],
)
def test_nothing_to_fetch_or_nowhere_to_put_it_is_refused(
    changed: list[str], said: str, server: Behaviour, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in fetch([*arguments[:3], *changed], capsys, code=2)
    assert not server.asked


def test_missing_files_are_named_with_the_command_before_anything_is_loaded(
    server: Behaviour, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data" / "gauntlet" / "b").mkdir(parents=True)
    (tmp_path / "data" / "gauntlet" / FREE).write_bytes(ROWS[FREE])
    study = [*arguments[:2], "do=study", *arguments[3:-1], f"runs={tmp_path / 'runs'}"]
    said = fetch(study, capsys, code=1)
    assert f"gauntlet=two has no data for known ({KNOWN}) in {tmp_path / 'data' / 'gauntlet'}: " in said
    assert "the same command with do=fetch fetches it, or choose a suite without these tasks" in said
    assert not (tmp_path / "runs").exists()
