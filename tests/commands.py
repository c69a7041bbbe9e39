"""The real command line as a process of its own, small groups for it, and the numbers that a run left behind."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import limit_lab

#: A study of three cells that takes seconds; its suite is a reduction of the embedded one and has another name.
GROUPS = {
    "mixture/lima_tiny.yaml": "name: lima_tiny\nsamples: {lima: 24}\n",
    "mixture/both_tiny.yaml": "name: both_tiny\nsamples: {lima: 24, instruct: 24}\n",
    "gauntlet/tiny.yaml": """
name: tiny
max_seq_tokens: 256
average: [world_knowledge, language_understanding]
tasks:
  - {label: facts_em, type: language_modeling, file: facts_em.jsonl, partner: facts_mc, rows: 8, shots: 2,
     category: world_knowledge, prelimiter: "Question: ", continuation_delimiter: "\\nAnswer: "}
  - {label: facts_mc, type: multiple_choice, file: facts_mc.jsonl, partner: facts_em, rows: 8, shots: 2, baseline: 0.25,
     category: world_knowledge, prelimiter: "Question: ", continuation_delimiter: "\\nAnswer: "}
  - {label: pronoun_schema, type: schema, file: pronoun_schema.jsonl, rows: 8, baseline: 0.5,
     category: language_understanding, template: false}
""",
    "experiment/tiny.yaml": """# @package _global_
defaults:
  - override /mixture: both_tiny
  - override /gauntlet: tiny
finetune: {duration: 6step, batch: 8doc, checkpoint_every_steps: 2}
answers: {limit: 6, max_new_tokens: 12}
study: {name: tiny, mixtures: [none, lima_tiny], baseline: lima_tiny}
""",
    "mixture/lima_few.yaml": "name: lima_few\nsamples: {lima: 8}\n",
    "mixture/lima_and_v1_few.yaml": "name: lima_and_v1_few\nsamples: {lima: 8, instruct_v1: 8}\n",
    "gauntlet/real_few.yaml": """
name: copa6_lambada4
data: ${data.dir}/gauntlet
max_seq_tokens: 512
average: [commonsense_reasoning, language_understanding]
tasks:
  - {label: copa, type: multiple_choice, file: commonsense_reasoning/copa.jsonl, rows: 6, baseline: 0.5,
     category: commonsense_reasoning}
  - {label: lambada_openai, type: language_modeling, file: language_understanding/lambada_openai.jsonl, rows: 4,
     category: language_understanding}
""",
}

#: What differs between two runs of one study: where, when and how fast, and the sizes of the files that tell it.
CIRCUMSTANCES = ("command", "commands", "provenance", "runs", "seconds", "metrics.jsonl", "model/README.md")


def groups(folder: Path, **more: str) -> list[str]:
    """The arguments that add `GROUPS` and ``more`` (``mixture__mine="..."``), written below ``folder``."""
    for name, text in {**GROUPS, **{f"{key.replace('__', '/')}.yaml": text for key, text in more.items()}}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return ["--config-dir", str(folder)]


def call(
    arguments: list[str],
    *,
    at: str | None = None,
    count: int = 1,
    sent: signal.Signals = signal.SIGKILL,
    file_limit: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """``python -m limit_lab``, struck by ``sent`` at the ``count``-th writing of a file whose path matches ``at``."""
    places = [Path(__file__).parent / "strike", Path(limit_lab.__file__).resolve().parent.parent]
    # one thread each: the tests of two workers share the machine, and sums of floats depend on the number of threads
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, places)), "OMP_NUM_THREADS": "1"}
    if at is not None:
        environment |= {"STRIKE_AT": at, "STRIKE_COUNT": str(count), "STRIKE_SIGNAL": str(int(sent))}
    if file_limit is not None:
        environment |= {"FILE_LIMIT": str(file_limit), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "limit_lab", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, preexec_fn=hear_interrupts)


def hear_interrupts() -> None:
    """Ctrl-C as in a terminal: a shell's background jobs inherit it ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def numbers(folder: Path) -> dict[str, Any]:
    """Every file of cells, pairs and studies below ``folder`` but for pages: hashes, and JSON values."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and path.suffix not in (".html", ".md") and not any(part.startswith(".") for part in name.parts):
            found[str(name)] = _content(path)
    return found


def _content(path: Path) -> Any:
    if path.suffix == ".json":
        return _result(json.loads(path.read_bytes()))
    if path.name == "metrics.jsonl":  # every row tells its seconds
        return [_result(json.loads(line)) for line in path.read_bytes().splitlines()]
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _result(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _result(item) for key, item in value.items() if key not in CIRCUMSTANCES}
    return [_result(item) for item in value] if isinstance(value, list) else value
