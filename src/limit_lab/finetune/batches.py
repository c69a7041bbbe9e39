"""Batches as a pure function of (documents, seed, step): nothing to store, so a resumed run sees exactly the same data.

A step takes ``batch`` documents in the epoch's shuffled order (the partial last batch too). It is cut into micro-batches,
each packed first-fit into rows; every micro-batch knows the number of targets of its whole step, the loss's divisor.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from limit_lab.mixture.packing import first_fit
from limit_lab.prompt import Document

#: Label of positions without a target (PyTorch's convention).
IGNORE = -100


class MicroBatch(NamedTuple):
    """Packed rows: ids, labels and document index, int64 [rows, tokens]; ``targets`` counts those of the whole step."""

    ids: Tensor
    labels: Tensor
    document: Tensor
    targets: int


def pack(documents: Sequence[Document], capacity: int, targets: int) -> MicroBatch:
    """Pack documents into rows no longer than needed. ``labels[r, t]`` is the token to be predicted at position t."""
    rows = first_fit([len(one.ids) for one in documents], capacity)
    width = max((sum(len(documents[index].ids) for index in row) for row in rows), default=1)
    shape = (max(len(rows), 1), width)
    ids = torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORE, dtype=torch.long)
    owner = torch.full(shape, -1, dtype=torch.long)
    for place, row in enumerate(rows):
        start = 0
        for index in row:
            one = documents[index]
            end = start + len(one.ids)
            ids[place, start:end] = torch.tensor(one.ids)
            owner[place, start:end] = index
            first = max(start + one.prompt_tokens - 1, start)
            labels[place, first : end - 1] = ids[place, first + 1 : end]
            start = end
    return MicroBatch(ids=ids, labels=labels, document=owner, targets=targets)


class Batches(Dataset[MicroBatch]):
    """All micro-batches of a run, addressed by ``step * accumulation + part``."""

    def __init__(
        self, documents: Sequence[Document], *, steps: int, batch: int, micro_batch: int, capacity: int, seed: int
    ) -> None:
        self.documents = documents
        self.steps = steps
        self.batch = min(batch, len(documents))
        self.accumulation = -(-self.batch // micro_batch)
        self.capacity = capacity
        self.seed = seed
        self.steps_per_epoch = -(-len(documents) // self.batch)
        self._shuffled: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        return self.steps * self.accumulation

    def of_step(self, step: int) -> list[Document]:
        """The documents of one optimizer step."""
        epoch, position = divmod(step, self.steps_per_epoch)
        chosen = self.order(epoch)[position * self.batch : (position + 1) * self.batch]
        return [self.documents[index] for index in chosen]

    def order(self, epoch: int) -> list[int]:
        """The epoch's shuffled document indices; the last one asked for is kept, since shuffling costs more than a step."""
        if self._shuffled[0] != epoch:
            order = list(range(len(self.documents)))
            random.Random(f"order:{self.seed}:{epoch}").shuffle(order)
            self._shuffled = (epoch, order)
        return self._shuffled[1]

    def __getitem__(self, index: int) -> MicroBatch:
        step, part = divmod(index, self.accumulation)
        documents = self.of_step(step)
        targets = sum(min(one.target_tokens, len(one.ids) - 1) for one in documents)
        return pack(documents[part :: self.accumulation], self.capacity, targets)


class FromStep(Sampler[int]):
    """Indices in order from the first micro-batch of a step on."""

    def __init__(self, batches: Batches, step: int) -> None:
        self.batches = batches
        self.step = step

    def __len__(self) -> int:
        # the whole run: a resumed Lightning loop goes on counting from the batches it has already done
        return len(self.batches)

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.step * self.batches.accumulation, len(self.batches)))


class MixtureData(pl.LightningDataModule):
    """Feeds a run its micro-batches, from the step on that the trainer has reached."""

    def __init__(self, batches: Batches) -> None:
        super().__init__()
        self.batches = batches

    def train_dataloader(self) -> DataLoader[MicroBatch]:
        assert self.trainer is not None
        return DataLoader(self.batches, batch_size=None, sampler=FromStep(self.batches, self.trainer.global_step))
