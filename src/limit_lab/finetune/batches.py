"""Batches as a pure function of (documents, seed, step): nothing to store, so a resumed run sees exactly the same data.

A step takes ``48doc`` documents in the epoch's shuffled order, the partial last batch too unless it is dropped; or, with a
batch in tokens, rows of an epoch that was packed as a whole and shuffled again. A step is cut into micro-batches, each packed
first-fit into rows. What a target counts is decided over the whole step (`limit_lab.mixture.weights`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from limit_lab.durations import Batch
from limit_lab.errors import DataError
from limit_lab.mixture.packing import first_fit
from limit_lab.mixture.weights import document_weights
from limit_lab.prompt import Document
from limit_lab.recipe import Finetune, Loss

#: Label of positions without a target (PyTorch's convention).
IGNORE = -100


class MicroBatch(NamedTuple):
    """Packed rows: ids, labels and document index (-1: padding), int64 [rows, tokens]; weights of the targets, float32.

    ``targets`` counts those of the whole step, over which the weights sum to 1.
    """

    ids: Tensor
    labels: Tensor
    document: Tensor
    weights: Tensor
    targets: int


def pack(
    documents: Sequence[Document], weights: Sequence[float], capacity: int, targets: int, *, padded: bool = False
) -> MicroBatch:
    """Pack documents into rows no longer than needed; ``padded``: each alone in a row of ``capacity``.

    ``labels[r, t]`` is the token to be predicted at position t, and ``weights[r, t]`` what that counts.
    """
    if padded:
        rows, width = [[index] for index in range(len(documents))], capacity
    else:
        rows = first_fit([len(one.ids) for one in documents], capacity)
        width = max((sum(len(documents[index].ids) for index in row) for row in rows), default=1)
    shape = (max(len(rows), 1), width)
    ids = torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORE, dtype=torch.long)
    owner = torch.full(shape, -1, dtype=torch.long)
    weight = torch.zeros(shape)
    for place, row in enumerate(rows):
        start = 0
        for index in row:
            one = documents[index]
            end = start + len(one.ids)
            ids[place, start:end] = torch.tensor(one.ids)
            owner[place, start:end] = index
            first = end - 1 - one.targets
            labels[place, first : end - 1] = ids[place, first + 1 : end]
            weight[place, first : end - 1] = weights[index]
            start = end
    return MicroBatch(ids=ids, labels=labels, document=owner, weights=weight, targets=targets)


class Batches(Dataset[MicroBatch]):
    """All micro-batches of a run, addressed by ``step * accumulation + part``.

    Raises: DataError when dropping the partial last batch drops everything.
    """

    def __init__(
        self,
        documents: Sequence[Document],
        *,
        steps: int,
        batch: Batch,
        micro_batch: int,
        capacity: int,
        seed: int,
        loss: Loss | None = None,
        padded: bool = False,
        drop_last: bool = False,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.documents = documents
        self.steps = steps
        self.batch = batch
        self.capacity = capacity
        self.seed = seed
        self.loss = loss or Loss()
        self.padded = padded
        tokens = sum(len(one.ids) for one in documents)
        self.steps_per_epoch = batch.epoch(len(documents), tokens, drop=drop_last)
        if not self.steps_per_epoch:
            raise DataError(
                f"{len(documents)} documents fill no batch of {batch.amount}{batch.unit}: use finetune.last_batch=train, or a "
                "smaller finetune.batch."
            )
        self._epoch: tuple[int, list[list[int]]] = (-1, [])
        self.rank = rank
        self.ranks = ranks
        self.accumulation = -(-self._most() // (micro_batch * ranks))

    @classmethod
    def of(
        cls,
        documents: Sequence[Document],
        recipe: Finetune,
        *,
        steps: int,
        micro_batch: int,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
    ) -> Batches:
        """The batches of a recipe, as far as they are this rank's."""
        return cls(
            documents,
            steps=steps,
            batch=Batch.parse(recipe.batch, name="finetune.batch"),
            micro_batch=micro_batch,
            capacity=recipe.max_seq_tokens,
            seed=seed,
            loss=recipe.loss,
            padded=recipe.rows == "padded",
            drop_last=recipe.last_batch == "drop",
            rank=rank,
            ranks=ranks,
        )

    def _most(self) -> int:
        """Documents of the largest step."""
        if self.batch.unit == "doc":
            return min(self.batch.amount, len(self.documents))
        epochs = range(-(-self.steps // self.steps_per_epoch))
        return max(len(step) for epoch in epochs for step in self.of_epoch(epoch))

    def __len__(self) -> int:
        return self.steps * self.accumulation

    def of_step(self, step: int) -> list[Document]:
        """The documents of one optimizer step."""
        epoch, position = divmod(step, self.steps_per_epoch)
        return [self.documents[index] for index in self.of_epoch(epoch)[position]]

    def of_epoch(self, epoch: int) -> list[list[int]]:
        """Document indices of every step of an epoch; the last epoch is kept, since shuffling costs more than a step."""
        if self._epoch[0] != epoch:
            generator = random.Random(f"order:{self.seed}:{epoch}")
            order = list(range(len(self.documents)))
            generator.shuffle(order)
            self._epoch = (epoch, self._cut(order, generator))
        return self._epoch[1]

    def _cut(self, order: list[int], generator: random.Random) -> list[list[int]]:
        count = self.steps_per_epoch
        if self.batch.unit == "doc":
            size = self.batch.amount
            return [order[step * size : (step + 1) * size] for step in range(count)]
        packs = first_fit([len(self.documents[index].ids) for index in order], self.capacity)
        generator.shuffle(packs)
        ends = [len(packs) * step // count for step in range(count + 1)]
        return [[order[place] for row in packs[start:end] for place in row] for start, end in pairwise(ends)]

    def __getitem__(self, index: int) -> MicroBatch:
        step, part = divmod(index, self.accumulation)
        documents = self.of_step(step)
        weights, own = document_weights(documents, self.loss), self._own(documents, part)
        targets = sum(one.targets for one in documents)
        chosen = [documents[place] for place in own]
        return pack(chosen, [weights[place] for place in own], self.capacity, targets, padded=self.padded)

    def _own(self, documents: Sequence[Document], part: int) -> Sequence[int]:
        """Places of a part's documents in their step. Ranks wait for one another, so those of one part get alike lengths."""
        if self.ranks == 1:
            return range(part, len(documents), self.accumulation)
        by_length = sorted(range(len(documents)), key=lambda place: (-len(documents[place].ids), place))
        rows = range(0, len(by_length), self.ranks)
        found = []
        for turn, start in enumerate(rows[part :: self.accumulation]):  # every other row is dealt backwards
            seat = self.rank if turn % 2 == 0 else self.ranks - 1 - self.rank
            found += by_length[start : start + self.ranks][seat : seat + 1]
        return found


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
