"""lm-evaluation-harness: its own numbers on our models, what is asked again, and what is refused in a sentence."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from limit_lab import cell, harness, store
from limit_lab.compose import compose
from limit_lab.config import Study
from limit_lab.errors import ConfigError, DataError, EvalError, ModelError
from limit_lab.gauntlet.scoring import score
from limit_lab.gauntlet.sequences import Scorable
from limit_lab.model.bases import base_folder
from limit_lab.model.loading import load_model, load_tokenizer

NEEDED = "lm-evaluation-harness is not installed: pip install 'limit-lab[lm-eval]'"

TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}, train: {rows}}}}}
test_split: test
fewshot_split: train
output_type: multiple_choice
doc_to_text: "{{{{question}}}}\\nAnswer:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{gold}}}}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
metadata: {{version: 2.0}}
{more}
"""


def write_task(folder: Path, name: str = "counting", *, rows: int = 6, more: str = "") -> None:
    lines = [{"question": f"What is {n} plus one?", "choices": [f"{n + 1}", "a tree"], "gold": 0} for n in range(rows)]
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    text = TASK.format(name=name, rows=folder / f"{name}.jsonl", more=more)
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Study]:
    """The untouched micro model as a cell that is made, to be asked tasks of ``tmp_path/tasks``."""
    (tmp_path / "tasks").mkdir()
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))

    def study(*more: str, made: bool = True) -> Study:
        places = [f"runs={tmp_path / 'runs'}", f"harness.include={tmp_path / 'tasks'}"]
        found = compose(["do=harness", "mixture=none", "study.baseline=null", *places, *more])
        if made:
            store.write_json(cell.folder_of(found) / "summary.json", {})
        return found

    return study


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its data sets are cached below ``tmp_path`` and nothing reaches the network."""
    pytest.importorskip("lm_eval", reason=NEEDED)
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def results(study: Study, name: str = "counting") -> dict[str, Any]:
    found: dict[str, Any] = store.read_json(cell.folder_of(study) / "harness" / name / "results.json")
    return found


@pytest.mark.usefixtures("library")
def test_its_log_likelihoods_are_those_of_our_engine(tmp_path: Path, asked: Callable[..., Study]) -> None:
    write_task(tmp_path / "tasks")
    study = asked("harness.tasks=[counting]")
    harness.run([study])
    model, tokenizer = load_model(base_folder(study)), load_tokenizer(base_folder(study))
    items = store.read_rows(cell.folder_of(study) / "harness" / "counting" / "items" / "counting.jsonl")
    right = []
    for number, item in enumerate(items):
        context = f"What is {number} plus one?\nAnswer:"
        start = len(tokenizer.encode(context, add_special_tokens=False))
        whole = [tuple(tokenizer.encode(f"{context} {text}", add_special_tokens=False)) for text in (number + 1, "a tree")]
        (own,) = score(model, [[Scorable(ids=ids, start=start) for ids in whole]], batch_tokens=256)
        sums = [-one.nll * (len(ids) - start) for one, ids in zip(own, whole, strict=True)]
        assert [said[0] for said in item["filtered_resps"]] == pytest.approx(sums, abs=1e-3)
        right.append(float(sums[0] > sums[1]))
    (row,) = results(study)["rows"]
    assert (row["task"], row["version"], row["shots"], row["metric"], row["n"]) == ("counting", "2.0", 0, "acc", 6)
    assert row["value"] == pytest.approx(sum(right) / 6)


@pytest.mark.usefixtures("library")
def test_shots_and_rows_are_those_of_its_own_call(
    tmp_path: Path, asked: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    write_task(tmp_path / "tasks")
    study = asked("harness.tasks=[counting]", "harness.shots=2", "harness.limit=4")
    harness.run([study])
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)  # takes ten seconds
    monkeypatch.setattr("lm_eval.evaluator.get_git_commit_hash", lambda: "")
    folder = base_folder(study)
    theirs = lm_eval.simple_evaluate(
        model=HFLM(pretrained=str(folder), tokenizer=load_tokenizer(folder), device="cpu", dtype="float32"),
        tasks=["counting"],
        num_fewshot=2,
        limit=4,
        task_manager=TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False),
    )
    ours = store.read_rows(cell.folder_of(study) / "harness" / "counting-2shot-first4" / "items" / "counting.jsonl")
    assert [item["prompt_hash"] for item in ours] == [item["prompt_hash"] for item in theirs["samples"]["counting"]]
    (row,) = results(study, "counting-2shot-first4")["rows"]
    assert (row["shots"], row["n"]) == (2, 4)
    assert row["value"] == theirs["results"]["counting"]["acc,none"]
    assert row["stderr"] == pytest.approx(theirs["results"]["counting"]["acc_stderr,none"])


@pytest.mark.usefixtures("library")
def test_a_task_is_asked_again_when_its_rows_change(
    tmp_path: Path, asked: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    write_task(tmp_path / "tasks")
    write_task(tmp_path / "tasks", "other")
    harness.run([asked("harness.tasks=[counting]")])
    capsys.readouterr()
    harness.run([asked("harness.tasks=[counting,other]")])
    said = capsys.readouterr().out
    assert "harness: other" in said
    assert "harness: counting" not in said
    assert "counting, 0 shots, acc" in said
    write_task(tmp_path / "tasks", rows=5)
    study = asked("harness.tasks=[counting]")
    harness.run([study])
    assert results(study)["rows"][0]["n"] == 5


@pytest.mark.usefixtures("library")
def test_a_folder_is_asked_without_a_study(tmp_path: Path, asked: Callable[..., Study]) -> None:
    write_task(tmp_path / "tasks")
    study = asked("harness.tasks=[counting]", made=False)
    harness.run([asked("harness.tasks=[counting]", f"harness.path={base_folder(study)}", made=False)])
    assert not (tmp_path / "runs" / "cells").exists()
    (found,) = (tmp_path / "runs" / "harness").glob("*/counting/results.json")
    assert store.read_json(found)["rows"][0]["n"] == 6


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("change", "more", "sentence"),
    [
        ({}, ["harness.shots=3"], "asked without shots by its own definition"),
        ({"dataset_path": "dataset_path: nobody/nothing"}, [], r"cannot load 'counting' \(.*without HF_HUB_OFFLINE=1"),
        ({"num_fewshot": "unsafe_code: true"}, [], "runs the code that a model writes"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(
    tmp_path: Path, asked: Callable[..., Study], change: dict[str, str], more: list[str], sentence: str
) -> None:
    write_task(tmp_path / "tasks", more="num_fewshot: 0")
    path = tmp_path / "tasks" / "counting.yaml"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(change.get(line.split(":")[0], line) for line in lines), encoding="utf-8")
    study = asked("harness.tasks=[counting]", *more)
    with pytest.raises(EvalError, match=sentence) as raised:
        harness.run([study])
    assert "\n" not in str(raised.value)
    assert not (cell.folder_of(study) / "harness" / "counting").exists()


def test_an_unknown_task_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"names 'arc_esy'.*did you mean 'arc_easy'"):
        harness.require(["piqa", "arc_esy"], ["arc_easy", "piqa"])


def test_nothing_to_ask_and_nobody_to_ask(tmp_path: Path, asked: Callable[..., Study]) -> None:
    with pytest.raises(ConfigError, match=r"harness\.tasks=\[piqa\]"):
        harness.run([asked(made=False)])
    with pytest.raises(DataError, match="no cell of the study"):
        harness.run([asked("harness.tasks=[piqa]", made=False)])
    with pytest.raises(ModelError, match="is no folder"):
        harness.run([asked("harness.tasks=[piqa]", f"harness.path={tmp_path / 'absent'}", made=False)])


def test_without_the_extra_the_remedy_is_named(asked: Callable[..., Study], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("lm_eval.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ConfigError, match=r"pip install 'limit-lab\[lm-eval\]'"):
        harness.run([asked("harness.tasks=[piqa]")])


@pytest.mark.parametrize("wrong", ["harness.batch=0", "harness.limit=0", "harness.shots=-1", "harness.tasks=[piqa,piqa]"])
def test_impossible_arguments_are_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong.split("=")[0]):
        compose(["do=harness", wrong])


def test_no_record_tells_of_arguments_that_nobody_gave() -> None:
    from limit_lab.fingerprints import stated

    assert "harness" not in stated(compose([]))
    assert stated(compose(["harness.tasks=[piqa]"]))["harness"]["tasks"] == ["piqa"]
