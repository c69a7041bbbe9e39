"""Prompts that are kept as ids: the same as made anew, made once, and refused when damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limit_lab.errors import DataError
from limit_lab.gauntlet.sequences import Scorable
from limit_lab.gauntlet.tokenised import _packed, tokenised

scorable = st.lists(st.integers(0, 2**31 - 1), min_size=2, max_size=6).flatmap(
    lambda ids: st.integers(1, len(ids) - 1).map(lambda start: Scorable(ids=tuple(ids), start=start))
)
ASKED = [[Scorable((1, 2, 3), 1), Scorable((1, 2, 4), 1)], [Scorable((5, 6), 1)]]


@given(questions=st.lists(st.lists(scorable, max_size=4), max_size=5))
def test_what_is_kept_is_what_was_made(questions: list[list[Scorable]], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("prompts")
    for _ in range(2):
        assert tokenised(folder, {"task": 1}, lambda: questions) == questions


def test_it_is_made_once_for_the_same_inputs_and_anew_for_others(tmp_path: Path) -> None:
    made: list[int] = []
    for inputs in ({"rows": 1}, {"rows": 1}, {"rows": 2}):
        assert tokenised(tmp_path, inputs, lambda: made.append(1) or ASKED) == ASKED  # type: ignore[func-returns-value]
    assert len(made) == 2
    assert tokenised(None, {}, lambda: ASKED) is ASKED
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    tokenised(tmp_path, {}, lambda: ASKED)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], whole[:-3]):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=r"is damaged .*: delete it, and the prompts are tokenised again"):
            tokenised(tmp_path, {}, lambda: ASKED)
    assert len(_packed(ASKED)) == len(whole)
