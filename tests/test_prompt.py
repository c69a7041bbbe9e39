"""What is seen at inference is a strict prefix of what was trained on, whatever the texts hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jinja2.exceptions import TemplateError

from limit_lab.errors import ConfigError, DataError
from limit_lab.microworld.checkpoint import SHIPPED
from limit_lab.model.loading import load_tokenizer
from limit_lab.prompt import (
    FORMATS,
    PREAMBLE,
    Tokenizer,
    beginning,
    chat_template,
    document,
    instruction_of,
    prompt_ids,
    render,
)

MARKERS = ("### Instruction:\n", "### Response:\n", "### Response:", PREAMBLE, "{instruction}", "{", "{}", "{0}", "<eos>", "\n")
TEXTS = st.lists(st.one_of(st.text(max_size=20), st.sampled_from(MARKERS)), max_size=6).map("".join)
RESPONSES = TEXTS.filter(str.strip)
NAMES = st.sampled_from(sorted(FORMATS))


@pytest.fixture(scope="session", params=["micro", "data/tokenizers/mpt", "golden/models/tiny-mpt"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    """The shipped tokenizer, and the two real ones of the shared folder."""
    if request.param == "micro":
        return load_tokenizer(SHIPPED)
    shared: Path = request.getfixturevalue("shared")
    return load_tokenizer(shared / request.param)


@given(instruction=TEXTS, response=RESPONSES, name=NAMES)
@example(instruction="Say ", response=" it", name="bare")
@example(instruction="Say", response="\n\n### Response:\nit", name="alpaca")
def test_the_prompt_is_a_strict_prefix_of_the_document(
    tokenizer: Tokenizer, instruction: str, response: str, name: str
) -> None:
    prompt = prompt_ids(tokenizer, instruction, name)
    made = document(tokenizer, instruction, response, name, source="x", row=3)
    assert made.ids[: len(prompt)] == prompt
    assert made.prompt_tokens == len(prompt) > 0
    assert made.ids[-1] == tokenizer.eos_token_id
    assert made.target_tokens == len(made.ids) - len(prompt) >= 2
    assert made.ids[len(prompt) : -1] == tokenizer.encode(response, add_special_tokens=False)
    assert (made.source, made.row) == ("x", 3)


@given(first=RESPONSES, second=RESPONSES, instruction=TEXTS, name=NAMES)
def test_the_response_does_not_change_the_prompt(
    tokenizer: Tokenizer, first: str, second: str, instruction: str, name: str
) -> None:
    made = [document(tokenizer, instruction, response, name, source="x", row=0) for response in (first, second)]
    assert made[0].prompt_tokens == made[1].prompt_tokens
    assert made[0].ids[: made[0].prompt_tokens] == made[1].ids[: made[1].prompt_tokens]


@given(instruction=TEXTS, name=NAMES)
def test_instruction_text_is_never_formatted(instruction: str, name: str) -> None:
    before, after = FORMATS[name].split("{instruction}")
    made = render(instruction, name)
    assert made.startswith(before)
    assert made.endswith(after)
    assert made[len(before) : len(made) - len(after)] == instruction


def test_the_published_frames() -> None:
    expected = f"{PREAMBLE}\n\n### Instruction:\nName a {{lake}}.\n\n### Response:\n"
    assert render("Name a {lake}.", "alpaca") == expected
    assert render("Name a lake.", "alpaca_tight") == f"{PREAMBLE}\n### Instruction:\nName a lake.\n### Response:\n"
    assert render("Name a lake.", "bare") == "### Instruction:\nName a lake.\n### Response:\n"


def test_an_unknown_format_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"prompt.format='alpacca' is unknown; did you mean 'alpaca'"):
        render("x", "alpacca")


@given(instruction=TEXTS, name=st.sampled_from(["alpaca", "alpaca_tight"]))
def test_the_frame_comes_off_again(instruction: str, name: str) -> None:
    assert instruction_of(render(instruction, name)) == instruction.strip("\n")


@given(TEXTS.filter(lambda text: not text.startswith(PREAMBLE)))
def test_bare_instructions_stay(text: str) -> None:
    assert instruction_of(text) == text


WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
)


@pytest.mark.parametrize(
    ("framed", "bare"),
    [
        (f"{PREAMBLE}\n\n### Instruction:\nAdd 1 and 2.\n\n### Response:\n", "Add 1 and 2."),
        (f"{PREAMBLE}\n\n### Instruction:\nAdd 1 and 2.\n\n### Response:", "Add 1 and 2."),
        (f"{PREAMBLE}\n\n### Instruction:\nAdd 1 and 2.\n", "Add 1 and 2."),
        (f"{PREAMBLE}\n\n### Instruction:\nSay ### Response: now\n\n### Response:\n", "Say ### Response: now"),
        (f"{PREAMBLE}\n\n### Instruction:\nSay ### Response: now", "Say ### Response: now"),
        (f"{WITH_INPUT}\n\n### Instruction:\nAdd.\n\n### Input:\n1 and 2\n\n### Response:\n", "Add.\n1 and 2"),
        (
            f"{WITH_INPUT}\n\n### Instruction:\nAdd.\n\n### Input:\n1\n\n### Input:\n2\n\n### Response:",
            "Add.\n1\n\n### Input:\n2",
        ),
        (f"{PREAMBLE}\n\n### Instruction:\nA\n\n### Input:\nB\n\n### Response:\n", "A\n\n### Input:\nB"),
        (f"{PREAMBLE} Or do not.", f"{PREAMBLE} Or do not."),
    ],
)
def test_framed_rows_give_their_instruction(framed: str, bare: str) -> None:
    assert instruction_of(framed) == bare


@pytest.mark.parametrize("response", ["", " ", "\n\t\n"])
def test_an_empty_response_is_refused(response: str) -> None:
    with pytest.raises(DataError, match="row 7 of source 'mine' has an empty response: remove the row"):
        document(load_tokenizer(SHIPPED), "x", response, "bare", source="mine", row=7)


CONTENTS = ("Name a lake.", 'Two\nlines, "quoted" {{ braces }} and ünïcode \\n', "{instruction}", "  blanks at both ends  ")


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("bos", [False, True])
def test_the_chat_template_gives_the_ids_of_training(tmp_path: Path, format_name: str, bos: bool) -> None:
    tokenizer = _tokenizer(tmp_path, bos)
    tokenizer.chat_template = chat_template(format_name, beginning(tokenizer))
    assert beginning(tokenizer) == (tokenizer.eos_token if bos else "")
    for content in CONTENTS:
        asked = [{"role": "user", "content": content}]
        found = tokenizer.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
        assert found == prompt_ids(tokenizer, content, format_name), content
        told = [*asked, {"role": "assistant", "content": "Lake Como."}]
        whole = tokenizer.apply_chat_template(told)["input_ids"]
        assert whole == document(tokenizer, content, "Lake Como.", format_name, source="s", row=0).ids
    with pytest.raises(TemplateError, match="turns of user and assistant only"):
        tokenizer.apply_chat_template([{"role": "system", "content": "Be brief."}])


def _tokenizer(folder: Path, bos: bool) -> Any:
    """The embedded world's tokenizer, which may put a token before every text."""
    raw = json.loads((SHIPPED / "tokenizer.json").read_text(encoding="utf-8"))
    settings = json.loads((SHIPPED / "tokenizer_config.json").read_text(encoding="utf-8"))
    if bos:
        (token,) = [one for one in raw["added_tokens"] if one["content"] == settings["eos_token"]]
        single = [{"SpecialToken": {"id": token["content"], "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
        ids = {token["content"]: {"id": token["content"], "ids": [token["id"]], "tokens": [token["content"]]}}
        pair = [*single, {"Sequence": {"id": "B", "type_id": 0}}]
        raw["post_processor"] = {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": ids}
    (folder / "tokenizer.json").write_text(json.dumps(raw), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return load_tokenizer(folder)
