"""Single items on the page: which are shown, that they are few and short, and that their text stays text."""

from __future__ import annotations

import html
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from limit_lab import report, store
from limit_lab.report.questions import Choice, Item, Written
from limit_lab.report.scores import measure
from limit_lab.report.shown_items import CHOICES, ITEMS, QUESTION, TEXT, short, shown_items
from tests.report import report_world as world
from tests.report.test_report_page import parse

HOSTILE = "<script>alert(1)</script> <img src=http://evil.example/x onerror=alert(1)> {{ 7 * 7 }} \x1b[2J"


def study(root: Path, labels: tuple[str, ...] = ("lima", "instruct"), *, recorded: bool = True) -> list[str]:
    """Cells whose records tell predictions and losses, and whose rows lie in a folder of their own."""
    data = root / "data"
    world.dump_rows(data / "mc.jsonl", [_row(place) for place in range(120)])
    config = {"gauntlet": {"data": str(data), "tasks": [{"label": "knowledge_mc", "file": "mc.jsonl"}]}}
    config |= {"hardware": {}, "microworld": {"seed": 0, "part": "test"}}
    cells = []
    for label in labels:
        cells.append(world.write_cell(root, label, [world.ACCURACY[label][0][:2]], config=config))
        folder = root / "cells" / cells[-1] / "gauntlet" / "raw"
        for name in ("knowledge_mc", "knowledge_em") if recorded else ():
            path = folder / "items" / f"{name}.jsonl"
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            world.dump_rows(path, [row | _told(name, row["index"], row["correct"]) for row in rows])
        files = {"knowledge_mc": store.sha256(data / "mc.jsonl")}
        world.dump(folder / "manifest.json", {"inputs": {"files": files}})
    return cells


def _row(place: int) -> dict[str, Any]:
    return {"query": f"{HOSTILE} question {place}?", "choices": [HOSTILE, "b", "c", "d"], "gold": place % 4}


def _told(name: str, place: int, right: bool) -> dict[str, Any]:
    if name == "knowledge_em":
        return {"prediction": HOSTILE, "gold": "tea", "nll": 1.5}
    picked = place % 4 if right else (place + 1) % 4
    return {"prediction": picked, "gold": place % 4, "nll": [0.125 if at == picked else 2.0 for at in range(4)]}


def test_items_that_changed_are_shown_evenly_spaced(tmp_path: Path) -> None:
    cells = study(tmp_path)
    arms, _ = world.read(tmp_path, cells, [])
    (suite,) = shown_items(tmp_path, arms, measure(arms, []), "lima")
    assert suite.names == ["lima", "instruct"]
    choice, written = suite.tasks
    correct = [arm.suites["raw"].tasks["knowledge_mc"].correct for arm in arms]
    changed = [place for place, (a, b) in enumerate(zip(*correct, strict=True)) if a != b]
    assert (choice.label, choice.kind, choice.count, choice.total) == ("knowledge_mc", "changed", len(changed), 120)
    assert len(choice.items) == ITEMS
    assert [one.index for one in choice.items] == sorted({one.index for one in choice.items} & set(changed))
    for one in choice.items:
        assert one.question is not None
        assert one.question.endswith(f"question {one.index}?")
        assert one.right == [bool(own[one.index]) for own in correct]
        assert [picked.gold for picked in one.choices] == [at == one.index % 4 for at in range(4)]
    assert {one.question for one in written.items} == {None}  # its file is not at hand
    assert {one.wrote[0].loss for one in written.items} == {1.5}


def test_one_cell_alone_shows_what_it_gets_wrong(tmp_path: Path) -> None:
    arms, _ = world.read(tmp_path, study(tmp_path, ("lima",)), [])
    (suite,) = shown_items(tmp_path, arms, measure(arms, []), "lima")
    assert suite.names == ["lima"]
    assert [(task.kind, task.count) for task in suite.tasks] == [("wrong", 8), ("wrong", 104)]
    assert all(one.right == [False] for task in suite.tasks for one in task.items)


def test_records_of_before_predictions_were_kept_show_none(tmp_path: Path) -> None:
    arms, _ = world.read(tmp_path, study(tmp_path, recorded=False), [])
    assert shown_items(tmp_path, arms, measure(arms, []), "lima") == []


def test_the_page_shows_items_as_text(tmp_path: Path) -> None:
    cells = study(tmp_path)
    report.write(tmp_path, cells, [], name="s", predicates=[], command="c", out=tmp_path / "out", baseline="lima")
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    tags = parse(page)
    assert tags.loaded == []
    assert not tags.names & {"script", "img"}
    assert html.escape("<script>alert(1)</script>") in page
    assert "{{ 7 * 7 }} ␛[2J question" in page
    assert "what changed from lima to instruct" in page.split("Single items")[1]


def test_long_items_are_cut_and_say_so() -> None:
    choices = [Choice(text="x" * 500, gold=at == 25, losses=[1.0], picked=[at == 20]) for at in range(30)]
    whole = Item(
        index=0, cluster="e", category=None, question="q" * 900 + "?", choices=choices, wrote=[], gold="g", right=[False]
    )
    found = short(whole)
    assert found.question == "… " + "q" * (QUESTION - 1) + "?"
    assert len(found.choices) == CHOICES
    assert [choice.gold for choice in found.choices].count(True) == 1
    assert [choice.picked for choice in found.choices].count([True]) == 1
    assert {choice.text for choice in found.choices} == {"x" * TEXT + " …"}
    spoken = replace(whole, question="short?", choices=[], wrote=[Written(text="w" * 500, loss=None)], gold="g" * 500)
    assert short(spoken).question == "short?"
    assert (len(short(spoken).wrote[0].text), len(short(spoken).gold)) == (TEXT + 2, TEXT + 2)
