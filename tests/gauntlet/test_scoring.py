from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from limit_lab.errors import EvalError
from limit_lab.gauntlet import reading
from limit_lab.gauntlet.families import beginnings, families, fed_tokens
from limit_lab.gauntlet.reading import Score, token_losses, within_memory
from limit_lab.gauntlet.scoring import pick, score
from limit_lab.gauntlet.sequences import Scorable
from limit_lab.model import hugging_face
from limit_lab.model.causal import CausalLM
from limit_lab.model.hugging_face import HuggingFaceLM
from limit_lab.model.mpt import MPT, MPTConfig
from tests.model.networks import NETWORKS, grouped

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


question = st.builds(
    lambda context, choices: [Scorable(ids=(*context, *choice), start=len(context)) for choice in choices],
    st.lists(st.integers(0, 3), min_size=1, max_size=12),
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), min_size=1, max_size=4),
)
schema = st.builds(
    lambda before, options, after: [
        Scorable(ids=(*before, *option, *after), start=len(before) + len(option)) for option in options
    ],
    st.lists(st.integers(0, 3), min_size=1, max_size=8),
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3), min_size=1, max_size=3),
    st.lists(st.integers(0, 3), min_size=1, max_size=4),
)
preamble = st.sampled_from([(), tuple(range(40))])


@settings(deadline=None, max_examples=20)
@given(
    questions=st.lists(st.one_of(scorable.map(lambda one: [one]), question, schema), min_size=1, max_size=6),
    budget=st.integers(1, 200),
    before=preamble,
)
def test_scores_are_those_of_every_sequence_by_itself(
    questions: list[list[Scorable]], budget: int, before: tuple[int, ...], toy_model: MPT
) -> None:
    asked = [[Scorable((*before, *one.ids), len(before) + one.start) for one in item] for item in questions]
    for item, scores in zip(asked, score(toy_model, asked, batch_tokens=budget), strict=True):
        for sequence, scored in zip(item, scores, strict=True):
            require_plain(toy_model, sequence, scored)


def require_plain(model: CausalLM, sequence: Scorable, scored: Score) -> None:
    """The score of one forward pass over the whole sequence."""
    ids = torch.tensor(sequence.ids)
    with torch.inference_mode():
        logits = model(ids[None])[0, sequence.start - 1 : -1]
    losses = F.cross_entropy(logits, ids[sequence.start :])
    assert scored.nll == pytest.approx(losses.item(), abs=1e-4)
    best = logits.max(-1).values
    assert torch.allclose(logits[range(len(best)), list(scored.predicted)], best, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "gpt_neox"])
def test_other_families_share_what_they_have_read(kind: str) -> None:
    model = HuggingFaceLM(NETWORKS[kind]())
    assert hugging_face.shares(model)
    asked = [four_choices(context) for context in range(5)]
    for item, scores in zip(asked, score(model, asked, batch_tokens=100), strict=True):
        for sequence, scored in zip(item, scores, strict=True):
            require_plain(model, sequence, scored)


def test_a_family_with_sliding_windows_shares_nothing() -> None:
    model = HuggingFaceLM(grouped("mistral", sliding_window=3))
    model.shares = hugging_face.shares(model)
    assert not model.shares
    asked = [four_choices(0)]
    for sequence, scored in zip(asked[0], score(model, asked, batch_tokens=100)[0], strict=True):
        require_plain(model, sequence, scored)


def four_choices(context: int) -> list[Scorable]:
    ids = tuple((7 * context + 3 * place) % 50 for place in range(10 + context))
    return [Scorable(ids=(*ids, choice, 3, choice + 1), start=len(ids)) for choice in (4, 5, 6, 4)]


def test_what_sequences_share_is_read_once(toy_model: MPT, monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[int] = []
    hidden = toy_model.hidden
    monkeypatch.setattr(toy_model, "hidden", lambda ids, **more: fed.append(ids.numel()) or hidden(ids, **more))
    (scores,) = score(toy_model, [four_choices(0)], batch_tokens=100)
    assert fed == [10, 3 * 2], "ten tokens of context, and two of the three tokens of each distinct choice"
    assert scores[0] == scores[3] != scores[1]
    fed.clear()
    letters = [[Scorable(ids=(1, 2, 3, letter), start=3) for letter in (5, 6, 7, 8)]]
    score(toy_model, letters, batch_tokens=100)
    assert fed == [3]
    fed.clear()
    before = tuple(range(40))
    after = [[Scorable((*before, *one.ids), 40 + one.start) for one in item] for item in [*letters, four_choices(1)]]
    score(toy_model, after, batch_tokens=10**6)
    assert fed[0] == 40, "what all questions begin with"
    assert fed_tokens(families(after)) == 40 + 3 + 11 + 3 * 2


def test_beginnings_are_found_where_they_are_worth_it() -> None:
    one, other = tuple(range(50)), tuple(range(100, 140))
    sequences = [(*one, 1), (*other, 2, 3), (7, 8), (*one, 4), (*other, 5), (*one[:20], 9)]
    found = beginnings(sequences, [len(sequence) - 1 for sequence in sequences])
    assert [(group.prefix, group.places) for group in found] == [(one, (0, 3)), (other, (1, 4)), ((), (2, 5))]
    alike_all = [(*one, *range(200, 400)), (*one, *range(500, 700))]
    assert [group.prefix for group in beginnings(alike_all, [249, 249])] == [one], "less than half, but of all"
    assert [group.prefix for group in beginnings(alike_all, [249, 40])] == [one[:40]]


def test_only_scored_positions_are_projected_and_each_once(toy_model: MPT, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    logits = toy_model.logits
    monkeypatch.setattr(toy_model, "logits", lambda hidden: rows.append(len(hidden)) or logits(hidden))
    monkeypatch.setattr(reading, "POSITIONS_AT_ONCE", 2)
    score(toy_model, [[Scorable(ids=tuple(range(20)), start=17)]], batch_tokens=100)
    assert rows == [2, 1]
    rows.clear()
    score(toy_model, [[Scorable(ids=(1, 2, 3, letter), start=3) for letter in (5, 6, 7, 8)]], batch_tokens=100)
    assert rows == [1]


def test_a_batch_without_room_is_cut_until_it_has(toy_model: MPT, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [four_choices(context) for context in range(6)]
    wanted = score(toy_model, asked, batch_tokens=10**6)
    hidden = toy_model.hidden

    def small(ids: Tensor, **more: Any) -> Tensor:
        if len(ids) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return hidden(ids, **more)

    monkeypatch.setattr(toy_model, "hidden", small)
    for own, scores in zip(score(toy_model, asked, batch_tokens=10**6), wanted, strict=True):
        assert [one.nll for one in own] == pytest.approx([one.nll for one in scores], abs=1e-5)
    with pytest.raises(EvalError, match="no room for a single question"):
        within_memory(lambda batch: list(small(torch.zeros(9, 1, dtype=torch.long))), [1, 2])
    with pytest.raises(RuntimeError, match="another"):
        within_memory(lambda batch: [][len(batch)] if not batch else _fail(), [1])


def _fail() -> list[int]:
    raise RuntimeError("another reason")


def test_losses_that_are_not_numbers_are_refused() -> None:
    broken = MPT(MPTConfig(d_model=8, n_layers=1, n_heads=1, vocab_size=16))
    with torch.no_grad():
        broken.transformer.wte.weight.fill_(math.nan)
    with pytest.raises(EvalError, match="NaN"):
        score(broken, [[Scorable(ids=(1, 2), start=1)]], batch_tokens=10)
