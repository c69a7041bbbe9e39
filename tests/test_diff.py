"""do=diff: every section says what differs and by how much, and what cannot be compared is not subtracted."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from limit_lab import __main__ as door
from limit_lab import cell, stats, store
from limit_lab.compose import compose
from limit_lab.config import Diff, Study
from limit_lab.diff import show
from limit_lab.diff.chosen import both
from limit_lab.diff.values import Change, changes, difference, outside, texts
from limit_lab.errors import ConfigError, DataError, EvalError
from limit_lab.fingerprints import fingerprint, plain
from tests.report import report_world as world

LOSSES = [2.9, 1.4, 0.8]


def write(root: Path, label: str = "lima", losses: Sequence[float] = LOSSES, **options: Any) -> Path:
    """A cell's folder with the losses of its training."""
    accuracy = options.pop("accuracy", world.ACCURACY[label])
    folder = root / "cells" / world.write_cell(root, label, accuracy, **options)
    world.dump_rows(folder / "finetune" / "metrics.jsonl", [{"step": at, "loss": loss} for at, loss in enumerate(losses, 1)])
    return folder


@pytest.fixture(scope="module")
def study() -> Study:
    return compose(["do=diff"])


def of(study: Study, left: Path | str | None, right: Path | str | None, runs: Path = Path("none")) -> Study:
    return replace(
        study, runs=str(runs), diff=Diff(left=None if left is None else str(left), right=None if right is None else str(right))
    )


def lines_of(printed: str) -> list[str]:
    """Printed lines without the frames of tables."""
    return [" | ".join(part.strip() for part in re.split("[│┃]", line.strip(" │┃"))) for line in printed.splitlines()]


def test_two_cells_section_by_section(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lima = write(tmp_path, config={"mixture": {"name": "lima", "samples": {"lima": 1000}}, "runs": "here"})
    both = write(tmp_path, "lima_plus_instruct", [2.9, 1.5, 0.9, 0.7], config={"mixture": {"name": "x", "samples": {}}})
    wins = [1.0, 0.0, 1.0, 1.0] * 15
    world.write_pair(tmp_path, both.name, lima.name, wins)
    rate = stats.mean(wins, [world.ENTITIES[at % 40] for at in range(60)])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert door.main(["do=diff", f"runs={tmp_path}", "diff.left=lima", "diff.right=lima_plus"]) == 0
    printed = capsys.readouterr()
    assert not printed.err
    lines = lines_of(printed.out)
    for line in (
        f"cell | {lima.name} | {both.name}",
        "mixture.samples.lima | 1,000 | –",
        "mixture.name | lima | x",
        "runs | here | –",
        "samples.instruct | – | 1,000",
        "documents | 1,000 | 2,000 | +1,000",
        "sources.lima.loss_share | 1 | 0.5 | -0.5",
        "sources.instruct.kept | – | 1,000",
        "environment: no difference",
        "steps | 372 | 750 | +378",
        "Losses differ first at step 2 of 3: 1.4 and 1.5; by at most 0.1 from there on; right goes on to step 4.",
        "0 of 60 answers have the same words.",
        f"{both.name} | {lima.name} | ground_truth | win rate | {rate.full()} | 60",
    ):
        assert line in lines, line
    apart = next(at for at, line in enumerate(lines) if line.startswith("config outside every fingerprint"))
    assert lines.index("mixture.samples.lima | 1,000 | –") < apart < lines.index("mixture.name | lima | x")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_difference_of_scores_is_paired_by_items(study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two runs of one cell share its id and stay apart: the expected interval is computed from the items by hand."""
    worse = [[0.93, 0.13, 0.25, 0.0], [0.31, 0.0, 0.25, 0.0]]
    folders = [write(tmp_path / "one"), write(tmp_path / "other", accuracy=[[0.5, *worse[0][1:]], worse[1]])]
    items = [store.read_rows(folder / "gauntlet" / "raw" / "items" / "knowledge_mc.jsonl") for folder in folders]
    sides = [stats.Sample([float(row["correct"]) for row in rows], [row["cluster"] for row in rows]) for rows in items]
    expected = stats.bootstrap({"a": sides[0], "b": sides[1]}, lambda means: means["b"] - means["a"])
    assert expected.high < -0.2
    show(of(study, *folders))
    lines = lines_of(capsys.readouterr().out)
    assert f"knowledge_mc | 93.3 | 50.0 | {expected.full()}" in lines
    rescaled = expected.full(100 / 0.75)
    assert f"knowledge | 91.1 | 33.3 | {rescaled}" in lines
    assert "scores, template: no difference, the 480 items of 4 tasks have the same results" in lines
    assert "Equal fingerprints: one cell, made or asked twice." in lines
    assert "pair: none, the two lie in different folders" in lines


def test_equal_runs_say_so_in_one_line_each(study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = write(tmp_path / "one"), write(tmp_path / "other")
    show(of(study, one, other))
    lines = lines_of(capsys.readouterr().out)
    told = lines[next(at for at, line in enumerate(lines) if line.startswith("config")) :]
    assert told == [
        "config: no difference",
        "config outside every fingerprint (paths, hardware, tracking, display; of models and data the content counts): "
        "no difference",
        "identity: no difference",
        "Equal fingerprints: one cell, made or asked twice.",
        "card: no difference",
        "environment: no difference",
        "training: no difference",
        "Losses equal to the last bit over 3 steps.",
        "scores, raw: no difference, the 480 items of 4 tasks have the same results",
        "scores, template: no difference, the 480 items of 4 tasks have the same results",
        "answers: no difference, all 60 have the same words",
        "pair: none, the two lie in different folders",
    ]


def test_other_items_and_prompts_are_not_subtracted(study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = write(tmp_path / "one", accuracy=world.ACCURACY["lima"][:1])
    other = write(tmp_path / "other", "instruct", items=80, answers=["short"], accuracy=[world.ACCURACY["instruct"][0][:3]])
    show(of(study, one, other))
    lines = lines_of(capsys.readouterr().out)
    assert next(line for line in lines if line.startswith("average")).endswith("not subtracted: other categories")
    assert "knowledge_mc | 93.3 | 97.5 | not subtracted: other items (120 and 80)" in lines
    assert "arithmetic_em | 0.0 | – | not subtracted: only left was asked" in lines
    assert "Other prompts: not subtracted." in lines
    assert not [line for line in lines if line.startswith("scores, template")]


def test_the_same_items_asked_differently_are_not_subtracted(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [write(tmp_path / "one"), write(tmp_path / "other", "instruct")]
    for shots, folder in enumerate(folders):
        inputs = {"task": {"label": "letters_mc", "shots": shots, "file": str(folder)}, "prompt_format": folder.name}
        world.dump(folder / "gauntlet" / "raw" / "items" / "letters_mc.inputs.json", {"inputs": inputs})
    show(of(study, *folders))
    lines = lines_of(capsys.readouterr().out)
    assert "letters_mc | 25.0 | 25.0 | not subtracted: asked differently (task.shots)" in lines
    average = next(line for line in lines if line.startswith("average"))
    assert average.endswith("not subtracted: letters_mc: asked differently (task.shots)")
    assert [line for line in lines if re.match(r"knowledge_em \| 13\.3 \| 85\.8 \| 72\.5 ± \d+\.\d \[\d", line)]


def test_circumstances_are_told(study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Uncommitted code, another torch, a base without training, and a summary of before identities were recorded."""
    one = write(tmp_path, provenance=world.PROVENANCE | {"git": "abc+dirty", "versions": {"torch": "2.14.0"}})
    other = write(tmp_path, "none")
    summary = json.loads((other / "summary.json").read_text())
    world.dump(other / "summary.json", {key: value for key, value in summary.items() if key != "identity"})
    show(of(study, one, other))
    lines = lines_of(capsys.readouterr().out)
    assert "versions.torch | 2.14.0 | 2.13.0" in lines
    assert "Uncommitted changes in left: the commit does not tell what ran." in lines
    assert "first_loss | 2.9 | –" in [line.removesuffix(" | ") for line in lines]
    assert "identity: not recorded in right by the version that made it; its study run again records it" in lines
    assert not [line for line in lines if line.startswith("Losses")]


@pytest.mark.parametrize(
    ("left", "right", "said"),
    [
        (
            None,
            None,
            "diff.left and diff.right are not given: name a cell by its id, the beginning of one, or its folder; the ",
        ),
        ("lima", None, "diff.right is not given: "),
        ("lima", "instrct", "diff.right=instrct is no cell in RUNS/cells; did you mean 'instruct'"),
        ("li", "none", "diff.left=li is the beginning of lima-0123456789ab, lima_plus_instruct-0123456789ab: add what tells"),
        (
            "lima",
            "lima-0",
            "diff.left=lima and diff.right=lima-0 are the same cell, RUNS/cells/lima-0123456789ab: name another",
        ),
        ("lima", "RUNS/no", "diff.right=RUNS/no is no folder: name the folder of a cell"),
        ("lima", "RUNS/cells", "RUNS/cells holds no summary.json and no stage: name the folder of a cell"),
        ("lima", "begun", "the cell RUNS/cells/begun-0123456789ab is not finished: run its study again, which continues"),
        ("lima", "broken", "is not finished, it failed (no room.): mend that and run its study again"),
    ],
)
def test_a_wrong_choice_is_one_sentence(left: str | None, right: str | None, said: str, study: Study, tmp_path: Path) -> None:
    for label in ("lima", "lima_plus_instruct", "instruct", "none"):
        write(tmp_path, label, items=4)
    world.dump(tmp_path / "cells" / "begun-0123456789ab" / "finetune" / "begun.json", {})
    world.dump(tmp_path / "cells" / "broken-0123456789ab" / cell.FAILED, {"error": "no room."})
    left, right, told = (text and text.replace("RUNS", str(tmp_path)) for text in (left, right, said))
    with pytest.raises((ConfigError, DataError), match=re.escape(str(told))) as refusal:
        both(of(study, left, right, tmp_path))
    assert "\n" not in str(refusal.value)


def test_a_refusal_names_the_latest_cells_or_says_that_there_are_none(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for age, label in enumerate(("lima", "instruct")):
        os.utime(write(tmp_path, label, items=4) / "summary.json", (100 - age, 100 - age))
    with pytest.raises(ConfigError, match=f"the latest in {tmp_path}/cells: lima-0123456789ab, instruct-0123456789ab.$"):
        both(of(study, None, None, tmp_path))
    assert door.main(["do=diff", "diff.left=a", "diff.right=b", f"runs={tmp_path / 'empty'}"]) == 2
    said = (
        f"diff.left=a: {tmp_path}/empty/cells holds no finished cell: run a study first, or set runs=FOLDER to where one ran."
    )
    assert capsys.readouterr().err.splitlines() == [said]


def test_a_damaged_record_names_its_file(study: Study, tmp_path: Path) -> None:
    bad = write(tmp_path / "bad", "instruct", items=40)
    asked = of(study, write(tmp_path / "good"), bad)
    items, summary = bad / "gauntlet" / "raw" / "items" / "letters_mc.jsonl", bad / "summary.json"
    whole = items.read_text()
    items.write_text(whole[: whole.index("\n") + 1])
    with pytest.raises(EvalError, match=f"^{bad / 'gauntlet'}: cell 'instruct', number of items of letters_mc"):
        both(asked)
    items.write_text(whole[: whole.index("\n") + 9])
    with pytest.raises(DataError, match=f"^{items} line 2 is not JSON"):
        both(asked)
    items.write_text(whole.replace('"correct"', '"right"'))
    with pytest.raises(DataError, match=f"^a record below {bad} lacks 'correct': delete that folder"):
        both(asked)
    world.dump(items.parent.parent / "manifest.json", {"fingerprint": "00", "files": {"items/letters_mc.jsonl": len(whole)}})
    with pytest.raises(DataError, match=f"^{items} is not as it was written: delete"):
        both(asked)
    items.unlink()
    with pytest.raises(DataError, match=f"^{items} is gone: delete"):
        both(asked)
    for text, said in (
        ('{"id": "x"}', "is no cell's summary, it lacks label"),
        ("[]", "it lacks id"),
        ('{"id', "is not valid JSON"),
    ):
        summary.write_text(text)
        with pytest.raises(DataError, match=f"^{summary} .*{said}"):
            both(asked)


def test_a_copied_folder_is_read_where_it_lies(study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path)
    copied = shutil.copytree(write(tmp_path / "there", losses=[2.9, 1.4]), tmp_path / "from elsewhere")
    show(of(study, "lima", copied, tmp_path))
    assert "Losses equal to the last bit over 2 steps; left goes on to step 3." in lines_of(capsys.readouterr().out)


def test_outside_is_what_no_fingerprint_holds(study: Study) -> None:
    """Every field that a fingerprint could hold is changed in a copy, and the fingerprints change or do not, as stated."""

    def marks(of: Any) -> str:
        return fingerprint([cell.identity(of), cell.asked(of), of.judge])

    for node in ("finetune", "gauntlet", "answers", "judge", "seeds", "hardware", "tracking", "report", "study", "mixture"):
        for name in getattr(study, node).__dataclass_fields__:
            other = copy.deepcopy(study)
            value = getattr(getattr(other, node), name)
            setattr(getattr(other, node), name, {} if isinstance(value, dict) and value else f"not {value}")
            if (node, name) != ("mixture", "samples"):
                assert (marks(other) == marks(study)) is outside(f"{node}.{name}"), f"{node}.{name}"
    assert set(plain(study)) >= {"data", "model"}


def test_changes_align_tasks_by_label_and_take_absent_for_none() -> None:
    left = {"tasks": [{"label": "a", "shots": 0}, {"label": "b"}], "out": None, "seeds": None, "betas": [0.9]}
    right = {"tasks": [{"label": "b"}, {"label": "a", "shots": 2}], "seeds": {"subset": 0}, "betas": [0.8]}
    assert list(changes(left, right)) == [
        Change("tasks.a.shots", 0, 2),
        Change("seeds", None, {"subset": 0}),
        Change("betas", [0.9], [0.8]),
    ]


def test_values_are_short_unless_that_hides_the_difference() -> None:
    assert texts("a" * 64, "b" * 64) == ("a" * 12, "b" * 12)
    assert texts("a" * 64, "a" * 63 + "b") == (repr("a" * 64), repr("a" * 63 + "b"))
    assert texts(0.1 + 0.2, 0.3) == ("0.30000000000000004", "0.3")
    assert texts("\n", None) == ("'\\n'", "–")
    assert texts({"a": 1}, None) == ("1 value", "–")
    assert texts({}, None) == ("none", "–")
    assert [difference(2, 1500), difference(0.5, 0.25), difference(True, 2), difference(None, 1)] == ["+1,498", "-0.25", "", ""]


def test_an_unverified_copy_is_marked(tmp_path: Path, study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    left = write(tmp_path, model="mpt_7b (unverified copy)", verified=False)
    right = write(tmp_path, "instruct")
    show(of(study, left, right))
    assert "model | mpt_7b (unverified copy) | micro" in lines_of(capsys.readouterr().out)
