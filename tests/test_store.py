"""Files are old or new and never between; a stage counts as done for its own inputs only; a lock is waited for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import limit_lab
from limit_lab import store
from limit_lab.errors import DataError, LimitLabError

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(limit_lab.__file__).resolve().parent.parent), "COLUMNS": "400"}


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A second process that runs ``code`` with ``store`` and ``Path`` imported; ``a`` holds its arguments."""
    head = "import sys; from pathlib import Path; from limit_lab import store; a = sys.argv[1:]\n"
    command = [sys.executable, "-c", head + code, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=ENVIRONMENT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_a_reader_sees_the_old_file_or_the_whole_new_one(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    store.write_text(path, "old ünïcode\n")
    with path.open(encoding="utf-8") as reader:
        store.write_text(path, "new\n")
        assert reader.read() == "old ünïcode\n"
    assert path.read_text(encoding="utf-8") == "new\n"
    assert list(path.parent.iterdir()) == [path]


FULL = """
import resource
from limit_lab.errors import DataError
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    WRITE
except DataError as error:
    print(error)
"""


@pytest.mark.parametrize(
    "write", ["store.write_text(Path(a[0]), 'x' * 9999)", "store.write_rows(Path(a[0]), [{'x': 'x' * 9999}])"]
)
def test_a_full_disk_is_one_sentence_and_leaves_the_old_file(tmp_path: Path, write: str) -> None:
    """The limit on a file's size stands for the disk: the system refuses the write half-way."""
    path = tmp_path / "file.jsonl"
    store.write_text(path, "old\n")
    said, trouble = python(FULL.replace("WRITE", write), path).communicate()
    assert said == f"{path} could not be written (File too large): free some space, and the same command continues.\n", trouble
    assert path.read_text(encoding="utf-8") == "old\n"
    assert list(tmp_path.iterdir()) == [path]


def test_rows_come_back(tmp_path: Path) -> None:
    rows = [{"text": "line\u2028separator\u0085 and\r\nbreaks", "n": 1}, {"deep": {"list": [1.5, None]}}]
    store.write_rows(tmp_path / "rows.jsonl", rows)
    assert store.read_rows(tmp_path / "rows.jsonl") == rows
    store.write_rows(tmp_path / "none.jsonl", [])
    assert store.read_rows(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"a": 1', "line 2 is not JSON: fix or remove the line."),
        (b"", "line 2 is not JSON: fix or remove the line."),
        (b'{"a": "\xff"}', "line 2 is not UTF-8: save the file in that encoding."),
        (b"[1]", "line 2 is no JSON object: every line must be one row."),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, said: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 2}\n')
    with pytest.raises(DataError) as caught:
        store.read_rows(path)
    assert str(caught.value) == f"{path} {said}"


def test_missing_and_broken_files_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist: check the path, or data.dir"):
        store.read_rows(tmp_path / "no.jsonl")
    with pytest.raises(DataError, match="does not exist: run the study that writes it first"):
        store.read_json(tmp_path / "no.json")
    (tmp_path / "bad.json").write_text('{\n"a":\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"bad.json is not valid JSON \(line 3\): delete it and run again"):
        store.read_json(tmp_path / "bad.json")


INPUTS = {"recipe": {"steps": 3}, "seeds": (0, 1)}


class Work:
    """Counts its calls, writes one file, and remembers what it found."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.calls = 0
        self.found: set[str] = set()

    def __call__(self, folder: Path) -> dict[str, Any]:
        self.calls += 1
        self.found = {path.name for path in folder.iterdir()} - {"begun.json"}
        (folder / "half.txt").write_text("half", encoding="utf-8")
        if self.fails:
            raise KeyboardInterrupt
        return {"score": 0.5, "pair": (1, 2)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cell" / "stage"


def interrupted(folder: Path, inputs: dict[str, Any]) -> None:
    with pytest.raises(KeyboardInterrupt):
        store.stage(folder, inputs, Work(fails=True))


def test_a_stage_that_is_done_is_skipped(folder: Path) -> None:
    work = Work()
    first = store.stage(folder, INPUTS, work)
    again = store.stage(folder, {"seeds": [0, 1], "recipe": {"steps": 3}}, work)
    assert first == again == {"score": 0.5, "pair": [1, 2]}
    assert work.calls == 1
    assert store.done(folder, INPUTS)
    manifest = store.read_json(folder / "manifest.json")
    assert (manifest["schema"], manifest["inputs"]) == (store.SCHEMA, {"recipe": {"steps": 3}, "seeds": [0, 1]})
    assert "git" in manifest["provenance"]


def test_an_interrupted_stage_is_not_done_and_continues(folder: Path) -> None:
    interrupted(folder, INPUTS)
    assert not store.done(folder, INPUTS)
    work = Work()
    store.stage(folder, INPUTS, work)
    assert work.found == {"half.txt"}
    assert store.done(folder, INPUTS)


OTHER = {**INPUTS, "seeds": (0, 2)}


def never(_: Path) -> None:
    return


def forget(folder: Path) -> None:
    (folder / "begun.json").unlink()


@pytest.mark.parametrize("spoil", [never, forget], ids=["begun for other inputs", "begun for nobody knows what"])
def test_a_stage_begun_for_other_inputs_is_cleared(folder: Path, spoil: Callable[[Path], None]) -> None:
    interrupted(folder, OTHER)
    spoil(folder)
    work = Work()
    store.stage(folder, INPUTS, work)
    assert work.found == set()


def test_a_stage_done_for_other_inputs_is_cleared_and_made_again(folder: Path) -> None:
    store.stage(folder, OTHER, Work())
    assert not store.done(folder, INPUTS)
    work = Work()
    store.stage(folder, INPUTS, work)
    assert (work.calls, work.found) == (1, set())
    assert store.done(folder, INPUTS)
    assert not store.done(folder, OTHER)


def test_a_stage_made_again_counts_as_nothing_while_it_works(folder: Path) -> None:
    store.stage(folder, OTHER, Work())
    interrupted(folder, INPUTS)
    assert not store.done(folder, INPUTS)
    assert not store.done(folder, OTHER)


def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    code = "with store.locked(Path(a[0])): Path(a[1]).write_text('in')"
    with store.locked(tmp_path / "cell"):
        second = python(code, tmp_path / "cell", tmp_path / "mark")
        assert second.stderr is not None
        assert second.stderr.readline() == f"waiting: another process works in {tmp_path / 'cell'}\n"
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(0.3)
        assert not (tmp_path / "mark").exists()
    said = second.communicate()
    assert (second.returncode, said) == (0, ("", ""))
    assert (tmp_path / "mark").read_text(encoding="utf-8") == "in"


def test_a_lock_ends_with_its_process_or_an_error(tmp_path: Path) -> None:
    holder = python("with store.locked(Path(a[0])): print('in', flush=True); sys.stdin.read()", tmp_path)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "in\n"
    holder.kill()
    holder.communicate()
    with pytest.raises(KeyboardInterrupt), store.locked(tmp_path):
        raise KeyboardInterrupt
    said = python("with store.locked(Path(a[0])): print('in')", tmp_path).communicate()
    assert said == ("in\n", "")


def test_summaries_are_those_of_one_kind_in_path_order(tmp_path: Path) -> None:
    for name in ("cells/b", "cells/a", "pairs/c", "cells/a/deeper"):
        store.write_json(tmp_path / name / "summary.json", {"id": name})
    assert [one["id"] for one in store.summaries(tmp_path, "cells")] == ["cells/a", "cells/b"]
    assert store.summaries(tmp_path, "pairs") == [{"id": "pairs/c"}]
    assert store.summaries(tmp_path / "nothing", "pairs") == []
    with pytest.raises(LimitLabError, match="'models' names no summaries: use cells or pairs"):
        store.summaries(tmp_path, "models")


def test_sha256_is_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert store.sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    store.write_json(tmp_path / "b.json", {"b": (1,), "a": "ü"})
    assert json.loads((tmp_path / "b.json").read_text(encoding="utf-8")) == {"b": [1], "a": "ü"}


def test_released_files_are_gone_and_the_stage_stays_done(tmp_path: Path) -> None:
    def work(place: Path) -> dict[str, int]:
        for name in ("model/a.bin", "model/b.bin", "card.md"):
            store.write_text(place / name, name)
        return {"made": 3}

    folder, inputs = tmp_path / "stage", {"a": 1}
    store.stage(folder, inputs, work)
    assert store.released(folder) == {}
    store.release(folder, ["model/a.*"])
    store.release(folder, ["model/*.bin", "nothing*"])
    store.release(folder, ["model/*.bin"])
    assert store.released(folder) == {"model/a.bin": 11, "model/b.bin": 11}
    assert store.done(folder, inputs)
    assert [path.name for path in folder.rglob("*.*") if path.suffix != ".json"] == ["card.md"]
    (folder / "card.md").unlink()
    with pytest.raises(DataError, match=r"card.md is gone"):
        store.done(folder, inputs)
