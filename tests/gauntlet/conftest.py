"""The recorded cases of the original harness with their model, and a toy model that needs no data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer as RawTokenizer
from tokenizers import decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from limit_lab.config import Gauntlet, Task
from limit_lab.model.loading import load_model, load_tokenizer
from limit_lab.model.mpt import MPT, MPTConfig
from limit_lab.prompt import Tokenizer

TYPES = {"generation_task_with_answers": "generation"}


def task_of(settings: dict[str, Any], file: str) -> Task:
    """Our task for a task entry in the words of the original's YAML."""
    kind = settings["icl_task_type"]
    return Task(
        label=settings["label"],
        type=TYPES.get(kind, kind),
        file=file,
        shots=settings["num_fewshot"][0],
        category="golden",
        continuation_delimiter=settings.get("continuation_delimiter", " "),
        prelimiter=settings.get("question_prelimiter", ""),
        cot_delimiter=settings.get("cot_delimiter", ""),
        stop=settings.get("early_stopping_criteria", []),
        normalise=settings.get("do_normalization", True),
        has_categories=settings.get("has_categories", False),
        template=kind != "schema",
    )


def suite_of(*tasks: Task, batch_tokens: int = 16384, max_seq_tokens: int = 2048, name: str = "some") -> Gauntlet:
    return Gauntlet(
        name=name,
        tasks=list(tasks),
        average=sorted({task.category for task in tasks if task.category is not None}),
        batch_tokens=batch_tokens,
        max_seq_tokens=max_seq_tokens,
    )


@dataclass(frozen=True)
class Case:
    """One recorded task: ours in the same words, its rows folder, and what the original answered per evaluator."""

    task: Task
    rows: Path
    evaluators: dict[str, dict[str, Any]]
    score: float

    @property
    def examples(self) -> list[dict[str, Any]]:
        return [example for name in sorted(self.evaluators) for example in self.evaluators[name]["examples"]]


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    return shared / "golden" / "gauntlet"


@pytest.fixture(scope="session")
def golden_model(shared: Path) -> MPT:
    return load_model(shared / "golden" / "models" / "tiny-mpt")


@pytest.fixture(scope="session")
def golden_tokenizer(shared: Path) -> Tokenizer:
    return load_tokenizer(shared / "golden" / "models" / "tiny-mpt")


def read_case(golden: Path, name: str) -> Case:
    raw = json.loads((golden / "cases" / f"{name}.json").read_text())
    task = task_of(raw["task"], raw["task"]["dataset_uri"])
    return Case(task=task, rows=golden / "rows", evaluators=raw["evaluators"], score=raw["score"])


@pytest.fixture(scope="session")
def toy_tokenizer() -> Tokenizer:
    """Bytes as tokens, plus an end-of-sequence token."""
    return build_tokenizer(eos="<|endoftext|>")


def build_tokenizer(eos: str | None) -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<|endoftext|>": 0} | {letter: place for place, letter in enumerate(alphabet, 1)}
    raw = RawTokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=eos)


@pytest.fixture(scope="session")
def toy_model() -> MPT:
    model = MPT(MPTConfig(d_model=32, n_layers=2, n_heads=2, vocab_size=257))
    model.initialise(seed=0)
    with torch.no_grad():
        model.transformer.wte.weight.mul_(20)
    return model.eval()


def write_rows(folder: Path, file: str, rows: list[dict[str, Any]]) -> None:
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
