"""First-fit packing of whole documents into rows of a fixed length; a document is never cut."""

from __future__ import annotations

from collections.abc import Sequence

from limit_lab.errors import DataError


def first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Rows of document indices: each document goes into the first row with room, in the order given.

    A tree over the rows holds the most room below each of its nodes, so a document finds its row in O(log rows).
    Raises: DataError for a document longer than ``capacity`` tokens.
    """
    leaves = 1 << max(len(lengths) - 1, 0).bit_length()
    room = [capacity] * (2 * leaves)
    rows: list[list[int]] = []
    for index, length in enumerate(lengths):
        if length > capacity:
            raise DataError(
                f"document {index} has {length} tokens and a pack holds {capacity}: raise finetune.max_seq_tokens "
                "or set finetune.on_too_long=drop (or truncate_tail)."
            )
        node = 1
        while node < leaves:
            node *= 2
            if room[node] < length:
                node += 1
        if node - leaves == len(rows):
            rows.append([])
        rows[node - leaves].append(index)
        room[node] -= length
        while node > 1:
            node //= 2
            most = max(room[2 * node], room[2 * node + 1])
            if room[node] == most:
                break
            room[node] = most
    return rows
