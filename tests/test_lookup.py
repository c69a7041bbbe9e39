"""The lookup of what runs where: it says what the arithmetic says, for every model, recipe, width and kind of hardware."""

from __future__ import annotations

import pytest

from limit_lab.compose import compose, config_dir
from limit_lab.lookup import HARDWARE, table, way, ways
from limit_lab.shapes import shape_of


def test_all_that_is_asked_has_a_row_and_a_column() -> None:
    recipe = compose(["finetune=default"]).finetune
    head, _, titles, *rows = table(recipe).splitlines()
    assert "adamw, bf16" in head
    assert all(name in titles for name in HARDWARE)
    assert len(rows) == 8
    assert [row.split()[0] for row in rows] == ["mpt_7b"] * 4 + ["mpt_30b"] * 4


def test_the_readme_shows_what_the_command_prints() -> None:
    text = (config_dir().parent / "README.md").read_text(encoding="utf-8")
    for line in table(compose(["finetune=default"]).finetune).splitlines()[2:]:
        assert f"    {line}" in text.splitlines(), (
            "print it again: python -m limit_lab finetune=default do=plan plan.lookup=true"
        )


@pytest.mark.parametrize("hardware", HARDWARE)
@pytest.mark.parametrize("model", ["mpt_7b", "mpt_30b"])
def test_the_way_that_is_named_is_the_first_that_fits(model: str, hardware: str) -> None:
    recipe, shape = compose(["finetune=default"]).finetune, shape_of(compose([f"model={model}"]).model)
    at = compose([f"hardware={hardware}"]).hardware
    found, every = way(shape, recipe, at), list(ways(shape, recipe, at))
    assert [one.fits for one in every].index(True) == every.index(found) if found.fits else not any(one.fits for one in every)
    assert found.text.startswith("no: ") != found.fits


def test_a_7b_runs_on_one_h200_and_a_30b_on_eight_of_80_gb() -> None:
    recipe = compose(["finetune=default"]).finetune
    for model, hardware in (("mpt_7b", "h200"), ("mpt_7b", "8x40gb"), ("mpt_30b", "8x80gb")):
        assert way(shape_of(compose([f"model={model}"]).model), recipe, compose([f"hardware={hardware}"]).hardware).fits
    alone = way(shape_of(compose(["model=mpt_30b"]).model), recipe, compose(["hardware=h200"]).hardware)
    assert not alone.fits
