"""A training of seconds for the tests: a random MPT, documents of two sources, and a recipe of six steps."""

from __future__ import annotations

import random
from dataclasses import replace

from limit_lab.config import Finetune, Hardware
from limit_lab.finetune.observe import Prompts, Watch
from limit_lab.model.mpt import MPT, MPTConfig
from limit_lab.prompt import Document
from limit_lab.shapes import Shape

CPU = Hardware(name="cpu", micro_batch="3doc", tflops=0.001)
SHAPE = MPTConfig(d_model=16, n_layers=2, n_heads=2, vocab_size=40, max_seq_len=64)
SIZES = Shape(
    kind="mpt", d_model=16, n_layers=2, n_heads=2, vocab_size=40, parameters=6864, body=2 * 12 * 256, vocabulary=640, linear={}
)


class Letters:
    """A tokenizer whose ids are written as numbers; 0 ends a text."""

    eos_token_id = 0

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = True) -> str:
        return " ".join(str(one) for one in token_ids if one or not skip_special_tokens)


def model() -> MPT:
    made = MPT(SHAPE)
    made.initialise(3)
    return made


def some_documents(count: int = 21, seed: int = 7) -> list[Document]:
    rng = random.Random(seed)
    made = []
    for row in range(count):
        ids = [rng.randrange(1, 40) for _ in range(rng.randint(4, 20))]
        made.append(Document(ids=ids, prompt_tokens=rng.randint(1, len(ids) - 2), source="ab"[row % 2], row=row))
    return made


def recipe(**changes: object) -> Finetune:
    """Six steps of eight documents, the third and sixth with what is left of the 21."""
    made = Finetune(
        name="test",
        duration="2ep",
        batch="8doc",
        max_seq_tokens=32,
        learning_rate=1e-2,
        warmup="2step",
        precision="fp32",
        log_every_steps=2,
    )
    return replace(made, **changes)


def watch() -> Watch:
    apart = some_documents(10, seed=8)
    held_out = {source: [one for one in apart if one.source == source] for source in "ab"}
    return Watch(
        shape=SIZES, held_out={**held_out, "empty": []}, prompts=Prompts(ids=[[5, 6], [7], [8, 9, 1]], tokenizer=Letters())
    )
