"""The page: self-contained, safe against what models answer, and true to the items."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from limit_lab import report
from limit_lab.config import Predicate
from limit_lab.errors import DataError, EvalError, LimitLabError
from limit_lab.report.samples import folded
from tests.report import report_world as world

HOSTILE = "<script>alert(1)</script> <img src=http://evil.example/x onerror=alert(1)> &amp; </pre> {{ 7 * 7 }} \x00\x07 $x$"
CLAIM = Predicate(claim="Instruct < LIMA & more", measure="gauntlet", kind="better", left="instruct", right="lima")


def build(
    root: Path, cells: list[str], pairs: list[str], predicates: list[Predicate] | None = None
) -> tuple[str, dict[str, Any]]:
    words = {"name": "mixtures", "predicates": predicates or [], "command": "python -m limit_lab do=report"}
    page = report.write(root, cells, pairs, out=root / "out", **words)
    assert page == root / "out" / "index.html"
    return page.read_text(encoding="utf-8"), json.loads((root / "out" / "report.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict[str, Any]]:
    root = tmp_path_factory.mktemp("runs")
    cells, pairs = world.write_study(root)
    return root, *build(root, cells, pairs, [CLAIM])


class Tags(HTMLParser):
    """Collects what a browser would load or run, and whether tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.names: set[str] = set()
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "srcset", "data") and not (value or "").startswith("#"):
                self.loaded.append(f"{tag} {name}={value}")
            assert not name.startswith("on"), f"{tag} runs {name}"


def parse(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    return tags


def test_the_page_loads_and_runs_nothing(study: tuple[Path, str, dict[str, Any]]) -> None:
    tags = parse(study[1])
    assert tags.loaded == []
    assert not tags.names & {"script", "link", "iframe", "img", "object"}
    assert len(tags.ids) == len(set(tags.ids))
    assert "@import" not in study[1]
    assert not re.findall(r"url\((?!#)", study[1])


def test_figures_are_xml_with_titles_and_no_date(study: tuple[Path, str, dict[str, Any]]) -> None:
    figures = re.findall(r"<svg.*?</svg>", study[1], flags=re.DOTALL)
    assert len(figures) == 10
    for figure in figures:
        root = ElementTree.fromstring(figure)
        title = root.find("{http://www.w3.org/2000/svg}title")
        assert title is not None
        assert title.text
        assert "metadata" not in figure


def test_the_same_records_give_the_same_bytes(study: tuple[Path, str, dict[str, Any]]) -> None:
    root, page, numbers = study
    cells = [entry["id"] for entry in numbers["cells"].values()]
    assert build(root, cells, list(numbers["pairs"]), [CLAIM]) == (page, numbers)


def test_averages_equal_those_recomputed_from_items(study: tuple[Path, str, dict[str, Any]]) -> None:
    root, page, numbers = study
    for entry in numbers["cells"].values():
        for prompting, scores in entry["scores"].items():
            parts = []
            for label, (_, _, chance, _) in world.TASKS.items():
                path = root / "cells" / entry["id"] / "gauntlet" / prompting / "items" / f"{label}.jsonl"
                correct = [json.loads(line)["correct"] for line in path.read_text().splitlines()]
                parts.append((np.mean(correct) - chance) / (1 - chance))
            assert scores["average"]["value"] == pytest.approx(np.mean(parts), abs=1e-9)
            assert scores["average"]["low"] < scores["average"]["value"] < scores["average"]["high"]
            assert f">{100 * np.mean(parts):.1f} <".replace("-", "−") in page


def test_rates_equal_those_recomputed_from_items(study: tuple[Path, str, dict[str, Any]]) -> None:
    root, page, numbers = study
    for identity, pair in numbers["pairs"].items():
        rows = [json.loads(line) for line in (root / "pairs" / identity / "items.jsonl").read_text().splitlines()]
        unseen = np.mean([row["preference"] for row in rows if row["unseen"]])
        assert pair["scores"]["rate"]["value"] == pytest.approx(np.mean([row["preference"] for row in rows]))
        assert pair["scores"]["unseen"]["value"] == pytest.approx(unseen)
        assert f"{100 * unseen:.1f} <" in page


def test_every_table_of_the_page_is_in_the_json(study: tuple[Path, str, dict[str, Any]]) -> None:
    _, page, numbers = study
    assert page.count("<caption>") == len(numbers["tables"])
    assert all(f"<caption><span>{table['caption']}<" in page.replace("&#39;", "'") for table in numbers["tables"])
    assert all(len(row) == len(table["columns"]) for table in numbers["tables"] for row in table["rows"])


def test_groups_and_chance_are_told(study: tuple[Path, str, dict[str, Any]]) -> None:
    _, page, numbers = study
    groups = numbers["cells"]["instruct"]["scores"]["raw"]["groups"]["knowledge_em"]
    tasks = numbers["cells"]["instruct"]["scores"]["raw"]["tasks"]["knowledge_em"]
    assert (groups["elicitation"]["value"] + groups["injection"]["value"]) / 2 == pytest.approx(tasks["value"])
    assert groups["elicitation"]["n"] == 60
    assert numbers["at_chance"] == {"raw": ["letters"], "template": ["letters"]}
    both = next(table for table in numbers["tables"] if table["caption"].startswith("The same questions"))
    assert both["columns"][1:] == [f"{group}, {how}" for group in world.GROUPS for how in ("exact match", "likelihood")]
    assert both["rows"][2][3]["estimate"] == groups["injection"]
    assert "Injection: facts met only in fine-tuning." in page
    for where in ("raw prompts", "in the template"):
        assert f"No cell is above chance in letters_mc ({where})" in page


def test_couples_about_the_same_facts_are_told_apart_by_their_tasks(tmp_path: Path) -> None:
    cell = world.write_cell(tmp_path, "instruct", world.ACCURACY["instruct"], grouped=False)
    path = tmp_path / "cells" / cell / "summary.json"
    summary = json.loads(path.read_text())
    tasks = summary["gauntlet"]["raw"]["tasks"]
    tasks["letters_mc"]["partner"], tasks["arithmetic_em"]["partner"] = "arithmetic_em", "letters_mc"
    world.dump(path, summary)
    both = next(table for table in build(tmp_path, [cell], [])[1]["tables"] if table["caption"].startswith("The same"))
    assert both["columns"][1:] == [
        "exact match (knowledge_em)",
        "likelihood (knowledge_mc)",
        "exact match (arithmetic_em)",
        "likelihood (letters_mc)",
    ]


def test_the_opening_says_close_and_not_determined(study: tuple[Path, str, dict[str, Any]]) -> None:
    text = " ".join(study[2]["answer"])
    assert "so which of the two leads is not determined" in text
    assert "close to even, but below it" in text
    assert "The two paradigms disagree" in text
    assert 3 <= len(study[2]["answer"]) <= 6


def test_the_opening_names_what_did_not_hold_and_whom_the_judge_prefers(tmp_path: Path) -> None:
    cells, pairs = world.write_study(tmp_path)
    pairs[1] = world.write_pair(tmp_path, cells[2], cells[1], [0.0, 1.0] * 150)
    reverse = Predicate(claim="LIMA > Instruct", measure="gauntlet", kind="better", left="lima", right="instruct")
    text = " ".join(build(tmp_path, cells, pairs, [CLAIM, reverse])[1]["answer"])
    assert "1 held and 1 did not hold (“LIMA > Instruct”)" in text
    assert "prefers lima to none, lima_plus_instruct and instruct_5k" in text
    assert "does not settle which of lima and instruct is preferred" in text


def test_the_opening_names_the_baseline_that_each_cell_was_compared_with(tmp_path: Path) -> None:
    def cell(label: str, duration: str, training: int) -> str:
        changes = {
            "config": {
                "finetune": {"duration": duration},
                "gauntlet": {"average": [], "data": None},
                "microworld": {"part": "test", "seed": 0},
            },
            "identity": {"numerics": 1, "recipe": {"duration": duration}},
        }
        return world.write_cell(tmp_path, label, world.ACCURACY[label], replicate=(0, training), **changes)

    recipes = {"6ep": 0, "9ep": 1}
    cells = [cell(label, *recipe) for recipe in recipes.items() for label in ("lima", "instruct")]
    couples = zip(cells[::2], cells[1::2], strict=True)
    pairs = [world.write_pair(tmp_path, one, baseline, [0.0] * 200 + [1.0] * 10) for baseline, one in couples]
    text = " ".join(build(tmp_path, cells, pairs, [])[1]["answer"])
    assert (
        "prefers lima, duration=6ep to instruct, duration=6ep; it prefers lima, duration=9ep to instruct, duration=9ep" in text
    )


def test_items_of_the_development_part_give_provisional_verdicts(tmp_path: Path) -> None:
    config = {"gauntlet": {"average": [], "data": None}, "microworld": {"part": "development", "seed": 3}}
    cells = [world.write_cell(tmp_path, name, world.ACCURACY[name], config=config) for name in ("lima", "instruct")]
    page, numbers = build(tmp_path, cells, [], [CLAIM])
    assert "microworld (development part of world 3)" in page
    assert "these verdicts are provisional" in numbers["answer"][0]
    for name in ("lima", "instruct"):
        changed = config | {"microworld": {"part": "test", "seed": 3}}
        world.write_cell(tmp_path, name, world.ACCURACY[name], config=changed)
    page, numbers = build(tmp_path, cells, [], [CLAIM])
    assert "microworld (test part of world 3)" in page
    assert "provisional" not in page


def test_loss_shares_steps_and_repetition_are_told(study: tuple[Path, str, dict[str, Any]]) -> None:
    _, page, numbers = study
    overview, sources = (
        next(t for t in numbers["tables"] if t["caption"].startswith(word)) for word in ("The cells", "Sources")
    )
    samples = {row[0]: row[1] for row in overview["rows"]}
    assert samples["lima_plus_instruct"] == "1,000 lima (50 % of the loss) + 1,000 instruct (50 % of the loss)"
    assert samples["lima"] == "1,000 lima"
    assert "from 372 steps (lima) to 1,872 (instruct_5k)" in overview["note"]
    column = sources["columns"].index("repetition")
    assert {row[0]: row[column] for row in sources["rows"]} == {
        "lima": "no",
        "instruct": "no",
        "lima_plus_instruct": "no",
        "instruct_5k": "from row 1,985 on (3,016 rows)",
    }
    assert "269 of 336" in page


def test_a_line_that_repeats_is_folded_and_others_stand() -> None:
    assert folded("a\nb\nb\nb\na\na\n\n\n\nb") == "a\nb ⟨this line 3 times⟩\na\na\n\n\n\nb"


def test_hostile_answers_and_claims_stay_text(tmp_path: Path) -> None:
    cells = [world.write_cell(tmp_path, "lima", world.ACCURACY["lima"], answers=[HOSTILE] * 9)]
    cells.append(world.write_cell(tmp_path, "<b>$x$", world.ACCURACY["instruct"], answers=["", " \n"] + [HOSTILE] * 7))
    page, _ = build(tmp_path, cells, [], [CLAIM])
    tags = parse(page)
    assert tags.loaded == []
    assert not tags.names & {"script", "img", "b"}
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "{{ 7 * 7 }}" in page
    assert "\x00" not in page
    for figure in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        ElementTree.fromstring(figure)


def test_a_heuristic_is_never_called_a_win_rate(tmp_path: Path) -> None:
    cells = [
        world.write_cell(tmp_path, label, [world.ACCURACY[label][0]], grouped=False, average=["knowledge"])
        for label in ("instruct", "lima")
    ]
    pairs = [world.write_pair(tmp_path, *cells, [0.0, 0.5, 1.0] * 20, judge="length", plain=True)]
    page, numbers = build(tmp_path, cells, pairs)
    assert "win rate" not in page.replace("never a win rate", "")
    assert "no preference judge" in page
    assert "describes what was measured" in numbers["answer"][0]
    assert "is a proxy and does not say which answers are better" in page
    assert numbers["orders"] == []
    assert "Not part of the average: knowledge, written, letters, arithmetic" in page


def test_cells_made_differently_are_shown_beside_each_other(tmp_path: Path) -> None:
    other = world.PROVENANCE | {"versions": {"torch": "2.12.0"}, "git": "abc123+dirty"}
    cells = [world.write_cell(tmp_path, "lima", world.ACCURACY["lima"])]
    cells.append(world.write_cell(tmp_path, "instruct", world.ACCURACY["instruct"], provenance=other))
    page, _ = build(tmp_path, cells, [])
    assert "Made under different conditions" in page
    assert "uncommitted changes" in page
    assert "No judge has compared any answers" in page


def test_missing_records_say_what_to_do(tmp_path: Path) -> None:
    cells, pairs = world.write_study(tmp_path)
    with pytest.raises(LimitLabError, match="name that cell too"):
        build(tmp_path, cells[:1], pairs)
    with pytest.raises(LimitLabError, match="run a study first"):
        build(tmp_path, [], [])
    with pytest.raises(DataError, match="run the study that writes it first"):
        build(tmp_path, ["gone-0"], [])
    (tmp_path / "cells" / cells[1] / "gauntlet" / "raw" / "items" / "letters_mc.jsonl").unlink()
    with pytest.raises(DataError, match=r"'letters_mc' \(raw\) of cell 'lima'.*run the study again"):
        build(tmp_path, cells, pairs)


def test_records_that_disagree_are_refused(tmp_path: Path) -> None:
    cells, pairs = world.write_study(tmp_path)
    path = tmp_path / "cells" / cells[2] / "gauntlet" / "raw" / "items" / "knowledge_mc.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    world.dump_rows(path, [row | {"correct": False} for row in rows])
    with pytest.raises(EvalError, match=r"cell 'instruct', knowledge_mc \(raw\): its items give"):
        build(tmp_path, cells, pairs)


def test_the_report_imports_neither_torch_nor_matplotlib() -> None:
    heavy = {"torch", "lightning", "transformers", "matplotlib", "jinja2"}
    code = f"import sys, limit_lab.report; print({heavy} & set(sys.modules))"
    source = str(Path(report.__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": source})
    assert done.stdout.strip() == "set()"
