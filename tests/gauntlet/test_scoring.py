from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from limit_lab.errors import EvalError
from limit_lab.gauntlet import scoring
from limit_lab.gauntlet.scoring import pick, score, token_losses
from limit_lab.gauntlet.sequences import Scorable
from limit_lab.model.mpt import MPT, MPTConfig

scorable = st.lists(st.integers(0, 255), min_size=2, max_size=30).flatmap(
    lambda ids: st.integers(1, len(ids) - 1).map(lambda start: Scorable(ids=tuple(ids), start=start))
)


def test_recorded_choices_with_ties_and_overflow(golden: Path) -> None:
    for unit in json.loads((golden / "units" / "mc_metric.json").read_text()):
        nll = []
        for logits, ids, (start, end) in zip(unit["logits"], unit["input_ids"], unit["spans"], strict=True):
            scores = torch.tensor(logits)[start - 1 : end - 1]
            nll.append(token_losses(scores, torch.tensor(ids)[start:end]).mean().item())
        assert pick(nll) == unit["pred"], unit["kind"]


def test_equal_and_overflowing_perplexities_fall_to_the_first() -> None:
    assert pick([2.0, 1.0, 1.0]) == 1
    assert pick([95.0, 90.0]) == 0


@settings(deadline=None, max_examples=20)
@given(sequences=st.lists(scorable, min_size=1, max_size=8), budget=st.integers(1, 200))
def test_scores_do_not_depend_on_the_batching(sequences: list[Scorable], budget: int, toy_model: MPT) -> None:
    for sequence, scored in zip(sequences, score(toy_model, sequences, batch_tokens=budget), strict=True):
        ids = torch.tensor(sequence.ids)
        with torch.inference_mode():
            logits = toy_model(ids[None])[0, sequence.start - 1 : -1]
        losses = F.cross_entropy(logits, ids[sequence.start :])
        assert scored.nll == pytest.approx(losses.item(), abs=1e-4)
        assert scored.predicted == tuple(logits.argmax(-1).tolist())


def test_equal_sequences_are_scored_once(toy_model: MPT, monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[int] = []
    hidden = toy_model.hidden
    monkeypatch.setattr(toy_model, "hidden", lambda ids: fed.append(len(ids)) or hidden(ids))
    one, other = Scorable(ids=(1, 2, 3), start=1), Scorable(ids=(1, 2, 3), start=2)
    scores = score(toy_model, [one, other, one], batch_tokens=100)
    assert fed == [2]
    assert scores[0] == scores[2] != scores[1]


def test_only_scored_positions_are_projected(toy_model: MPT, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    logits = toy_model.logits
    monkeypatch.setattr(toy_model, "logits", lambda hidden: rows.append(len(hidden)) or logits(hidden))
    monkeypatch.setattr(scoring, "POSITIONS_AT_ONCE", 2)
    score(toy_model, [Scorable(ids=tuple(range(20)), start=17)], batch_tokens=100)
    assert rows == [2, 1]


def test_losses_that_are_not_numbers_are_refused() -> None:
    broken = MPT(MPTConfig(d_model=8, n_layers=1, n_heads=1, vocab_size=16))
    with torch.no_grad():
        broken.transformer.wte.weight.fill_(math.nan)
    with pytest.raises(EvalError, match="NaN"):
        score(broken, [Scorable(ids=(1, 2), start=1)], batch_tokens=10)
