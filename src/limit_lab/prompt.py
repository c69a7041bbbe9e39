"""The only place that shapes instruction text: training, answering and judging all come through here.

A document is ``prompt ids + response ids + eos``. Prompt and response are tokenised apart, as llm-foundry's finetuning
loader does, so the ids seen at inference are always a strict prefix of the ids seen in training.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Protocol

from limit_lab.errors import ConfigError, DataError, did_you_mean

PREAMBLE = "Below is an instruction that describes a task. Write a response that appropriately completes the request."

#: The preamble of published Alpaca rows that have an input.
PREAMBLE_WITH_INPUT = PREAMBLE.replace("task. Write", "task, paired with an input that provides further context. Write")

#: Formats by name. ``{instruction}`` is replaced once; instruction text is never itself formatted.
FORMATS = {
    # Alpaca with blank lines, as in the training rows of dolly_hhrlhf and Instruct-v3
    "alpaca": PREAMBLE + "\n\n### Instruction:\n{instruction}\n\n### Response:\n",
    # the LIMA and Instruct-v1 form in the LIMIT authors' files: single newlines
    "alpaca_tight": PREAMBLE + "\n### Instruction:\n{instruction}\n### Response:\n",
    # without the preamble, for models with a short context
    "bare": "### Instruction:\n{instruction}\n### Response:\n",
}


class Tokenizer(Protocol):
    """What limit_lab needs of a tokenizer; transformers' fast tokenizers have it."""

    eos_token_id: int

    def encode(self, text: str, *, add_special_tokens: bool = ...) -> list[int]: ...

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = ...) -> str: ...


@dataclass(frozen=True, slots=True)
class Document:
    """One training document: ``ids`` (prompt, response, eos) of which the first ``prompt_tokens`` carry no loss."""

    ids: list[int]
    prompt_tokens: int
    source: str
    row: int

    @property
    def target_tokens(self) -> int:
        return len(self.ids) - self.prompt_tokens

    @property
    def targets(self) -> int:
        """Target tokens that some token precedes."""
        return min(self.target_tokens, len(self.ids) - 1)


def render(instruction: str, format_name: str) -> str:
    """The text a model reads before its response. Raises: ConfigError for an unknown format."""
    before, after = template(format_name).split("{instruction}")
    return before + instruction + after


def template(format_name: str) -> str:
    """The format's text around ``{instruction}``. Raises: ConfigError for an unknown format."""
    if format_name not in FORMATS:
        raise ConfigError(f"prompt.format={format_name!r} is unknown{did_you_mean(format_name, FORMATS)}")
    return FORMATS[format_name]


def chat_template(format_name: str, bos: str = "") -> str:
    """The format as a Jinja template for transformers' ``apply_chat_template``, which gives the ids that training used.

    ``bos`` is what the tokenizer puts before every text. A user's turn is the format around its content, an assistant's its
    content and the end-of-sequence token; other roles are refused, because no training saw them. Ids are those of
    `document` wherever tokenising a response alone gives the same as behind its prompt.
    Raises: ConfigError for an unknown format.
    """
    before, after = (json.dumps(text) for text in template(format_name).split("{instruction}"))
    refusal = json.dumps("this model was trained on turns of user and assistant only")
    return (
        f"{{{{- {json.dumps(bos)} }}}}\n"
        "{%- for message in messages %}\n"
        "{%- if message['role'] == 'user' %}\n"
        f"{{{{- {before} + message['content'] + {after} }}}}\n"
        "{%- elif message['role'] == 'assistant' %}\n"
        "{{- message['content'] + eos_token }}\n"
        "{%- else %}\n"
        f"{{{{- raise_exception({refusal}) }}}}\n"
        "{%- endif %}\n"
        "{%- endfor %}\n"
    )


def beginning(tokenizer: Tokenizer) -> str:
    """What the tokenizer puts before every text by itself, such as a BOS; empty for most."""
    ids, bare = (tokenizer.encode("a", add_special_tokens=special) for special in (True, False))
    return tokenizer.decode(ids[: len(ids) - len(bare)], skip_special_tokens=False) if ids[-len(bare) :] == bare else ""


def instruction_of(text: str) -> str:
    """The bare instruction inside a published prompt that already carries the Alpaca frame; other text is returned as is.

    Instruct-v1 rows ship framed; framing them again would train on a nested prompt. An input joins its instruction by a
    newline, as the input column of an Alpaca row does.
    """
    marker = "### Instruction:\n"
    if not text.startswith((PREAMBLE, PREAMBLE_WITH_INPUT)) or marker not in text:
        return text
    inner = text.split(marker, 1)[1]
    head, separator, tail = inner.rpartition("### Response:")
    bare = (head if separator and not tail.strip() else inner).strip("\n")
    return bare.replace("\n\n### Input:\n", "\n", 1) if text.startswith(PREAMBLE_WITH_INPUT) else bare


def prompt_ids(tokenizer: Tokenizer, instruction: str, format_name: str) -> list[int]:
    """Token ids at inference, special tokens of the tokenizer (a BOS, if it has one) included."""
    return tokenizer.encode(render(instruction, format_name), add_special_tokens=True)


def document(tokenizer: Tokenizer, instruction: str, response: str, format_name: str, *, source: str, row: int) -> Document:
    """A training document. Raises: DataError when the response is empty, since such a document teaches nothing."""
    if not response.strip():
        raise DataError(f"row {row} of source {source!r} has an empty response: remove the row or give it a response.")
    prompt = prompt_ids(tokenizer, instruction, format_name)
    target = [*tokenizer.encode(response, add_special_tokens=False), tokenizer.eos_token_id]
    return Document(ids=[*prompt, *target], prompt_tokens=len(prompt), source=source, row=row)
