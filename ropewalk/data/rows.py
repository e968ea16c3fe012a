"""A row: what one sequence of a training batch holds.

Labels stand at their own token's place and are not shifted. The first token of a document has nothing before it that
predicts it, so it is never learned: a pack would otherwise learn each document's beginning from the end of another.
Padding is no document: it stands at a row's end, under an id of its own, so that nothing sees it and nobody learns from it,
and all of it at position 0, so that a model whose numbers follow the largest position follows the text's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NOT_LEARNED = -100
"""The label of a token that nothing is learned from: what torch's cross entropy ignores."""


@dataclass(frozen=True, eq=False)
class Row:
    """One sequence, or several documents packed into one."""

    ids: NDArray[np.int64]
    """[T] token ids."""
    labels: NDArray[np.int64]
    """[T] the id at its own place, or -100 where nothing is learned. Not shifted."""
    position_ids: NDArray[np.int64]
    """[T]"""
    document_ids: NDArray[np.int64]
    """[T] 0,0,..,1,1,..: rising from 0 without a gap; padding has the last id to itself."""
    num_padding: int = 0
    """How many tokens at the end are padding."""

    @property
    def num_tokens(self) -> int:
        """Tokens of text, padding left out."""
        return int(self.ids.size) - self.num_padding

    @property
    def num_documents(self) -> int:
        """Documents in it; padding is none."""
        return int(self.document_ids[self.num_tokens - 1]) + 1 if self.num_tokens else 0


def make_row(pieces: Sequence[tuple[NDArray[np.int64], NDArray[np.bool_]]], *, length: int = 0, pad_id: int = 0) -> Row:
    """A row of documents, each given as (ids, which of them are learned), padded to `length` tokens."""
    given = [(ids, learned) for ids, learned in pieces if ids.size]
    short = max(0, length - sum(ids.size for ids, _ in given))
    if short:
        given.append((np.full(short, pad_id, dtype=np.int64), np.zeros(short, dtype=np.bool_)))
    labels = []
    for ids, learned in given:
        kept = learned.copy()
        kept[0] = False
        labels.append(np.where(kept, ids, NOT_LEARNED))
    empty = np.zeros(0, dtype=np.int64)
    places = [np.arange(ids.size) for ids, _ in given]
    if short:
        places[-1] = np.zeros(short, dtype=np.int64)
    return Row(
        ids=np.concatenate([empty, *(ids for ids, _ in given)]).astype(np.int64),
        labels=np.concatenate([empty, *labels]).astype(np.int64),
        position_ids=np.concatenate([empty, *places]).astype(np.int64),
        document_ids=np.repeat(np.arange(len(given)), [ids.size for ids, _ in given]).astype(np.int64),
        num_padding=short,
    )
