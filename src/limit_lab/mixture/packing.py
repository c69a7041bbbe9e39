"""First-fit packing of whole documents into rows of a fixed length; a document is never cut."""

from __future__ import annotations

from collections.abc import Sequence

from limit_lab.errors import DataError


def first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Rows of document indices: each document goes into the first row with room, in the order given.

    Raises: DataError for a document longer than ``capacity`` tokens.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for index, length in enumerate(lengths):
        if length > capacity:
            raise DataError(
                f"document {index} has {length} tokens and a pack holds {capacity}: raise finetune.max_seq_tokens "
                "or set finetune.on_too_long=drop (or truncate)."
            )
        place = next((row for row, left in enumerate(room) if left >= length), None)
        if place is None:
            rows.append([index])
            room.append(capacity - length)
        else:
            rows[place].append(index)
            room[place] -= length
    return rows
