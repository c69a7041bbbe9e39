"""do=items: what is printed of single items, which ones, and what is said when they cannot be shown."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from limit_lab import __main__ as door
from limit_lab import store
from limit_lab.report.questions import data_file, data_rows, item, printable
from tests.report import report_world as world

ROWS: dict[str, list[dict[str, Any]]] = {
    "facts_mc": [
        {"query": f"Question {place}?", "choices": ["salt", "[red]tea[/red]", "tin\x1b[31m"], "gold": place % 3}
        for place in range(6)
    ],
    "facts_em": [{"context": f"Write {place}.", "continuation": " tea"} for place in range(6)],
    "pronouns": [{"context_options": ["He said", "She said"], "continuation": " yes.", "gold": 1} for _ in range(6)],
}
TYPES = {"facts_mc": "multiple_choice", "facts_em": "language_modeling", "pronouns": "schema"}
FILES = {label: f"part/{label}.jsonl" for label in ROWS}


def record(label: str, place: int, right: bool) -> dict[str, Any]:
    row = ROWS[label][place]
    told: dict[str, Any] = {"index": place, "cluster": f"e{place}", "group": None, "category": None, "correct": int(right)}
    if "gold" not in row:
        return told | {"prediction": " tea" if right else " coal", "gold": " tea", "nll": 0.5 + place}
    count, gold = len(row.get("choices", row.get("context_options"))), row["gold"]
    picked = gold if right else (gold + 1) % count
    return told | {"prediction": picked, "gold": gold, "nll": [0.25 if at == picked else 4.0 + at for at in range(count)]}


def write(root: Path, label: str, right: str) -> str:
    """A cell with six items in each task; ``right`` has a 1 for every item that it gets right. Returns its id."""
    data = root / "data"
    for name, rows in ROWS.items():
        world.dump_rows(data / FILES[name], rows)
    config = {
        "gauntlet": {"data": str(data), "tasks": [{"label": name, "file": FILES[name]} for name in ROWS], "average": []},
        "microworld": {"seed": 0, "part": "test"},
        "hardware": {},
    }
    tasks = {name: {"type": TYPES[name], "category": "c", "baseline": 0.0, "n": 6} for name in ROWS}
    gauntlet = {"suite": "s", "raw": {"tasks": tasks, "categories": {"c": 0.5}, "average": None}}
    identity = world.write_cell(root, label, [], config=config, gauntlet=gauntlet)
    folder = root / "cells" / identity / "gauntlet" / "raw"
    for name in ROWS:
        world.dump_rows(folder / "items" / f"{name}.jsonl", [record(name, at, sign == "1") for at, sign in enumerate(right)])
    files = {name: store.sha256(data / FILES[name]) for name in ROWS}
    world.dump(folder / "manifest.json", {"fingerprint": "00", "inputs": {"files": files}, "files": {}})
    return identity


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    write(tmp_path, "lima", "110000")
    write(tmp_path, "instruct", "101110")
    return tmp_path


def ask(runs: Path, capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> list[str]:
    """The lines that a call prints, to standard error if it fails."""
    assert door.main(["do=items", f"runs={runs}", *arguments]) == code
    printed = capsys.readouterr()
    assert bool(printed.err) is bool(code)
    return [line.rstrip() for line in (printed.err or printed.out).splitlines()]


def test_wrong_items_of_one_cell(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    lines = ask(runs, capsys, "items.cell=lima", "items.task=facts_mc", "items.only=wrong", "items.limit=1")
    assert lines[0] == "facts_mc, raw: 4 of 6 items wrong, the first 1 (items.limit=4 shows all)."
    assert "item 2, cluster e2: lima-0123456789ab wrong" in lines
    assert "Question 2?" in lines
    shown = [" ".join(line.split()) for line in lines]
    assert shown[-3:] == ["0.250 < salt", "5.000 [red]tea[/red]", "right 6.000 tin␛[31m"]
    assert {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()} == before


def test_changed_items_of_two_cells(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ask(runs, capsys, "items.cell=instruct", "items.against=lima", "items.task=facts_em", "items.only=changed")
    assert lines[0] == "facts_em, raw: 4 of 6 items changed."
    assert [line.split(",")[0] for line in lines if line.startswith("item ")] == [f"item {place}" for place in (1, 2, 3, 4)]
    at = lines.index("item 1, cluster e1: instruct-0123456789ab wrong, lima-0123456789ab right")
    assert lines[at + 1 : at + 5] == [
        "Write 1.",
        "  instruct-0123456789ab wrote:  coal   (the right answer has a loss of 1.500)",
        "  lima-0123456789ab wrote:  tea   (the right answer has a loss of 1.500)",
        "  right:  tea",
    ]


def test_without_a_task_all_are_counted(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ask(runs, capsys, "items.cell=instruct", "items.against=lima")
    rows = [[part.strip() for part in line.strip("│").split("│")] for line in lines if "│" in line]
    assert rows == [[label, "6", "4", "2", "3", "1"] for label in ROWS]
    assert lines[-1].startswith("One task's items: items.task=NAME")


def test_a_schema_shows_its_contexts_as_choices(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ask(runs, capsys, "items.cell=lima", "items.task=pronouns", "items.only=right")
    assert lines.count("… yes.") == 2
    assert [" ".join(line.split()) for line in lines[-2:]] == ["4.000 He said", "right 0.250 < She said"]


def test_rows_that_changed_are_not_shown_as_those_that_were_asked(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = runs / "moved"
    (runs / "data").rename(moved)
    world.dump_rows(runs / "data" / FILES["facts_mc"], ROWS["facts_mc"][::-1])
    lines = ask(runs, capsys, "items.cell=lima", "items.task=facts_mc")
    assert lines[0].endswith("so their text is missing: items.data=FOLDER names their place.")
    assert not [line for line in lines if "Question" in line]
    assert "right 0.250 < choice 1" in [" ".join(line.split()) for line in lines]
    assert "Question 0?" in ask(runs, capsys, "items.cell=lima", "items.task=facts_mc", f"items.data={moved}")
    said = ask(runs, capsys, "items.cell=lima", "items.task=facts_mc", f"items.data={runs / 'data'}", code=1)
    assert said == [
        f"items.data={runs / 'data'} does not hold the rows of facts_mc that lima-0123456789ab was asked: pass their folder."
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "items.cell is not given: name a cell by its id, the beginning of one, or its folder; the latest in "),
        (["items.cell=lina"], 2, "items.cell=lina is no cell in "),
        (
            ["items.cell=lima", "items.task=facts"],
            2,
            "the cell lima-0123456789ab was not asked the task 'facts' (raw); did you",
        ),
        (
            ["items.cell=lima", "items.prompting=template"],
            2,
            "the cell lima-0123456789ab was not asked in items.prompting=temp",
        ),
        (["items.cell=lima", "items.only=changed"], 2, "items.only=changed compares two cells: name the other one with"),
        (["items.cell=lima", "items.only=wrnog"], 2, "items.only='wrnog' is unknown; did you mean 'wrong'?"),
        (["items.cell=lima", "items.limit=0"], 2, "items.limit=0 shows nothing: use 1 or more."),
        (["items.cell=lima", "items.against=other"], 2, "lima-0123456789ab and other-0123456789ab were asked other items of "),
        (["items.cell=broken"], 1, "a record of facts_mc of the cell broken-0123456789ab lacks 'correct': delete "),
        (["items.cell=gone"], 1, "the items of task 'facts_mc' (raw) of cell 'gone-0123456789ab' are missing at "),
    ],
)
def test_what_cannot_be_shown_is_one_sentence(
    arguments: list[str], code: int, said: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in ("other", "broken", "gone"):
        path = runs / "cells" / write(runs, label, "110000") / "gauntlet" / "raw" / "items" / "facts_mc.jsonl"
        if label == "gone":
            path.unlink()
        else:
            text = path.read_text()
            path.write_text(text.replace('"correct"', '"right"') if label == "broken" else text.replace("e0", "f0"))
    (line,) = ask(runs, capsys, *arguments, code=code)
    assert line.startswith(said)


def test_the_rows_of_an_embedded_world_lie_beside_the_cells(tmp_path: Path) -> None:
    identity = write(tmp_path, "lima", "110000")
    place = tmp_path / "microworld" / "test-seed0-v1"
    (tmp_path / "data").rename(place.parent.parent / "x")
    place.parent.mkdir()
    (tmp_path / "x").rename(place)
    cell = tmp_path / "cells" / identity
    config = json.loads((cell / "summary.json").read_text())["config"]
    config["gauntlet"]["data"] = None
    found = data_file(cell, config, "raw", "facts_mc")
    assert found == place / FILES["facts_mc"]
    assert data_rows(found, {4, 1}) == {1: ROWS["facts_mc"][1], 4: ROWS["facts_mc"][4]}
    assert data_file(cell, config, "template", "facts_mc") is None


def test_a_generated_answer_is_shown_with_all_that_are_accepted() -> None:
    one = {"index": 3, "cluster": "e", "correct": 0, "prediction": "6", "gold": ["5", "five"], "nll": None}
    found = item([one], {"context": " 2 + 3 = ", "answer": "5"})
    assert (found.question, found.gold, found.wrote[0].text, found.wrote[0].loss) == ("2 + 3 =", "5 or five", "6", None)


def test_what_terminals_obey_is_shown_instead() -> None:
    assert printable("a\x1b[2J\x07\tb\n\x7f\x9b") == "a␛[2J␇\tb\n␡\ufffd"
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", printable("".join(map(chr, range(256)))))
