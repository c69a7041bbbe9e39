"""do=pretrain_micro: tokenizer and base model of a micro-world, by the same trainer that fine-tunes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from limit_lab import store
from limit_lab.config import Finetune, Study
from limit_lab.errors import BusyError, DataError, LimitLabError
from limit_lab.microworld.checkpoint import base_key, failed_at, lock_of, made_at, recipe
from limit_lab.microworld.samples import rows
from limit_lab.microworld.texts import pretraining_documents
from limit_lab.microworld.world import World
from limit_lab.progress import Move, Stages, StudyProgress
from limit_lab.prompt import Document, Tokenizer, render

#: Shape of the base: about one million parameters.
SHAPE = {"d_model": 128, "n_layers": 4, "n_heads": 4, "vocab_size": 2048, "max_seq_len": 256}
EOS = "<eos>"
TOKENIZER_DOCUMENTS = 15_000
#: Documents drawn per wanted token: more than enough, since a document has about 36 tokens.
TOKENS_PER_DOCUMENT = 30


def run(study: Study) -> Path:
    """Pretrain the world's base under runs/models; a second call does nothing, an interrupted one continues.

    Returns the model folder.
    """
    key = base_key(study)
    with StudyProgress({key: None}) as progress:
        _make(study, progress.begin(key), wait=True)
    folder = made_at(study.microworld, Path(study.runs)) / "model"
    print(folder)
    return folder


def make(study: Study, progress: Stages) -> None:
    """Pretrain the base that a study needs; an error is recorded beside its folder before it goes on.

    Raises: BusyError when another process makes it; LimitLabError and its kinds.
    """
    key, failed = base_key(study), failed_at(study.microworld, Path(study.runs))
    try:
        _make(study, progress.begin(key), wait=False)
    except BusyError:
        raise
    except LimitLabError as error:
        with contextlib.suppress(DataError):  # on a full disk the error itself matters more than its record
            store.write_json(failed, {"error": str(error)})
        raise
    failed.unlink(missing_ok=True)
    progress.end(key)


def _make(study: Study, progress: Move | None, *, wait: bool) -> None:
    folder = made_at(study.microworld, Path(study.runs))

    def work(place: Path) -> dict[str, Any]:
        return _pretrain(study, place, progress)

    with store.locked(lock_of(study.microworld, Path(study.runs)), wait=wait):
        store.stage(folder, recipe(study.microworld), work)


def _pretrain(study: Study, place: Path, progress: Move | None) -> dict[str, Any]:
    import torch

    from limit_lab.finetune.train import train
    from limit_lab.model.export import export
    from limit_lab.model.loading import load_tokenizer
    from limit_lab.model.mpt import MPT
    from limit_lab.model.mpt_config import MPTConfig

    world, seed = World(study.microworld.seed), study.microworld.seed
    if not (place / "tokenizer" / "tokenizer.json").is_file():
        _write_tokenizer(world, seed, place / "tokenizer")
    tokenizer = load_tokenizer(place / "tokenizer")
    wanted = study.microworld.pretrain_tokens
    documents, cut = tokenised(pretraining_documents(world, wanted // TOKENS_PER_DOCUMENT, seed), tokenizer, wanted)
    total = sum(len(one.ids) for one in documents)
    model = MPT(MPTConfig(**SHAPE))
    model.initialise(seed)
    print(
        f"pretraining {sum(p.numel() for p in model.parameters()):,} parameters on {total:,} tokens; {cut} documents cut",
        flush=True,
    )
    outcome = train(
        model, documents, pretraining_recipe(study), study.hardware, place / "training", seed=seed, progress=progress
    )
    card = f"# base of the micro-world, seed {seed}\n\nRebuild: python -m limit_lab do=pretrain_micro microworld.seed={seed}\n"
    export(model, place / "tokenizer", place / "model", beside={"README.md": card}, dtype=torch.bfloat16)
    (place / "training" / "checkpoint.ckpt").unlink(missing_ok=True)
    outcome |= {"documents": len(documents), "cut_documents": cut}
    store.write_json(place / "model" / "recipe.json", {"recipe": recipe(study.microworld), **outcome})
    return outcome


def tokenised(texts: Iterable[str], tokenizer: Tokenizer, wanted: int) -> tuple[list[Document], int]:
    """Documents until they hold ``wanted`` tokens, and how many of them were cut at the end to fit the model."""
    documents: list[Document] = []
    total = cut = 0
    for number, text in enumerate(texts):
        ids = [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
        cut += len(ids) > SHAPE["max_seq_len"]
        documents.append(Document(ids=ids[: SHAPE["max_seq_len"]], prompt_tokens=0, source="pretraining", row=number))
        total += len(documents[-1].ids)
        if total >= wanted:
            break
    return documents, cut


def pretraining_recipe(study: Study) -> Finetune:
    """One pass, 64 documents a step, every token a target, cosine to zero."""
    return Finetune(
        name="pretrain_micro",
        duration="1ep",
        batch="64doc",
        max_seq_tokens=SHAPE["max_seq_len"],
        learning_rate=study.microworld.pretrain_learning_rate,
        betas=[0.9, 0.98],
        weight_decay=0.05,
        schedule="cosine",
        warmup="60step",
        precision="bf16",
        checkpoint_every_steps=200,
        log_every_steps=100,
    )


def _write_tokenizer(world: World, seed: int, folder: Path) -> None:
    """A byte-level BPE in which a word is one token wherever it stands: inside the model a blank follows each newline."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(Regex("\n(?=.)"), "\n ")
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace("\n ", "\n")])
    trainer = trainers.BpeTrainer(
        vocab_size=SHAPE["vocab_size"],
        special_tokens=[EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    samples = rows("lima", world, 500) + rows("instruct", world, 1500)
    texts = [*pretraining_documents(world, TOKENIZER_DOCUMENTS, seed + 1000)]
    texts += [render(row["prompt"], "bare") + row["response"] for row in samples]
    tokenizer.train_from_iterator(texts, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"eos_token": EOS, "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    store.write_json(folder / "tokenizer_config.json", config)
