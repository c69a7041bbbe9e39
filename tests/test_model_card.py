"""The card of an export says what went in, how, under which licences and from where."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml

from limit_lab import model_card, provenance
from limit_lab.compose import compose
from limit_lab.config import Study

MIXTURE = {"lima": 1000, "instruct_v1": 5000}


@pytest.fixture
def study() -> Study:
    return compose(["+experiment=paper_7b_lima_plus_instruct", "model.hub=someone/mpt-7b-copy"])


def counted(study: Study) -> dict[str, Any]:
    source = {"available": 60_000, "dropped": 3, "truncated": 2, "tokens": 1234}
    kept = {"lima": (998, 0.672), "instruct_v1": (4999, 0.328)}
    sources = {name: {**source, "kept": kept[name][0], "loss_share": kept[name][1]} for name in study.mixture.samples}
    return {"documents": 5997, "tokens": 2468, "target_tokens": 999, "sources": sources}


def text(study: Study, verified: bool | None = None) -> str:
    given = {"command": "python -m limit_lab +experiment=mine", "provenance": provenance.collect()}
    return model_card.written(study, counted(study), fingerprint="0123456789ab", verified=verified, **given)


def front(study: Study) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text(study).split("---\n")[1])
    return found


def test_the_hub_reads_base_data_licence_and_tags(study: Study) -> None:
    assert study.mixture.samples == MIXTURE
    assert front(study) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": "someone/mpt-7b-copy",
        "base_model_relation": "finetune",
        "license": "other",
        "license_name": "several-see-below",
        "datasets": ["aditijha/processed_lima", "mosaicml/dolly_hhrlhf"],
        "tags": ["limit_lab", "instruction-tuning", study.mixture.name],
    }


def test_mixture_recipe_licences_and_origin_are_stated(study: Study) -> None:
    said = text(study)
    assert "| lima | 998 of 60,000 | 3 | 2 | 1,234 | 67.2% | CC BY-NC-SA |" in said
    assert "selection: random, subset seed 0" in said
    assert "| learning_rate | `5e-06` |" in said
    assert "Exported as bf16." in said
    assert "**Not for commercial use**: lima is licensed so." in said
    assert "- the base mpt_7b: Apache-2.0" in said
    assert provenance.git_sha() in said
    assert "`0123456789ab`" in said
    assert "python -m limit_lab +experiment=mine" in said
    assert "{instruction}\n### Response:\n" in said
    assert "stated a licence" not in said


def test_an_unverified_copy_is_called_so(study: Study) -> None:
    assert "unverified copy**: no published hash vouches that they are those of mpt_7b" in text(study, verified=False)
    assert "no published hash vouches" not in text(study, verified=True)
    assert "# mpt_7b (unverified copy) fine-tuned on" in text(study)


def test_one_licence_of_all_is_told_to_the_hub_and_none_is_not() -> None:
    study = compose(["mixture=lima"])
    assert front(study)["license"] == "apache-2.0"  # texts that the package generates add none
    unknown = replace(study, model=replace(study.model, licence="not stated"))
    assert front(unknown) | {"tags": []} == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "license": "other",
        "license_name": "see-below",
        "tags": [],
    }
    assert "Nobody stated a licence for the base micro: ask before you pass these weights on." in text(unknown)


@pytest.mark.parametrize("licence", ["CC BY-NC-SA", "cc-by-nc-4.0", "Non-Commercial use only"])
def test_licences_that_forbid_commerce_are_known(licence: str) -> None:
    assert model_card.noncommercial(licence)


@pytest.mark.parametrize("licence", ["CC BY-SA 3.0", "Apache-2.0", "generated", "not stated", "NCSA"])
def test_others_are_not(licence: str) -> None:
    assert not model_card.noncommercial(licence)
