"""From a mixture to tokenised documents, and the card that says what went in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from limit_lab.config import Study
from limit_lab.errors import DataError
from limit_lab.mixture.facts import fact_counts
from limit_lab.mixture.packing import first_fit
from limit_lab.mixture.selection import draw, held_out
from limit_lab.mixture.sources import Row, Rows, read
from limit_lab.mixture.weights import loss_shares
from limit_lab.prompt import Document, Tokenizer, document


@dataclass(frozen=True, slots=True)
class Mixed:
    """The documents of a cell in a fixed order, those held out by source, and their card."""

    documents: list[Document]
    held_out: dict[str, list[Document]]
    card: dict[str, Any]


def mix(study: Study, tokenizer: Tokenizer) -> Mixed:
    """Draw, shape and tokenise the study's mixture.

    Raises: DataError when a source is short of rows, a response is empty, a document is too long for
    ``finetune.on_too_long=error``, or every document was dropped for its length.
    """
    documents: list[Document] = []
    sources: dict[str, dict[str, Any]] = {}
    apart: dict[str, list[Document]] = {}
    for name, count in study.mixture.samples.items():
        available = read(name, study.data, world_seed=study.microworld.seed)
        drawn = draw(available.rows, count, source=name, seed=study.seeds.subset)
        made = [_document(row, name, study, tokenizer) for row in drawn]
        kept, fate = _fit(made, study.finetune.max_seq_tokens, study.finetune.on_too_long)
        documents += kept
        apart[name] = _held_out(available, count, name, study, tokenizer)
        card = _source_card(available, drawn, kept, fate, study.data.sources[name].licence)
        sources[name] = {**card, "held_out": len(apart[name])}
    if sources and not documents:
        raise DataError(
            f"mixture={study.mixture.name}: all samples are longer than finetune.max_seq_tokens="
            f"{study.finetune.max_seq_tokens} and were dropped: raise it."
        )
    return Mixed(documents=documents, held_out=apart, card=_card(documents, sources, study))


def _held_out(available: Rows, drawn: int, source: str, study: Study, tokenizer: Tokenizer) -> list[Document]:
    """Documents that are never trained on; too long ones are cut as the mixture's are, or left out."""
    recipe, seed = study.finetune, study.seeds.subset
    rest = held_out(available.rows, recipe.held_out, drawn=drawn, source=source, seed=seed)
    made = [_document(row, source, study, tokenizer) for row in rest]
    return _fit(made, recipe.max_seq_tokens, "drop" if recipe.on_too_long == "error" else recipe.on_too_long)[0]


def _document(row: Row, source: str, study: Study, tokenizer: Tokenizer) -> Document:
    return document(tokenizer, row.prompt, row.response, study.prompt.format, source=source, row=row.index)


def _fit(made: Sequence[Document], limit: int, policy: str) -> tuple[list[Document], dict[str, int]]:
    """Apply on_too_long. truncate_tail cuts the end of the response, truncate_head its beginning (as llm-foundry did up to
    v0.3, and so LIMIT); a prompt that leaves no target is dropped.
    """
    kept, fate = [], {"dropped": 0, "truncated": 0}
    for one in made:
        if len(one.ids) <= limit:
            kept.append(one)
        elif policy == "error":
            raise DataError(
                f"row {one.row} of source {one.source!r} has {len(one.ids)} tokens, finetune.max_seq_tokens is {limit}: "
                "raise it, or set finetune.on_too_long=drop (or truncate_tail, truncate_head)."
            )
        elif policy == "drop" or one.prompt_tokens >= limit:
            fate["dropped"] += 1
        else:
            fate["truncated"] += 1
            kept.append(replace(one, ids=_cut(one, limit, policy)))
    return kept, fate


def _cut(one: Document, limit: int, policy: str) -> list[int]:
    """``limit`` ids: the prompt, and as much of the response as there is room for."""
    if policy == "truncate_tail":
        return one.ids[:limit]
    return one.ids[: one.prompt_tokens] + one.ids[one.prompt_tokens - limit :]


def _source_card(
    available: Rows, drawn: Sequence[Row], kept: Sequence[Document], fate: dict[str, int], licence: str
) -> dict[str, Any]:
    taken = {one.row for one in kept}
    return {
        "available": len(available.rows),
        "left_out": available.left_out,
        "kept": len(kept),
        **fate,
        "tokens": sum(len(one.ids) for one in kept),
        "target_tokens": sum(one.target_tokens for one in kept),
        **fact_counts([row for row in drawn if row.index in taken], available.rows),
        "licence": licence,
        "sha256": available.sha256,
    }


def _card(documents: Sequence[Document], sources: dict[str, dict[str, Any]], study: Study) -> dict[str, Any]:
    tokens = sum(len(one.ids) for one in documents)
    targets = sum(one.target_tokens for one in documents)
    shares = loss_shares(documents, study.finetune.loss)
    for source, card in sources.items():
        card["document_share"] = card["kept"] / len(documents)
        card["token_share"] = card["tokens"] / tokens
        card["loss_share"] = shares.get(source, 0.0)
    card = {"documents": len(documents), "tokens": tokens, "target_tokens": targets, "sources": sources}
    if documents:
        packed = study.finetune.rows == "packed"
        packs = len(first_fit([len(one.ids) for one in documents], study.finetune.max_seq_tokens)) if packed else len(documents)
        card |= {"packs": packs, "fill": tokens / (packs * study.finetune.max_seq_tokens)}
    return {**card, "prompt_format": study.prompt.format}
