"""What is known of the original files, and what is said of copies of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from limit_lab.compose import compose
from limit_lab.config import ORIGINALS
from limit_lab.errors import EvalError
from limit_lab.gauntlet.files import command, originals, stated
from limit_lab.gauntlet.tasks import require_files
from limit_lab.preflight import problems

#: Files of which no hash was ever at hand.
FREE = {
    "world_knowledge/mmlu.jsonl",
    "language_understanding/hellaswag.jsonl",
    "symbolic_problem_solving/bigbench_elementary_math_qa.jsonl",
    "reading_comprehension/squad.jsonl",
    "reading_comprehension/coqa.jsonl",
    "safety/bbq.jsonl",
}


def test_the_paper_s_suite_reads_original_files_only() -> None:
    read = {task.file for task in compose(["gauntlet=v0", "data.dir=/d"]).gauntlet.tasks}
    assert read <= set(originals())
    assert {file for file in read if originals()[file].sha256 is None} == read & FREE
    hashes = [known.sha256 for known in originals().values() if known.sha256 is not None]
    assert len(hashes) == 29
    assert all(re.fullmatch("[0-9a-f]{64}", one) for one in hashes)


def test_the_table_says_what_the_manifest_says(shared: Path) -> None:
    rows = json.loads((shared / "data" / "manifest.json").read_text(encoding="utf-8"))
    told = {row["path"].removeprefix("gauntlet/"): row for row in rows if row["path"].startswith("gauntlet/")}
    assert set(told) == {file for file, known in originals().items() if known.sha256 is not None}
    for file, row in told.items():
        known = originals()[file]
        assert (known.sha256, known.rows, known.bytes) == (row["sha256"], row["rows"], row["bytes"])
        repository, commit, path = re.fullmatch(r"(\S+) @(\w+) (\S+)", row["origin"]).groups()  # type: ignore[union-attr]
        assert ORIGINALS + f"/{file}" == f"https://raw.githubusercontent.com/{repository}/{commit}/{path}"


def test_the_files_at_hand_are_the_originals(shared: Path) -> None:
    file = "commonsense_reasoning/copa.jsonl"
    assert stated(shared / "data" / "gauntlet", file) == {"sha256": originals()[file].sha256, "state": "verified"}


def test_a_file_that_the_gauntlet_does_not_have_is_one_s_own(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text("{}\n", encoding="utf-8")
    assert stated(tmp_path, "mine.jsonl")["state"] == "own"


def test_the_command_names_the_shipped_option_and_the_folder() -> None:
    suite = compose(["+experiment=real_rows", "data.dir=/d"]).gauntlet
    assert command(suite, Path("/d/gauntlet")) == "python -m limit_lab do=fetch gauntlet=real_rows data.dir=/d"
    assert command(suite, Path("/d/my tasks")) == "python -m limit_lab do=fetch gauntlet=real_rows 'gauntlet.data=/d/my tasks'"


def test_every_missing_file_is_named_and_one_s_own_are_not_fetched(tmp_path: Path) -> None:
    suite = compose(["gauntlet=v0", "data.dir=/d", "gauntlet.tasks.0.file=mine.jsonl"]).gauntlet
    with pytest.raises(EvalError) as caught:
        require_files(suite, suite.tasks, tmp_path)
    said = str(caught.value)
    assert all(f"{task.label} ({task.file})" in said for task in suite.tasks)
    assert f"do=fetch gauntlet=v0 gauntlet.data={tmp_path} fetches them, except mine.jsonl, which you add, or choose" in said


@pytest.mark.parametrize("place", ["/no/data", None])
def test_without_a_folder_the_preflight_names_files_and_command(place: str | None) -> None:
    given = [] if place is None else [f"data.dir={place}"]
    study = compose(["+experiment=real_rows", "gauntlet=v0", *given])
    (said,) = (problem for problem in problems([study]) if "do=fetch" in problem)
    assert f"(python -m limit_lab do=fetch gauntlet=v0 data.dir={place or '/path/to/data'} fetches them: " in said
    assert all(task.file in said for task in study.gauntlet.tasks)
