"""From sources to documents: what the card counts is what the documents hold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from limit_lab.compose import compose
from limit_lab.config import Data, Mixture, Source, Study
from limit_lab.errors import DataError
from limit_lab.microworld.checkpoint import SHIPPED
from limit_lab.mixture.mix import Mixed, mix
from limit_lab.mixture.selection import draw
from limit_lab.mixture.sources import read
from limit_lab.model.loading import load_tokenizer
from limit_lab.prompt import Tokenizer, document, prompt_ids

#: Too few tokens for the prompt of every third row of "long", and for the responses of most others.
LIMIT = 60


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(SHIPPED)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Two file sources: one of short rows, one whose rows do not all fit; 30 rows each."""
    folder = tmp_path_factory.mktemp("data")
    rows = {
        "short": [{"prompt": f"Name lake {n}.", "response": f"Lake {n}."} for n in range(30)],
        "long": [{"prompt": "Go on." + " Please." * 40 * (n % 3 == 2), "response": "word " * (1 + 3 * n)} for n in range(30)],
    }
    for name, made in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    sources = {name: Source(kind="file", file=f"{name}.jsonl", licence=f"{name}'s own") for name in rows}
    sources["lima"] = Source(kind="microworld")
    sources["instruct"] = Source(kind="microworld")
    return replace(compose(["mixture=none", "prompt.format=bare"]), data=Data(name="mine", dir=str(folder), sources=sources))


def mixed(study: Study, tokenizer: Tokenizer, samples: dict[str, int], **recipe: Any) -> Mixed:
    finetune = replace(study.finetune, **{"max_seq_tokens": 2048, **recipe})
    return mix(replace(study, mixture=Mixture(name="mine", samples=samples), finetune=finetune), tokenizer)


def test_documents_are_the_drawn_rows_in_order(study: Study, tokenizer: Tokenizer) -> None:
    made = mixed(study, tokenizer, {"short": 7, "long": 4}).documents
    expected = []
    for name, count in (("short", 7), ("long", 4)):
        for row in draw(read(name, study.data, world_seed=0).rows, count, source=name, seed=study.seeds.subset):
            expected.append(document(tokenizer, row.prompt, row.response, "bare", source=name, row=row.index))
    assert made == expected


def test_the_subset_seed_and_the_format_decide_the_documents(study: Study, tokenizer: Tokenizer) -> None:
    first = mixed(study, tokenizer, {"short": 9})
    assert mixed(study, tokenizer, {"short": 9}) == first
    reseeded = replace(study, seeds=replace(study.seeds, subset=1))
    assert mixed(reseeded, tokenizer, {"short": 9}).documents != first.documents
    reshaped = mixed(replace(study, prompt=replace(study.prompt, format="alpaca")), tokenizer, {"short": 9})
    assert reshaped.card["prompt_format"] == "alpaca"
    assert reshaped.card["target_tokens"] == first.card["target_tokens"] < first.card["tokens"] < reshaped.card["tokens"]


def test_shares_are_those_of_the_documents_and_sum_to_one(study: Study, tokenizer: Tokenizer) -> None:
    made = mixed(study, tokenizer, {"short": 20, "long": 10, "lima": 5})
    cards = made.card["sources"]
    for share in ("document_share", "token_share", "loss_share"):
        assert sum(card[share] for card in cards.values()) == pytest.approx(1)
    for name, card in cards.items():
        own = [one for one in made.documents if one.source == name]
        targets = sum(len(one.ids) - one.prompt_tokens for one in own)
        assert card["kept"] == len(own) == {"short": 20, "long": 10, "lima": 5}[name]
        assert card["document_share"] == pytest.approx(len(own) / 35)
        assert card["tokens"] == sum(len(one.ids) for one in own)
        assert card["token_share"] == pytest.approx(card["tokens"] / sum(len(one.ids) for one in made.documents))
        assert card["target_tokens"] == targets
        assert card["loss_share"] == pytest.approx(targets / sum(one.target_tokens for one in made.documents))
    assert cards["long"]["loss_share"] > cards["long"]["token_share"] > cards["long"]["document_share"]
    assert (cards["long"]["available"], cards["long"]["licence"]) == (30, "long's own")
    assert cards["long"]["sha256"] == read("long", study.data, world_seed=0).sha256
    assert made.card["documents"] == 35
    packs = made.card["packs"]
    assert (packs - 1) * 2048 < made.card["tokens"] <= packs * 2048
    assert made.card["fill"] == pytest.approx(made.card["tokens"] / (packs * 2048))


def test_a_document_that_is_too_long_is_an_error_that_names_it(study: Study, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError) as caught:
        mixed(study, tokenizer, {"short": 3, "long": 30}, max_seq_tokens=LIMIT)
    first = next(one for one in mixed(study, tokenizer, {"long": 30}).documents if len(one.ids) > LIMIT)
    assert f"row {first.row} of source 'long' has {len(first.ids)} tokens, finetune.max_seq_tokens is 60" in str(caught.value)
    assert "finetune.on_too_long=drop (or truncate_tail, truncate_head)" in str(caught.value)


def test_dropped_documents_are_counted(study: Study, tokenizer: Tokenizer) -> None:
    whole = mixed(study, tokenizer, {"short": 3, "long": 30})
    made = mixed(study, tokenizer, {"short": 3, "long": 30}, max_seq_tokens=LIMIT, on_too_long="drop")
    assert made.documents == [one for one in whole.documents if len(one.ids) <= LIMIT]
    card = made.card["sources"]["long"]
    assert (card["kept"] + card["dropped"], card["truncated"]) == (30, 0)
    assert 0 < card["dropped"] < 30
    assert made.card["sources"]["short"]["dropped"] == 0


def test_truncated_documents_lose_the_tail_of_their_response(study: Study, tokenizer: Tokenizer) -> None:
    whole = mixed(study, tokenizer, {"long": 30})
    made = mixed(study, tokenizer, {"long": 30}, max_seq_tokens=LIMIT, on_too_long="truncate_tail")
    fits = [one for one in whole.documents if one.prompt_tokens < LIMIT]
    assert [one.ids for one in made.documents] == [one.ids[:LIMIT] for one in fits]
    assert [one.prompt_tokens for one in made.documents] == [one.prompt_tokens for one in fits]
    card = made.card["sources"]["long"]
    assert card["truncated"] == sum(len(one.ids) > LIMIT for one in fits) > 0
    assert card["dropped"] == 30 - len(fits) > 0
    assert card["kept"] == len(fits)


def test_the_other_truncation_keeps_the_prompt_and_the_end_of_the_response(study: Study, tokenizer: Tokenizer) -> None:
    tail = mixed(study, tokenizer, {"long": 30}, max_seq_tokens=LIMIT, on_too_long="truncate_tail")
    head = mixed(study, tokenizer, {"long": 30}, max_seq_tokens=LIMIT, on_too_long="truncate_head")
    fits = [one for one in mixed(study, tokenizer, {"long": 30}).documents if one.prompt_tokens < LIMIT]
    cut = [(one, whole) for one, whole in zip(head.documents, fits, strict=True) if len(whole.ids) > LIMIT]
    assert len(cut) == head.card["sources"]["long"]["truncated"] == tail.card["sources"]["long"]["truncated"] > 0
    for one, whole in cut:
        prompt, target = whole.ids[: whole.prompt_tokens], whole.ids[whole.prompt_tokens :]
        assert one.ids == prompt + target[-(LIMIT - len(prompt)) :]
        assert one.ids[-1] == tokenizer.eos_token_id
    assert head.card["tokens"] == tail.card["tokens"]


def test_padded_documents_take_a_row_each(study: Study, tokenizer: Tokenizer) -> None:
    card = mixed(study, tokenizer, {"short": 10}, max_seq_tokens=LIMIT, rows="padded").card
    assert card["packs"] == 10
    assert card["fill"] == card["tokens"] / (10 * LIMIT)


@pytest.mark.parametrize(("room", "truncated", "dropped"), [(0, 0, 1), (1, 1, 0), (2, 0, 0)])
def test_a_prompt_that_leaves_no_target_is_dropped(
    room: int, truncated: int, dropped: int, tokenizer: Tokenizer, tmp_path: Path, study: Study
) -> None:
    """The boundary: a one-token response and its eos need two tokens after the prompt."""
    rows = [{"prompt": "Say it.", "response": "a"}, {"prompt": "a", "response": "a"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = Data(name="mine", dir=str(tmp_path), sources={"rows": Source(kind="file", file="rows.jsonl")})
    limit = len(prompt_ids(tokenizer, "Say it.", "bare")) + room
    assert len(tokenizer.encode("a", add_special_tokens=False)) == 1
    made = mixed(replace(study, data=data), tokenizer, {"rows": 2}, max_seq_tokens=limit, on_too_long="truncate_tail")
    card = made.card["sources"]["rows"]
    assert (card["truncated"], card["dropped"]) == (truncated, dropped)
    assert all(one.target_tokens >= 1 for one in made.documents)


@pytest.mark.parametrize("policy", ["drop", "truncate_tail", "truncate_head"])
def test_a_mixture_that_was_dropped_whole_is_refused(policy: str, study: Study, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match=r"mixture=mine: all samples are longer than finetune.max_seq_tokens=8"):
        mixed(study, tokenizer, {"short": 3}, max_seq_tokens=8, on_too_long=policy)


def test_the_untouched_base_has_an_empty_mixture(study: Study, tokenizer: Tokenizer) -> None:
    assert mixed(study, tokenizer, {}) == Mixed(
        documents=[],
        held_out={},
        card={"documents": 0, "tokens": 0, "target_tokens": 0, "sources": {}, "prompt_format": "bare"},
    )


def test_held_out_documents_are_rows_that_are_not_drawn(study: Study, tokenizer: Tokenizer) -> None:
    made = mixed(study, tokenizer, {"short": 7, "long": 28}, held_out=4, max_seq_tokens=LIMIT, on_too_long="truncate_tail")
    assert [len(made.held_out[name]) for name in ("short", "long")] == [4, 1]  # of the long ones a prompt fills the row
    assert {name: card["held_out"] for name, card in made.card["sources"].items()} == {"short": 4, "long": 1}
    for name, own in made.held_out.items():
        assert {one.source for one in own} == {name}
        assert not {one.row for one in own} & {one.row for one in made.documents if one.source == name}
        assert all(len(one.ids) <= LIMIT for one in own)
    assert mixed(study, tokenizer, {"short": 26}, held_out=4).held_out["short"] == made.held_out["short"]
    assert mixed(study, tokenizer, {"short": 30}, held_out=4).held_out == {"short": []}
    assert mixed(study, tokenizer, {"short": 7}, held_out=0).held_out == {"short": []}


def test_a_held_out_row_that_is_too_long_is_no_error(study: Study, tokenizer: Tokenizer) -> None:
    lengths = {one.row: len(one.ids) for one in mixed(study, tokenizer, {"long": 30}).documents}
    reseeded = replace(study, seeds=replace(study.seeds, subset=1))
    drawn = mixed(reseeded, tokenizer, {"long": 1}).documents[0]
    made = mixed(reseeded, tokenizer, {"long": 1}, held_out=29, max_seq_tokens=lengths[drawn.row], on_too_long="error")
    fit = {row for row, length in lengths.items() if length <= lengths[drawn.row]} - {drawn.row}
    assert {one.row for one in made.held_out["long"]} == fit
    assert len(fit) < 29


def test_facts_and_templates_are_counted_where_they_are_known(study: Study, tokenizer: Tokenizer) -> None:
    cards = mixed(study, tokenizer, {"short": 5, "lima": 40}).card["sources"]
    drawn = draw(read("lima", study.data, world_seed=study.microworld.seed).rows, 40, source="lima", seed=study.seeds.subset)
    assert cards["lima"]["distinct_facts"] == len({fact for row in drawn for fact in row.facts}) > 0
    assert cards["lima"]["distinct_templates"] == len({row.template for row in drawn}) > 1
    assert [cards["short"][key] for key in ("distinct_facts", "distinct_templates", "repetition")] == [None, None, False]


def test_a_small_draw_of_the_world_does_not_repeat(study: Study, tokenizer: Tokenizer) -> None:
    cards = mixed(study, tokenizer, {"lima": 10}).card["sources"]
    assert cards["lima"]["repetition"] is False
