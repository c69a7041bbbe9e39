"""Every layout of a source file, and the sentence for every file that fits none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from limit_lab import store
from limit_lab.config import Data, Source
from limit_lab.errors import DataError
from limit_lab.microworld.samples import AVAILABLE
from limit_lab.mixture.sources import Rows, path_of, read

FRAMED = "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"


def data_of(path: Path | str, folder: Path | None = None) -> Data:
    return Data(name="mine", dir=str(folder) if folder else None, sources={"rows": Source(kind="file", file=str(path))})


def written(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_rows(folder: Path, *rows: dict[str, Any]) -> Rows:
    return read("rows", data_of(written(folder, *rows)), world_seed=0)


@pytest.mark.parametrize(
    ("row", "prompt", "response"),
    [
        ({"prompt": "Add {1} and 2.", "response": " 3\n"}, "Add {1} and 2.", "3"),
        ({"prompt": f"{FRAMED}### Instruction:\nAdd.\n\n### Response:\n", "response": "3", "source": "x"}, "Add.", "3"),
        ({"instruction": "Add 1 and 2.", "input": "", "output": "3"}, "Add 1 and 2.", "3"),
        ({"instruction": "Add 1 and 2.", "output": "3"}, "Add 1 and 2.", "3"),
        ({"instruction": "Add.", "input": "1 and 2", "output": "3"}, "Add.\n1 and 2", "3"),
        ({"instruction": "Add.", "input": None, "output": 3}, "Add.", "3"),
        ({"conversations": ["Add 1 and 2.", "3"], "source": "stackexchange"}, "Add 1 and 2.", "3"),
    ],
)
def test_a_row_is_read_in_every_layout(row: dict[str, Any], prompt: str, response: str, tmp_path: Path) -> None:
    found = read_rows(tmp_path, row)
    assert [(one.index, one.prompt, one.response) for one in found.rows] == [(0, prompt, response)]
    assert (found.rows[0].facts, found.rows[0].template, found.left_out) == ((), None, {})


def test_what_is_left_out_is_counted_by_reason_and_indices_stay_those_of_the_file(tmp_path: Path) -> None:
    found = read_rows(
        tmp_path,
        {"conversations": ["a", "b", "c", "d"]},
        {"conversations": ["a", "b"]},
        {"conversations": ["a", "b", "c"]},
        {"conversations": ["a"]},
        {"prompt": "a", "response": " \n"},
        {"prompt": "a", "response": None},
        {"prompt": "e", "response": "f"},
    )
    assert found.left_out == {"multi-turn": 2, "no response": 3}
    assert [(row.index, row.prompt, row.response) for row in found.rows] == [(1, "a", "b"), (6, "e", "f")]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "x", "label": 1}, "line 2 has the columns label, text: give it prompt and response."),
        ({"instruction": "x", "response": "y"}, "line 2 has the columns instruction, response: give it prompt"),
        ({"conversations": "x"}, "line 2 has the columns conversations: give it prompt and response."),
        (
            {"conversations": [{"from": "human", "value": "x"}]},
            "line 2 has {'from': 'human', 'value': 'x'} where a text",
        ),
        ({"prompt": ["x"], "response": "y"}, "line 2 has ['x'] where a text belongs"),
        ({"instruction": "x", "input": {"a": 1}, "output": "y"}, "line 2 has {'a': 1} where a text belongs"),
    ],
)
def test_a_row_in_no_known_layout_names_its_line(row: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_rows(tmp_path, {"prompt": "a", "response": "b"}, row)
    assert f"{tmp_path / 'rows.jsonl'} {said}" in str(caught.value)


def test_a_file_without_a_usable_row_is_refused(tmp_path: Path) -> None:
    for rows in ([], [{"conversations": ["only a prompt"]}]):
        with pytest.raises(DataError, match=r"source 'rows': .* holds no row with a prompt and a response: check its columns"):
            read_rows(tmp_path, *rows)


def test_the_hash_is_that_of_the_file(tmp_path: Path) -> None:
    found = read_rows(tmp_path, {"prompt": "a", "response": "b"})
    assert found.sha256 == store.sha256(tmp_path / "rows.jsonl")
    assert read_rows(tmp_path, {"prompt": "a", "response": "c"}).sha256 != found.sha256


def test_relative_files_lie_under_the_data_folder(tmp_path: Path) -> None:
    written(tmp_path, {"prompt": "a", "response": "b"})
    assert len(read("rows", data_of("rows.jsonl", tmp_path), world_seed=0).rows) == 1
    assert path_of(Source(kind="file", file="/x/y.jsonl"), data_of("z", tmp_path)) == Path("/x/y.jsonl")
    with pytest.raises(DataError, match=r"file rows.jsonl is relative, and data.dir is not set: add data.dir=FOLDER"):
        read("rows", data_of("rows.jsonl"), world_seed=0)
    with pytest.raises(DataError, match=r"gone.jsonl does not exist: check data.sources.rows.file, or data.dir"):
        read("rows", data_of("gone.jsonl", tmp_path), world_seed=0)


def test_unknown_and_hub_sources_name_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="source 'row' is unknown in data=mine; did you mean 'rows'"):
        read("row", data_of("x"), world_seed=0)
    data = Data(name="mine", sources={"far": Source(kind="hub", hub="someone/rows")})
    with pytest.raises(DataError, match=r"'far' lies on the Hub \(someone/rows\): .* data.sources.far.file=rows.jsonl"):
        read("far", data, world_seed=0)


def test_embedded_rows_know_their_facts_and_depend_on_the_world() -> None:
    data = Data(name="micro", sources={"lima": Source(kind="microworld")})
    found = read("lima", data, world_seed=0)
    assert len(found.rows) == AVAILABLE["lima"]
    assert [row.index for row in found.rows] == list(range(len(found.rows)))
    assert all(row.facts and row.template and row.prompt and row.response for row in found.rows)
    assert read("lima", data, world_seed=0) == found
    other = read("lima", data, world_seed=1)
    assert other.sha256 != found.sha256
    assert other.rows != found.rows


def test_the_published_files_are_read_whole(shared: Path) -> None:
    """LIMA holds 1,000 single-turn rows and 30 dialogues (Zhou et al. 2023, section 2)."""
    lima = read("rows", data_of(shared / "data" / "lima" / "train.jsonl"), world_seed=0)
    assert (len(lima.rows), lima.left_out) == (1000, {"multi-turn": 30})
    dolly = shared / "data" / "dolly_hhrlhf" / "dolly_hhrlhf_train_small.jsonl"
    found = read("rows", data_of(dolly), world_seed=0)
    assert len(found.rows) + sum(found.left_out.values()) == len(store.read_rows(dolly))
    assert not any(row.prompt.startswith("Below is an instruction") or "### Response:" in row.prompt for row in found.rows)
