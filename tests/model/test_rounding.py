"""Within `rounded` a model computes from rounded weights; behind it nothing is changed."""

from __future__ import annotations

import copy

import pytest
import torch

from limit_lab.model.hugging_face import HuggingFaceLM
from limit_lab.model.rounding import rounded
from tests.model.networks import NETWORKS
from tests.model.oracle import random_ids, random_model


@pytest.mark.parametrize("name", ["mpt", *NETWORKS, "tied llama"])
def test_weights_read_as_rounded_and_stay_as_they_are(name: str) -> None:
    if name == "mpt":
        model = random_model()
    else:
        model = HuggingFaceLM(NETWORKS["llama"](tied=True) if name == "tied llama" else NETWORKS[name]())
    ids = random_ids(2, 9, vocab=model.vocab_size)
    wanted = copy.deepcopy(model)
    wanted.load_state_dict({key: value.bfloat16().float() for key, value in model.state_dict().items()})
    before = {key: value.clone() for key, value in model.state_dict().items()}
    objects = {key: id(value) for key, value in model.named_parameters()}
    with torch.no_grad():
        plain = model(ids)
        with rounded(model, torch.bfloat16):
            assert torch.equal(model(ids), wanted(ids))
            assert not torch.equal(model(ids), plain)
        with rounded(model, torch.float32):
            assert torch.equal(model(ids), plain)
        assert torch.equal(model(ids), plain)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert {key: id(value) for key, value in model.named_parameters()} == objects


def test_an_error_within_leaves_the_model_as_it_was() -> None:
    model = random_model()
    names = [name for name, _ in model.named_parameters()]
    with pytest.raises(ZeroDivisionError), rounded(model, torch.bfloat16):
        raise ZeroDivisionError
    assert [name for name, _ in model.named_parameters()] == names
