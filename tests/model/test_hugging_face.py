"""transformers' networks behind our interface: packing, padding, cache and training against their own forward pass."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import BertConfig, BertLMHeadModel, BloomConfig, BloomForCausalLM

from limit_lab.compose import compose
from limit_lab.errors import ModelError
from limit_lab.finetune.batches import pack
from limit_lab.finetune.module import Finetuning, batch_loss
from limit_lab.finetune.train import train
from limit_lab.model.answering import Decoding, answer
from limit_lab.model.export import export
from limit_lab.model.hugging_face import HuggingFaceLM, attend_by_document, verify
from limit_lab.model.loading import check_config, load_model
from limit_lab.prompt import Document
from tests.model.networks import NETWORKS, grouped, llama, saved

EXACT = {"atol": 5e-5, "rtol": 0}


@pytest.fixture(params=sorted(NETWORKS))
def network(request: pytest.FixtureRequest) -> Any:
    return NETWORKS[request.param]()


@pytest.fixture(params=["mask", "by document"])
def packing(request: pytest.FixtureRequest, network: Any) -> HuggingFaceLM:
    """The network behind our interface, either way of keeping packed documents apart."""
    model = HuggingFaceLM(network)
    attend_by_document(model, Path("network"))
    assert model.by_document
    model.run(attention="mask" if request.param == "mask" else "auto", recompute=False)
    return model


def ids_of(*lengths: int, seed: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(1, 61, (1, length), generator=generator) for length in lengths]


def documents(*lengths: int) -> list[Document]:
    return [
        Document(ids=ids[0].tolist(), prompt_tokens=len(ids[0]) // 3, source="s", row=row)
        for row, ids in enumerate(ids_of(*lengths))
    ]


@torch.no_grad()
def own(network: Any, ids: Tensor) -> Tensor:
    """The oracle: transformers' logits of one row."""
    logits: Tensor = network(input_ids=ids, use_cache=False).logits
    return logits


@torch.no_grad()
def test_packed_documents_see_only_themselves(packing: HuggingFaceLM) -> None:
    parts = ids_of(5, 1, 7, 2)
    document = torch.cat([torch.full_like(ids, at) for ids, at in zip(parts, (3, 0, 9, 1), strict=True)], 1)
    packed = packing(torch.cat(parts, 1), document=document)
    torch.testing.assert_close(packed, torch.cat([own(packing.network, ids) for ids in parts], 1), **EXACT)
    unpacked = packing(torch.cat(parts, 1))
    assert (unpacked - packed).abs().max() > 0.01


def test_loss_and_gradients_of_packs_are_those_of_single_documents(packing: HuggingFaceLM) -> None:
    several = documents(9, 4, 6, 12, 3)
    model, network = packing, packing.network
    batch = pack(several, [1.0] * len(several), 16, 1)
    assert 1 < len(batch.ids) < len(several)
    assert bool((batch.document == -1).any())
    loss = batch_loss(model, batch, at_once=4096)
    loss.backward()
    found = {name: value.grad.clone() for name, value in network.named_parameters()}
    network.zero_grad()
    expected = torch.zeros(())
    for one in several:
        logits = network(input_ids=torch.tensor([one.ids]), use_cache=False).logits[0]
        first = max(one.prompt_tokens, 1)
        expected = expected + F.cross_entropy(logits[first - 1 : -1], torch.tensor(one.ids[first:]), reduction="sum")
    expected.backward()
    torch.testing.assert_close(loss, expected, **EXACT)
    for name, value in network.named_parameters():
        scale = value.grad.abs().max().clamp(min=1)
        torch.testing.assert_close(found[name] / scale, value.grad / scale, **EXACT, msg=name)


def test_blocks_that_are_recomputed_give_the_same_gradients(network: Any) -> None:
    if network.config.model_type == "gpt_neox":
        with pytest.raises(ModelError, match=r"would switch on attention_dropout=0\.2"):
            HuggingFaceLM(network).run(attention="auto", recompute=True)
        return
    batch, found = pack(documents(9, 4, 6), [1.0] * 3, 16, 1), []
    for recompute in (False, True):
        model = HuggingFaceLM(network)
        attend_by_document(model, Path("network"))
        model.run(attention="auto", recompute=recompute)
        batch_loss(model.train(), batch, at_once=8).backward()
        found.append([value.grad.clone() for value in network.parameters()])
        network.zero_grad()
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_documents_beyond_a_sliding_window_keep_the_masks_of_transformers() -> None:
    network = grouped("mistral", sliding_window=4)
    model, (ids,) = HuggingFaceLM(network), ids_of(9)
    attend_by_document(model, Path("network"))
    assert model.by_document
    packed = model(ids, document=torch.zeros_like(ids))
    torch.testing.assert_close(packed, own(network, ids), **EXACT)
    network.config.sliding_window = None
    assert (model(ids, document=torch.zeros_like(ids)) - packed).abs().max() > 0.01


def test_a_back_end_of_mpts_is_refused(network: Any) -> None:
    with pytest.raises(ModelError, match=r"hardware\.attention=varlen is for MPTs"):
        HuggingFaceLM(network).run(attention="varlen", recompute=False)


@torch.no_grad()
def test_left_padding_changes_nothing(network: Any) -> None:
    parts = ids_of(7, 3, 1)
    pads = torch.tensor([0, 4, 6])
    rows = torch.cat([F.pad(ids, (int(pad), 0), value=5) for ids, pad in zip(parts, pads, strict=True)])
    model = HuggingFaceLM(network)
    logits = model.logits(model.hidden(rows, left_pad=pads))
    assert bool(logits.isfinite().all())
    for row, (ids, pad) in enumerate(zip(parts, pads.tolist(), strict=True)):
        torch.testing.assert_close(logits[row : row + 1, pad:], own(network, ids), **EXACT)


@torch.no_grad()
def test_a_cache_read_in_pieces_and_cut_to_rows_gives_the_logits_of_the_whole(network: Any) -> None:
    parts = ids_of(9, 6, 8)
    pads = torch.tensor([0, 3, 1])
    rows = torch.cat([F.pad(ids, (int(pad), 0), value=5) for ids, pad in zip(parts, pads, strict=True)])
    model = HuggingFaceLM(network)
    cache = model.new_cache()
    model.hidden(rows[:, :5], left_pad=pads, cache=cache)
    keep = torch.tensor([2, 1])
    cache.select(keep)
    assert cache.tokens == 5
    steps = [model.hidden(rows[keep, at : at + 1], left_pad=pads[keep], cache=cache) for at in range(5, 9)]
    logits = model.logits(torch.cat(steps, 1))
    for place, row in enumerate(keep.tolist()):
        torch.testing.assert_close(logits[place : place + 1], own(network, parts[row])[:, -4:], **EXACT)


def test_greedy_answers_are_those_of_transformers(network: Any) -> None:
    prompts = [ids[0].tolist() for ids in ids_of(6, 2, 4, seed=8)]
    found = answer(HuggingFaceLM(network), prompts, 0, Decoding(max_new_tokens=8), batch=3)
    for prompt, written in zip(prompts, found, strict=True):
        ids = list(prompt)
        for token in written:
            assert token == int(own(network, torch.tensor([ids]))[0, -1].argmax())
            ids.append(token)
        assert written[-1] == 0 or len(written) == 8


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_an_exported_model_is_the_trained_one_for_us_and_for_transformers(name: str, tmp_path: Path) -> None:
    folder = saved(NETWORKS[name](2048), tmp_path / "base")
    model = load_model(folder)
    assert isinstance(model, HuggingFaceLM)
    study = compose(["finetune.duration=3step", "finetune.batch=2doc", "finetune.freeze_embeddings=false"])
    train(model, documents(9, 4, 6), study.finetune, study.hardware, tmp_path / "run", seed=0, say=False)
    assert not model.training
    export(model, folder, tmp_path / "out", beside={"README.md": "# card\n"})
    again = load_model(tmp_path / "out")
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    assert not torch.equal(
        again.state_dict()["network." + head(model)], load_model(folder).state_dict()["network." + head(model)]
    )
    (ids,) = ids_of(11)
    torch.testing.assert_close(own(again.network, ids), model(ids).detach(), atol=5e-5, rtol=0)
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    assert (tmp_path / "out" / "README.md").read_text(encoding="utf-8") == "# card\n"


def head(model: HuggingFaceLM) -> str:
    projection = model.network.get_output_embeddings().weight
    return next(name for name, value in model.network.named_parameters() if value is projection)


def test_half_precision_is_exported_and_verified(tmp_path: Path) -> None:
    folder = saved(llama(tied=True), tmp_path / "base")
    export(load_model(folder), folder, tmp_path / "out", beside={}, dtype=torch.bfloat16)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    assert {value.dtype for value in load_model(tmp_path / "out").parameters()} == {torch.float32}


@pytest.mark.parametrize(("tied", "matrices"), [(True, 1), (False, 2)])
def test_frozen_embeddings_and_projections_learn_nothing(tied: bool, matrices: int) -> None:
    model = HuggingFaceLM(llama(tied=tied))
    recipe = compose(["finetune.freeze_embeddings=true"]).finetune
    Finetuning(model, recipe, schedule_steps=1, parts=1, logits_at_once=64)
    frozen = [value.shape for value in model.parameters() if not value.requires_grad]
    assert frozen == [(61, 16)] * matrices


def test_training_uses_no_dropout() -> None:
    model = HuggingFaceLM(NETWORKS["gpt_neox"]()).train()
    (ids,) = ids_of(20)
    assert model.training
    assert torch.equal(model(ids), model(ids))


def altered(change: Callable[[Path], object]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        change(saved(llama(), folder))
        return folder

    return make


def reconfigure(folder: Path, **changes: object) -> None:
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(raw | changes), encoding="utf-8")


def encoder(folder: Path) -> Path:
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return saved(BertLMHeadModel(BertConfig(vocab_size=61, is_decoder=False, initializer_range=0.3, **shape)), folder)


def without_positions(folder: Path) -> Path:
    torch.manual_seed(0)
    return saved(BloomForCausalLM(BloomConfig(vocab_size=61, hidden_size=16, n_layer=1, n_head=2)), folder)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (altered(lambda folder: reconfigure(folder, model_type="no_such")), "cannot be read by transformers"),
        (altered(lambda folder: reconfigure(folder, num_hidden_layers=3)), "is missing: copy weights and"),
        (altered(lambda folder: reconfigure(folder, num_hidden_layers=1)), "is not part of a llama"),
        (altered(lambda folder: reconfigure(folder, intermediate_size=32)), "cannot be loaded by transformers"),
        (encoder, "differ from transformers' own by"),
        (without_positions, "'bloom' model, which takes no position_ids"),
    ],
)
def test_a_folder_that_would_give_wrong_numbers_is_one_sentence(
    make: Callable[[Path], Path], said: str, tmp_path: Path
) -> None:
    folder = make(tmp_path / "model")
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert said in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("gemma2", {"final_logit_softcapping": 30.0}, "'gemma2' model with final_logit_softcapping=30.0"),
        ("cohere", {}, "'cohere' model with logit_scale=0.0625"),
        ("llama", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "holds quantised weights: save the model in"),
        ("granite", {"logits_scaling": 8.0}, "'granite' model with logits_scaling=8.0"),
    ],
)
def test_treated_logits_and_quantised_weights_are_refused_by_name(
    kind: str, changes: dict[str, object], said: str, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": kind, **changes}), encoding="utf-8")
    with pytest.raises(ModelError, match=said):
        check_config(folder)


def test_a_treatment_without_a_name_is_found_by_trying(tmp_path: Path) -> None:
    network = llama()
    projection = network.lm_head
    network.lm_head = torch.nn.Sequential(projection, torch.nn.Tanh())
    network.set_output_embeddings = None
    network.get_output_embeddings = lambda: projection
    with pytest.raises(ModelError, match="when hidden states are projected: use a model with causal attention"):
        verify(HuggingFaceLM(network), tmp_path)


def test_packs_take_no_cache() -> None:
    model = HuggingFaceLM(llama())
    (ids,) = ids_of(4)
    with pytest.raises(ModelError, match="take neither left padding nor a cache"):
        model.hidden(ids, document=torch.zeros_like(ids), cache=model.new_cache())
