"""What is said when ranks end badly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from limit_lab.fine_tuning import Places
from limit_lab.ranks import order, start

KILLED = """[1]:
  time      : 2026-11-23_23:22:11
  rank      : 1 (local_rank: 1)
  exitcode  : -15 (pid: 12)
[0]:
  time      : 2026-11-23_23:22:10
  rank      : 0 (local_rank: 0)
  exitcode  : -9 (pid: 11)
"""


@pytest.mark.parametrize(
    ("failures", "log", "said"),
    [
        (
            {0: (False, "rank 0 lost another rank"), 1: (True, "the loss is nan: lower it.")},
            KILLED,
            "the loss is nan: lower it.",
        ),
        ({1: (False, "rank 1 lost another rank")}, KILLED, "rank 0 of the fine-tuning was ended by SIGKILL, as the system"),
        ({1: (False, "rank 1: KeyError: 'x'")}, "", "rank 1: KeyError: 'x': "),
        ({}, "", "the ranks of the fine-tuning ended with exit status 3 and no reason: "),
    ],
)
def test_the_reason_is_the_first_that_is_known(
    tmp_path: Path, failures: dict[int, tuple[bool, str]], log: str, said: str
) -> None:
    (tmp_path / order.LOG).write_text(log)
    for rank, (known, error) in failures.items():
        order.failure(tmp_path, rank).write_text(json.dumps({"known": known, "error": error}))
    places = Places(state=tmp_path, export=tmp_path / "model", beside={}, keep=False)
    assert start._reason(places, 3).startswith(said)
