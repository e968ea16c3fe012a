"""Rows of one window, each inside one document: the same text whatever the window, so that arms differ in nothing else.

Only documents that hold the longest window are in the corpus, and a document's tail that fills no row is left out. PoSE's
positions are drawn here, from the seed and the row's number alone.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.miniature.corpus import Corpus
from ropewalk.data.positions import pose
from ropewalk.data.rows import Row, make_row


class Windows:
    """A stream of rows for `ropewalk.tune`: row i is a function of the seed and i."""

    packed = False

    def __init__(
        self,
        corpus: Corpus,
        window: int,
        *,
        seed: int,
        positions: str = "full",
        target_length: int | None = None,
        first: int = 0,
    ) -> None:
        self.corpus, self.window, self.seed = corpus, window, seed
        self.positions, self.first = positions, first
        self.target_length = target_length or window
        self.fingerprint = f"{corpus.fingerprint}-{window}-{seed}-{positions}-{self.target_length}-{first}"
        starts, ends = np.concatenate([[0], corpus.ends[:-1]]), corpus.ends
        self.starts: NDArray[np.int64] = np.concatenate(
            [np.arange(low, high - window + 1, window) for low, high in zip(starts, ends, strict=True)]
        )

    def __len__(self) -> int:
        """Rows of one epoch."""
        return int(self.starts.size)

    def row(self, index: int) -> Row:
        """Row `index` after the first ones; those beyond an epoch come in another order."""
        index += self.first
        epoch, at = divmod(index, len(self))
        start = int(self.starts[np.random.default_rng([self.seed, 3, epoch]).permutation(len(self))[at]])
        ids = self.corpus.train[start : start + self.window].astype(np.int64)
        row = make_row([(ids, np.ones(ids.size, dtype=np.bool_))], length=self.window)
        if self.positions != "pose":
            return row
        return pose(row, self.target_length, np.random.default_rng([self.seed, 4, index]))


def streams(corpus: Corpus, *, seed: int, positions: str = "full", target_length: int | None = None, first: int = 0) -> Any:
    """What `ropewalk.tune` takes as data: from a window to its rows. `first` rows have been read before."""

    def of(window: int, *_: Any, **__: Any) -> Windows:
        return Windows(corpus, window, seed=seed, positions=positions, target_length=target_length, first=first)

    return of
