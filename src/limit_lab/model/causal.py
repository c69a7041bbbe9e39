"""What fine-tuning, gauntlet and answers ask of a base model, whichever family it is of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class KeyValues(Protocol):
    """Keys and values of the tokens read so far; belongs to the model that made it."""

    @property
    def tokens(self) -> int:
        """Columns that it holds."""

    def select(self, rows: Tensor, last: int | None = None) -> None:
        """Keep the given batch rows, int64 [n], and of the columns the ``last`` ones."""

    def spread(self, rows: Tensor, lengths: Tensor) -> KeyValues:
        """Another one: the first ``lengths`` tokens of each of the batch ``rows``, aligned at the right; both int64 [n]."""

    def joined(self, other: Any) -> KeyValues:
        """Another one, with the rows of both: those of the one with fewer columns get more at their left."""


class Head(nn.Module):
    """What is done with hidden states and the projection onto the vocabulary, which belongs to other modules.

    A module without parameters, so that a strategy which keeps parameters in pieces (ZeRO-3) gathers that matrix around it.
    """

    def forward(self, hidden: Tensor, work: Callable[[Tensor], Tensor]) -> Tensor:
        return work(hidden)


class CausalLM(nn.Module, ABC):
    """A causal language model. `hidden` and `logits` are apart so that only scored positions are projected."""

    def __init__(self) -> None:
        super().__init__()
        self.head = Head()
        #: Whether what was read once can be continued in several ways (`KeyValues.spread`).
        self.shares = True

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where its weights lie."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Rows of the vocabulary projection."""

    @abstractmethod
    def hidden(
        self,
        ids: Tensor,
        *,
        document: Tensor | None = None,
        left_pad: Tensor | None = None,
        cache: Any = None,
    ) -> Tensor:
        """Final hidden states [batch, tokens, d_model] of int64 ids [batch, tokens].

        ``document`` (int64 [batch, tokens]) keeps packed documents apart, each in one piece; ``left_pad`` (int64 [batch])
        counts the padding at the left of each row, cached tokens included; ``cache`` is one of `new_cache` and is extended
        in place. Right padding needs no mask.
        """

    @abstractmethod
    def run(self, *, attention: str, recompute: bool) -> None:
        """Choose how packed documents are kept apart (``hardware.attention``) and whether blocks are recomputed backward.

        Raises: ModelError for a way that this family does not have.
        """

    @abstractmethod
    def logits(self, hidden: Tensor) -> Tensor:
        """Vocabulary scores [..., vocab_size] of hidden states [..., d_model]."""

    @abstractmethod
    def projection(self) -> Tensor | None:
        """The matrix [vocab_size, d_model] that `logits` multiplies by and nothing else; None where there is more to it."""

    @abstractmethod
    def new_cache(self) -> KeyValues:
        """An empty cache for `hidden`."""

    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """The blocks that hidden states pass one after another; empty where the family does not tell them."""

    @abstractmethod
    def vocabulary(self) -> list[nn.Parameter]:
        """What freezing the embeddings freezes: embedding and vocabulary projection, once where they are tied."""

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """What an export holds, under the names of transformers' layout: the parameters themselves, tied ones once."""

    @abstractmethod
    def write_config(self, folder: Path, dtype: torch.dtype) -> None:
        """Write the config.json of weights that are exported as ``dtype`` to an existing ``folder``; needs no weight."""

    def forward(self, ids: Tensor, *, document: Tensor | None = None) -> Tensor:
        """Vocabulary scores at every position, [batch, tokens, vocab_size]."""
        return self.logits(self.hidden(ids, document=document))
