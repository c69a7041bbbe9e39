"""Gauntlet and answers by several ranks: the files of a single process, also when one dies on the way."""

from __future__ import annotations

import json
from pathlib import Path

from tests.commands import call, groups, numbers
from tests.processes import alive

#: Several batches for each of two processes.
ASKED = [
    "+experiment=tiny",
    "mixture=none",
    "study.mixtures=[]",
    "study.baseline=null",
    "gauntlet.prompting=[raw]",
    "gauntlet.raw_only=true",
]
ASKED += ["gauntlet.tasks.2.rows=64", "gauntlet.batch_tokens=256", "answers.limit=5", "answers.batch=2"]


def test_two_ranks_of_which_one_dies_end_with_the_files_of_a_single_process(tmp_path: Path) -> None:
    given = [*groups(tmp_path / "groups"), *ASKED]
    two = [*given, f"runs={tmp_path / 'two'}", "hardware.devices=2", "hardware.strategy=ddp"]
    struck = call(two, at=r"items/facts_mc\.jsonl$")
    assert struck.returncode == 1
    (cell,) = (tmp_path / "two" / "cells").glob("none-*")
    assert struck.stderr.count("rank 0 of the gauntlet was ended by SIGKILL") == 1, struck.stderr
    assert "Traceback" not in struck.stderr
    assert "rank 0 of the gauntlet was ended by SIGKILL" in json.loads((cell / "failed.json").read_text("utf-8"))["error"]
    assert not alive(str(tmp_path))
    first = cell / "gauntlet" / "raw" / "items" / "facts_em.jsonl"
    written = first.stat().st_mtime_ns
    for runs, command in (("two", two), ("one", [*given, f"runs={tmp_path / 'one'}"])):
        done = call(command)
        assert done.returncode == 0, f"{runs}: {done.stderr}{done.stdout}"
    assert first.stat().st_mtime_ns == written, "the task that was done is not asked again"
    (alone,) = (tmp_path / "one" / "cells").glob("none-*")
    for stage in ("gauntlet", "answers"):
        assert numbers(cell / stage) == numbers(alone / stage)
    assert not alive(str(tmp_path))
