"""What the base is pretrained on: documents up to the wanted tokens, those cut counted."""

from __future__ import annotations

from limit_lab.microworld.checkpoint import SHIPPED
from limit_lab.microworld.pretrain import SHAPE, tokenised
from limit_lab.model.loading import load_tokenizer


def test_documents_end_at_the_wanted_tokens_and_cuts_are_counted() -> None:
    tokenizer = load_tokenizer(SHIPPED)
    documents, cut = tokenised(["one two.", "three " * 400, "four.", "never read"], tokenizer, wanted=265)
    assert cut == 1
    assert [len(one.ids) for one in documents][1] == SHAPE["max_seq_len"]
    assert documents[0].ids[-1] == documents[-1].ids[-1] == tokenizer.eos_token_id
    assert sum(len(one.ids) for one in documents) >= 265 > sum(len(one.ids) for one in documents[:-1])
    assert len(documents) < 4
