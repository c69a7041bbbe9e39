"""Every recorded case of the original harness, evaluated by ours: predictions and scores exact, losses within 1e-4."""

from __future__ import annotations

from pathlib import Path

import pytest

from limit_lab.gauntlet import evaluate
from limit_lab.gauntlet.tasks import parts, read
from limit_lab.model.mpt import MPT
from limit_lab.prompt import Tokenizer
from limit_lab.store import read_rows
from tests.gauntlet.conftest import read_case, suite_of

CASES = [
    "copa",
    "winograd",
    "arc_easy",
    "openbook_qa",
    "synthetic_lm_greedy",
    "synthetic_gen_greedy",
    "svamp_v0.3",
    "jeopardy",
]


@pytest.mark.parametrize("name", CASES)
def test_recorded_case(name: str, golden: Path, golden_model: MPT, golden_tokenizer: Tokenizer, tmp_path: Path) -> None:
    case = read_case(golden, name)
    result = evaluate(
        golden_model, golden_tokenizer, suite_of(case.task), case.rows, tmp_path, prompting="raw", prompt_format="alpaca"
    )
    records = read_rows(tmp_path / "items" / f"{case.task.label}.jsonl")
    by_part = [index for part in parts(case.task, read(case.task, case.rows)) for index in part]
    ours = [records[index] for index in by_part]
    assert [record["correct"] for record in ours] == [example["correct"] for example in case.examples]
    for record, example in zip(ours, case.examples, strict=True):
        if case.task.type == "generation":
            assert (record["prediction"], record["gold"]) == (example["cleaned_output"], example["cleaned_labels"])
        elif case.task.type == "language_modeling":
            assert record["prediction"] == golden_tokenizer.decode(example["pred_ids"])
            assert record["nll"] == pytest.approx(-example["sum_logprob"] / len(example["target_ids"]), abs=1e-4)
        else:
            assert (record["prediction"], record["gold"]) == (example["pred"], example["gold"])
            assert record["nll"] == pytest.approx([choice["mean_nll"] for choice in example["choices"]], abs=1e-4)
    assert result["tasks"][case.task.label]["score"] == case.score
