"""Streams of rows for the tests of training, made from a seed alone."""

import numpy as np

from ropewalk.data.rows import Row, make_row


class Counting:
    """Rows of a sequence that repeats with a random period, so that there is something to learn."""

    def __init__(self, window: int, *, num_rows: int = 64, seed: int = 0, documents: int = 1) -> None:
        self.window, self.num_rows, self.seed, self.documents = window, num_rows, seed, documents

    def row(self, index: int) -> Row:
        rng = np.random.default_rng((self.seed, index))
        sizes = np.full(self.documents, self.window // self.documents)
        sizes[-1] += self.window - sizes.sum()
        pieces = []
        for size in sizes:
            period = rng.integers(2, 200, size=int(rng.integers(3, 7)))
            ids = np.resize(period, int(size)).astype(np.int64)
            pieces.append((ids, np.ones(ids.size, dtype=np.bool_)))
        return make_row(pieces)

    def __len__(self) -> int:
        return self.num_rows


class Unequal(Counting):
    """Every second row has three learned tokens only."""

    def row(self, index: int) -> Row:
        row = super().row(index)
        if index % 2:
            row.labels[4:] = -100
        return row


class Unlabelled(Counting):
    """Of 32 rows the first 16 have nothing to learn."""

    def row(self, index: int) -> Row:
        row = super().row(index)
        if index % 32 < 16:
            row.labels[:] = -100
        return row
