"""A page stands until something that it says changes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from limit_lab import kept, provenance, store
from limit_lab.compose import compose
from limit_lab.config import Study

RECORD = {"cells": ["a-1"], "pairs": ["a-1-vs-b-2"], "command": "python -m limit_lab", "base": {"config.json": "00"}}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    for name in ("cells/a-1/summary.json", "cells/a-1/answers/answers.jsonl", "pairs/a-1-vs-b-2/summary.json", "cells/c-3/x"):
        store.write_json(tmp_path / name, {})
    return compose([f"runs={tmp_path}"])


@pytest.fixture
def written(study: Study) -> Callable[..., bool]:
    """Whether a page of a study (the fixture's by default) and a record is written; what it says is always the same."""

    def write(changed: Study | None = None, record: dict[str, object] | None = None) -> bool:
        given = changed or study
        out = Path(given.report.out or Path(given.runs) / "studies" / given.study.name)
        calls = []

        def page() -> Path:
            calls.append(1)
            store.write_text(out / "index.html", "<h1>page</h1>")
            store.write_text(out / "plane.svg", "<svg/>")
            return out / "index.html"

        store.write_json(Path(given.runs) / "studies" / given.study.name / "study.json", record or RECORD)
        assert kept.page([given], record or RECORD, page) == out / "index.html"
        return bool(calls)

    assert write()
    assert not write()
    return write


def test_the_page_that_stands_is_named_too(
    written: Callable[..., bool], study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert not written()
    assert capsys.readouterr().out == f"{Path(study.runs) / 'studies' / study.study.name / 'index.html'}\n"


@pytest.mark.parametrize("name", ["cells/a-1/summary.json", "cells/a-1/answers/answers.jsonl", "pairs/a-1-vs-b-2/summary.json"])
def test_a_record_that_is_written_again_makes_a_new_page(name: str, written: Callable[..., bool], study: Study) -> None:
    os.utime(Path(study.runs) / name, ns=(1, 1))
    assert written()
    (Path(study.runs) / name).unlink()
    assert written()
    assert not written()


def test_another_cell_does_not(written: Callable[..., bool], study: Study) -> None:
    (Path(study.runs) / "cells" / "c-3" / "x").unlink()
    assert not written()


@pytest.mark.parametrize("name", ["index.html", "plane.svg"])
def test_an_edited_or_deleted_page_is_written_again(name: str, written: Callable[..., bool], study: Study) -> None:
    file = Path(study.runs) / "studies" / study.study.name / name
    file.write_text("edited", encoding="utf-8")
    assert written()
    file.unlink()
    assert written()
    assert not written()


@pytest.mark.parametrize("key", ["cells", "pairs", "command", "base"])
def test_another_record_makes_a_new_page(key: str, written: Callable[..., bool]) -> None:
    other = {"cells": ["c-3"], "pairs": [], "command": "limit-lab", "base": {"config.json": "11"}}[key]
    assert written(None, {**RECORD, key: other})


def test_other_claims_or_code_make_a_new_page(
    written: Callable[..., bool], study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert written(replace(study, study=replace(study.study, frozen="000000000000")))
    assert written(replace(study, report=replace(study.report, out=str(tmp_path / "out"))))
    assert written()
    monkeypatch.setattr(provenance, "code", lambda: "other")
    assert written()
    assert not written()
