"""Documents into rows of one length, each document's boundary kept.

A document longer than a row is cut into full rows; what remains of it, and shorter documents, go into rows together: longest
first, each into the row where it leaves least room (best-fit decreasing). Nothing is thrown away and nothing is joined: in a
pack no document sees another. What is left of a row is padding that nobody learns from.

With `apart` each document, and each row's worth of a longer one, has a row of its own: for models whose attention would let
the documents of a pack see each other, or whose numbers change with the length of the text.

Given up: the smallest number of rows, which is hard to find; best-fit decreasing needs at most 11/9 of it and a few rows.
"""

import heapq
from bisect import bisect_left, insort

import numpy as np
from numpy.typing import NDArray

Pieces = NDArray[np.int64]
"""[num_pieces, 4]: row, document, start, stop; rows rising."""


def pack(kept: NDArray[np.int64], length: int, *, apart: bool = False) -> Pieces:
    """The rows for the first `kept[d]` tokens of every document d. The same for the same numbers, always."""
    full = kept // length
    documents = np.repeat(np.arange(kept.size), full)
    which = np.arange(documents.size) - np.repeat(np.cumsum(full) - full, full)
    whole = np.stack([np.arange(documents.size), documents, which * length, (which + 1) * length], axis=1)
    rest = kept - full * length
    order = np.flatnonzero(rest)
    order = order[np.argsort(-rest[order], kind="stable")]
    rows = list(range(order.size)) if apart else best_fit(rest[order].tolist(), length)
    tail = [
        (documents.size + row, d, int(full[d]) * length, int(kept[d])) for row, d in zip(rows, order.tolist(), strict=True)
    ]
    tail.sort(key=lambda piece: piece[0])
    return np.concatenate([whole, np.asarray(tail, dtype=np.int64).reshape(-1, 4)]).astype(np.int64)


def best_fit(sizes: list[int], room: int) -> list[int]:
    """The row of each size: the fullest that it fits, the oldest of several as full, else a new one."""
    open_rows: dict[int, list[int]] = {}
    rooms: list[int] = []
    found, num_rows = [], 0
    for size in sizes:
        at = bisect_left(rooms, size)
        if at == len(rooms):
            row, left, num_rows = num_rows, room, num_rows + 1
        else:
            left = rooms[at]
            row = heapq.heappop(open_rows[left])
            if not open_rows[left]:
                del open_rows[left], rooms[at]
        left -= size
        if left > 0:
            if left not in open_rows:
                open_rows[left] = []
                insort(rooms, left)
            heapq.heappush(open_rows[left], row)
        found.append(row)
    return found
