from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from limit_lab.config import Gauntlet, Task
from limit_lab.errors import EvalError
from limit_lab.gauntlet import evaluate, results, scoring
from limit_lab.model.mpt import MPT
from limit_lab.prompt import Tokenizer, document
from limit_lab.store import read_rows, sha256
from tests.gauntlet.conftest import build_tokenizer, suite_of, write_rows

TASKS = [
    Task(label="choice", type="multiple_choice", file="choice.jsonl", category="a", shots=1, baseline=0.5, partner="cloze"),
    Task(label="pairs", type="schema", file="pairs.jsonl", category="b", template=False),
    Task(label="cloze", type="language_modeling", file="cloze.jsonl", category="c", shots=2, has_categories=True),
    Task(label="open", type="generation", file="open.jsonl", category="c"),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    choice = [{"query": f"q{n} ", "choices": ["red", "blue", "red"], "gold": n % 3, "entity": f"e{n // 2}"} for n in range(6)]
    write_rows(folder, "choice.jsonl", choice)
    write_rows(folder, "pairs.jsonl", [{"context_options": ["he", "she"], "continuation": "left", "gold": 0}] * 3)
    cloze = [{"context": f"c{n}", "continuation": "xyz", "category": "mn"[n % 2], "group": "injection"} for n in range(6)]
    write_rows(folder, "cloze.jsonl", cloze)
    write_rows(folder, "open.jsonl", [{"context": f"c{n}", "answer": "five", "aliases": ["5"]} for n in range(3)])
    return folder


def run(
    model: MPT, tokenizer: Tokenizer, suite: Gauntlet, data: Path, out: Path, prompting: str = "raw", **settings: Any
) -> dict[str, Any]:
    return evaluate(model, tokenizer, suite, data, out, prompting=prompting, prompt_format="bare", **settings)


def test_records_and_result(toy_model: MPT, toy_tokenizer: Tokenizer, data: Path, tmp_path: Path) -> None:
    result = run(toy_model, toy_tokenizer, suite_of(*TASKS), data, tmp_path)
    assert list(result)[:4] == ["prompting", "tasks", "categories", "average"]
    assert list(result)[4:] == ["averages", "not_asked", "removed", "rows_run", "rows_stated", "rows_of"]
    assert result["rows_run"] == 6 + 3 + 6 + 3
    assert list(result["tasks"]) == ["choice", "pairs", "cloze", "open"]
    assert result["tasks"]["choice"]["partner"] == "cloze"
    assert result["average"] == pytest.approx(sum(result["categories"].values()) / 3)
    records = read_rows(tmp_path / "items" / "choice.jsonl")
    fields = ["index", "cluster", "group", "category", "correct", "prediction", "gold", "nll", "prompt_sha"]
    assert [list(record) for record in records] == [fields] * 6
    assert [record["cluster"] for record in records] == ["e0", "e0", "e1", "e1", "e2", "e2"]
    assert all(record["nll"][0] == record["nll"][2] and record["prediction"] != 2 for record in records)
    assert all(len(record["prompt_sha"]) == 12 for record in records)
    cloze = read_rows(tmp_path / "items" / "cloze.jsonl")
    assert [(one["index"], one["group"], one["category"]) for one in cloze[:2]] == [
        (0, "injection", "m"),
        (1, "injection", "n"),
    ]
    assert len({one["cluster"] for one in cloze}) == len(cloze), "no two of them share a passage"
    assert read_rows(tmp_path / "items" / "open.jsonl")[0]["nll"] is None


def test_batch_budgets_change_nothing_that_counts(toy_model: MPT, toy_tokenizer: Tokenizer, data: Path, tmp_path: Path) -> None:
    for budget in (1, 64, 16384):
        run(toy_model, toy_tokenizer, suite_of(*TASKS, batch_tokens=budget), data, tmp_path / str(budget))
    for task in TASKS:
        rows = [read_rows(tmp_path / str(budget) / "items" / f"{task.label}.jsonl") for budget in (1, 64, 16384)]
        kept = [[{key: row[key] for key in row if key != "nll"} for row in one] for one in rows]
        assert kept[0] == kept[1] == kept[2]


def test_template_asks_template_tasks_with_the_trained_ids(
    toy_model: MPT, toy_tokenizer: Tokenizer, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed: list[tuple[int, ...]] = []
    score = scoring.score

    def watched(model: MPT, questions: list[list[scoring.Scorable]], **settings: Any) -> list[list[scoring.Score]]:
        fed.extend(sequence.ids for sequences in questions for sequence in sequences)
        return score(model, questions, **settings)

    monkeypatch.setattr(scoring, "score", watched)
    result = run(toy_model, toy_tokenizer, suite_of(*TASKS), data, tmp_path, "template")
    assert list(result["tasks"]) == ["choice", "cloze", "open"]
    assert result["not_asked"] == ["b"]
    assert list(result["categories"]) == ["a", "c"]
    assert {task["shots"] for task in result["tasks"].values()} == {0}
    trained = document(toy_tokenizer, "q0", "red", "bare", source="s", row=0)
    assert [*fed[0], toy_tokenizer.eos_token_id] == trained.ids


def test_raw_without_shots_is_kept_apart_from_the_shots(
    toy_model: MPT, toy_tokenizer: Tokenizer, data: Path, tmp_path: Path
) -> None:
    suite = suite_of(*TASKS, replace(TASKS[0], label="choice/3-shot", shots=3, template=False, partner=None))
    shown = run(toy_model, toy_tokenizer, suite, data, tmp_path / "raw")
    bare = run(toy_model, toy_tokenizer, suite, data, tmp_path / "bare", "raw_0_shot")
    assert {label: task["shots"] for label, task in shown["tasks"].items()} == {
        "choice": 1,
        "pairs": 0,
        "cloze": 2,
        "open": 0,
        "choice/3-shot": 3,
    }
    assert {label: task["shots"] for label, task in bare["tasks"].items()} == dict.fromkeys(
        shown["tasks"].keys() - {"choice/3-shot"}, 0
    )
    assert (shown["prompting"], bare["prompting"]) == ("raw", "raw_0_shot")
    assert len(read_rows(tmp_path / "raw" / "items" / "choice" / "3-shot.jsonl")) == 6
    one, other = (read_rows(tmp_path / where / "items" / "choice.jsonl") for where in ("raw", "bare"))
    assert all(mine["prompt_sha"] != theirs["prompt_sha"] for mine, theirs in zip(one, other, strict=True))


def test_strict_scores_what_is_there(toy_model: MPT, toy_tokenizer: Tokenizer, data: Path, tmp_path: Path) -> None:
    (data / "open.jsonl").unlink()
    suite = replace(suite_of(*TASKS), compat="strict")
    result = run(toy_model, toy_tokenizer, suite, data, tmp_path)
    assert (list(result["tasks"]), list(result["categories"])) == (["choice", "pairs", "cloze"], ["a", "b"])
    assert result["removed"] == {"c": ["open"]}
    assert result["average"] == pytest.approx(sum(result["categories"].values()) / 2)


def test_rows_may_have_different_numbers_of_choices(
    toy_model: MPT, toy_tokenizer: Tokenizer, data: Path, tmp_path: Path
) -> None:
    rows = [{"query": f"q{n}", "choices": ["red", "blue", "green", "black"][: 2 + n], "gold": 1 + n} for n in range(3)]
    write_rows(data, "choice.jsonl", rows)
    result = run(toy_model, toy_tokenizer, suite_of(TASKS[0]), data, tmp_path)
    assert [len(record["nll"]) for record in read_rows(tmp_path / "items" / "choice.jsonl")] == [2, 3, 4]
    assert result["tasks"]["choice"]["n"] == 3


def test_an_answer_needs_a_token_that_ends_it(toy_model: MPT, data: Path, tmp_path: Path) -> None:
    endless = build_tokenizer(eos=None)
    with pytest.raises(EvalError, match="no eos token, with which an answer of open would end"):
        run(toy_model, endless, suite_of(*TASKS), data, tmp_path)
    assert run(toy_model, endless, suite_of(TASKS[0]), data, tmp_path)["tasks"]["choice"]["n"] == 6


def test_a_killed_evaluation_goes_on_at_the_next_task(
    toy_model: MPT, toy_tokenizer: Tokenizer, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(toy_model, toy_tokenizer, suite_of(*TASKS), data, tmp_path / "whole")

    def kill(*step: Any) -> None:
        if step[0] == "cloze":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(toy_model, toy_tokenizer, suite_of(*TASKS), data, tmp_path / "killed", progress=kill)
    items = tmp_path / "killed" / "items"
    assert sorted(path.stem for path in items.glob("*.jsonl")) == ["choice", "pairs"]
    before = (items / "choice.jsonl").stat().st_mtime_ns

    labels: list[str] = []
    monkeypatch.setattr(scoring, "outcomes", lambda *rest, real=scoring.outcomes: labels.append(rest[2].label) or real(*rest))
    assert run(toy_model, toy_tokenizer, suite_of(*TASKS), data, tmp_path / "killed") == whole
    assert labels == ["cloze"]
    assert (items / "choice.jsonl").stat().st_mtime_ns == before


def test_a_task_killed_half_way_goes_on_at_its_next_batches(
    toy_model: MPT, toy_tokenizer: Tokenizer, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "BATCHES", 1)
    small = suite_of(*TASKS, batch_tokens=1)
    whole = run(toy_model, toy_tokenizer, small, data, tmp_path / "whole")
    hidden, calls = toy_model.hidden, list[int]()

    def dying(ids: Tensor, **more: Any) -> Tensor:
        calls.append(len(ids))
        if len(calls) == 5:
            raise KeyboardInterrupt
        return hidden(ids, **more)

    monkeypatch.setattr(toy_model, "hidden", dying)
    with pytest.raises(KeyboardInterrupt):
        run(toy_model, toy_tokenizer, small, data, tmp_path / "killed")
    items = tmp_path / "killed" / "items"
    (partial,) = items.glob(".*.partial")
    assert len(partial.read_text().splitlines()) > 1
    assert run(toy_model, toy_tokenizer, small, data, tmp_path / "killed") == whole
    assert not list(items.glob(".*.partial"))
    for file in (tmp_path / "whole" / "items").glob("*.jsonl"):
        assert (items / file.name).read_bytes() == file.read_bytes()


def test_changed_rows_are_asked_again(toy_model: MPT, toy_tokenizer: Tokenizer, data: Path, tmp_path: Path) -> None:
    suite = suite_of(TASKS[1])
    before = run(toy_model, toy_tokenizer, suite, data, tmp_path)["tasks"]["pairs"]
    write_rows(data, "pairs.jsonl", [{"context_options": ["he", "she"], "continuation": "left", "gold": 0}])
    after = run(toy_model, toy_tokenizer, suite, data, tmp_path)["tasks"]["pairs"]
    assert after["n"] == 1
    assert before["data"]["state"] == after["data"]["state"] == "own"
    assert before["data"]["sha256"] != after["data"]["sha256"] == sha256(data / "pairs.jsonl")


def test_progress_ends_at_the_total(toy_model: MPT, toy_tokenizer: Tokenizer, data: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    run(toy_model, toy_tokenizer, suite_of(*TASKS), data, tmp_path, progress=lambda *step: seen.append(step))
    last = {label: (done, total) for label, done, total in seen}
    assert list(last) == [task.label for task in TASKS]
    assert all(done == total for done, total in last.values())


def test_absent_data_stops_before_any_task(toy_model: MPT, toy_tokenizer: Tokenizer, data: Path, tmp_path: Path) -> None:
    (data / "open.jsonl").unlink()
    with pytest.raises(EvalError, match=r"no data for open \(open.jsonl\)"):
        run(toy_model, toy_tokenizer, suite_of(*TASKS), data, tmp_path)
    assert not (tmp_path / "items").exists()


def test_importing_evaluate_does_not_import_torch() -> None:
    code = "import sys, limit_lab.gauntlet; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
