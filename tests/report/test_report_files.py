"""What stands beside the page: figures as files of their own, and the short form in markdown."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from limit_lab import report
from limit_lab.config import Predicate
from limit_lab.report.markdown import words
from tests.report import report_world as world

SVG = "{http://www.w3.org/2000/svg}"
CLAIMS = [
    Predicate(claim="Instruct | beats <LIMA>", measure="gauntlet", kind="better", left="instruct", right="lima"),
    Predicate(claim="Nobody wins", measure="gauntlet", kind="better", left="nobody", right="lima"),
]
INTERVAL = r"\[−?\d+\.\d, −?\d+\.\d\]"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    write(root, *world.write_study(root))
    return root / "out"


def write(root: Path, cells: list[str], pairs: list[str]) -> None:
    report.write(root, cells, pairs, name="mixtures", predicates=CLAIMS, command="limit-lab study=a", out=root / "out")


@pytest.mark.parametrize(("file", "panels"), [("paradigms.svg", 3), ("plane.svg", 1)])
def test_a_figure_stands_alone(out: Path, file: str, panels: int) -> None:
    text = (out / file).read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    left, top, width, height = (float(number) for number in root.attrib["viewBox"].split())
    assert (left, top) == (0, 0)
    assert root.find(f"{SVG}rect") is not None  # its own paper
    inside = root.findall(f"{SVG}svg")
    assert len(inside) == panels
    for one in inside:
        x, y, wide, tall = (float(one.attrib[name]) for name in ("x", "y", "width", "height"))
        assert x + wide <= width
        assert y + tall <= height
    assert not re.findall(r"var\(|@import|<image|url\((?!#)", text)
    assert all(target.startswith("#") for target in re.findall(r'href="([^"]*)"', text))
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_files_show_the_figures_of_the_page(out: Path) -> None:
    """The same drawing: the page differs in its colours, which it takes from its theme, and in the size of the frame."""
    page = re.sub(r"var\(--\w+, (#\w+)\)", r"\1", (out / "index.html").read_text(encoding="utf-8"))
    for file, panels in (("paradigms.svg", 3), ("plane.svg", 1)):
        drawings = re.findall(r"<defs>\s*<style.*?</svg>", (out / file).read_text(encoding="utf-8"), flags=re.DOTALL)
        assert len(drawings) == panels
        assert all(drawing in page for drawing in drawings)


def test_the_plane_goes_when_there_is_nothing_to_show(tmp_path: Path) -> None:
    cells, pairs = world.write_study(tmp_path)
    write(tmp_path, cells, pairs)
    assert (tmp_path / "out" / "plane.svg").is_file()
    write(tmp_path, cells, [])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "curves.svg",
        "index.html",
        "matrices.svg",
        "paradigms.svg",
        "report.json",
        "report.md",
    ]
    assert "plane.svg" not in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


def test_the_short_form_has_the_numbers_of_the_page(out: Path) -> None:
    short, page = ((out / name).read_text(encoding="utf-8") for name in ("report.md", "index.html"))
    shown = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page))
    numbers = re.findall(rf"−?\d+\.\d†?(?: ± \d+\.\d)? {INTERVAL}", short)
    assert len(numbers) >= 15
    assert all(number in shown for number in numbers)
    assert len(re.findall(INTERVAL, short)) == len(numbers)
    bare = re.sub(rf"−?\d+\.\d†?(?: ± \d+\.\d)? {INTERVAL}", "", short)
    assert not re.findall(r"\d\.\d", bare)  # no measured number without its interval
    for sentence in json.loads((out / "report.json").read_text(encoding="utf-8"))["answer"]:
        assert words(sentence) in short


def test_the_short_form_tells_claims_figures_and_command(out: Path) -> None:
    short = (out / "report.md").read_text(encoding="utf-8")
    assert "| Instruct \\| beats &lt;LIMA&gt; | yes |" in short
    assert "| Nobody wins | not determined: there is no cell nobody | – |" in short
    assert "](paradigms.svg)" in short
    assert "](plane.svg)" in short
    assert "](curves.svg)" in short
    assert "](matrices.svg)" in short
    assert short.endswith("    limit-lab study=a\n")
    widths: dict[str, set[int]] = {}
    for block in short.split("\n\n"):
        lines = [line for line in block.split("\n") if line.startswith("|")]
        widths[block] = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
    assert all(len(found) <= 1 for found in widths.values())
    assert sum(len(found) for found in widths.values()) == 3


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("lima_plus_instruct at -1.5 of +2", "lima_plus_instruct at −1.5 of +2"),
        ("_a_ *b* `c` [d](e)", r"\_a\_ \*b\* \`c\` [d]\(e)"),
        ("51.2 [-0.1, 2.0] on\n2026-11-23 <b>", "51.2 [−0.1, 2.0] on 2026-11-23 &lt;b&gt;"),
    ],
)
def test_text_stays_text(text: str, shown: str) -> None:
    assert words(text) == shown


def test_writing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    cells, pairs = world.write_study(tmp_path)
    found: list[dict[str, Any]] = []
    for _ in range(2):
        write(tmp_path, cells, pairs)
        found.append({path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()})
    assert found[0] == found[1]


def test_an_unverified_copy_is_marked_wherever_the_model_is_named(tmp_path: Path) -> None:
    copied = {"model": "mpt_7b (unverified copy)", "verified": False}
    lima = world.write_cell(tmp_path, "lima", world.ACCURACY["lima"], **copied)
    none = world.write_cell(tmp_path, "none", world.ACCURACY["none"], verified=None)
    write(tmp_path, [none, lima], [])
    for name in ("report.md", "index.html"):
        assert "2 cells, from mpt_7b (unverified copy) on" in (tmp_path / "out" / name).read_text(encoding="utf-8"), name
    assert (tmp_path / "out" / "index.html").read_text(encoding="utf-8").count("mpt_7b (unverified copy)") >= 2
