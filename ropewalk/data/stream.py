"""Rows for training, from a folder of prepared data.

A row is a pure function of (seed, stage, index): its documents come from a permutation drawn for the index's epoch, its
positions from a generator of the index. So a run that goes on at any index sees what it would have seen, and nobody keeps a
state. Indices beyond the folder's rows are later epochs, in another order; another stage of a run has an order of its own,
or goes on where rows of the same length were left (`onward`).
Whoever reads a stream draws nothing and counts no epochs.

Rows without a label, such as the beginning of a conversation that is longer than a row, are left out and counted: a step on
them would cost as much as any other and learn nothing.
"""

import copy
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropewalk.core.errors import InputError, SourceError, near
from ropewalk.data.histogram import share_at_positions_beyond
from ropewalk.data.packing import pack
from ropewalk.data.positions import ORDER, POSITIONS, Seed, drawn, generator
from ropewalk.data.rows import Row, make_row
from ropewalk.data.shards import Documents, read_shards

CARD, KEPT, SHARDS = "card.json", "kept.npy", "shards"


class Stream:
    """Rows of one length, in an order of the seed. Open one with `Stream.open`."""

    def __init__(
        self, documents: Documents, pieces: NDArray[np.int64], *, length: int, pad_id: int, seed: Seed, positions: str,
        target_length: int, num_chunks: int, fingerprint: str,
    ) -> None:  # fmt: skip
        self.documents = documents
        self.length = length
        self.pad_id = pad_id
        self.seed = seed
        self.positions = positions
        self.target_length = target_length
        self.num_chunks = num_chunks
        self.fingerprint = fingerprint
        """Changes where anything in the data does: what a run that goes on is held against."""
        self._pieces = pieces
        self._first = np.searchsorted(pieces[:, 0], np.arange(int(pieces[-1, 0]) + 2 if pieces.size else 1))
        # A jump says something inside one document only, and a short row shows fewer distances.
        fits = (positions == "full") | (pieces[self._first[:-1], 3] - pieces[self._first[:-1], 2] == length)
        labels = have_labels(documents, pieces)
        self._rows = np.flatnonzero(fits & labels)
        self.num_rows_left_out = int((~fits).sum())
        """Rows that the positions cannot use."""
        self.num_rows_without_labels = int((fits & ~labels).sum())
        """Rows besides those that have nothing to learn."""
        self.packed = bool((np.diff(self._first)[self._rows] > 1).any())
        """Whether any row holds more than one document."""
        self._start = 0
        self._epoch: tuple[int, NDArray[np.int64]] | None = None

    def onward(self, seed: Seed, start: int) -> "Stream":
        """The same rows in the order of `seed`, counted from row `start` of it."""
        other = copy.copy(self)
        other.seed, other._start, other._epoch = seed, start, None
        return other

    @classmethod
    def open(
        cls, path: str | Path, *, seed: Seed = 0, length: int | None = None, positions: str = "full",
        target_length: int | None = None, num_chunks: int = 2, apart: bool = False,
    ) -> "Stream":  # fmt: skip
        """The stream of a folder that `ropewalk data` made. Another `length` than the folder's packs its documents anew;
        `apart` gives each document rows of its own. `seed` is a number, or that and the stage of a run.

        `positions` `pose` and `randomized` need a `target_length`, and use rows that one document fills.
        Rows without a label are left out. Raises `SourceError` for what is no such folder, `InputError` where no row is left
        or an option is wrong.
        """
        if positions not in POSITIONS:
            raise InputError(f"unknown positions {positions!r}; {near(positions, POSITIONS)}")
        folder = Path(path)
        card = read_card(folder)
        tokens = length or int(card["length"])
        if positions != "full" and (target_length is None or target_length < tokens):
            raise InputError(
                f"{positions} positions need a target_length of at least the rows' {tokens}, got {target_length}"
            )
        documents = Documents(folder / SHARDS, read_shards(folder / SHARDS))
        stream = cls(
            documents,
            pack(_kept(folder, card, len(documents)), tokens, apart=apart),
            length=tokens,
            pad_id=int(card["pad_id"]),
            seed=seed,
            positions=positions,
            target_length=target_length or tokens,
            num_chunks=num_chunks,
            fingerprint=_fingerprint(folder, documents),
        )
        if not len(stream) and stream.num_rows_without_labels:
            raise InputError(
                f"{folder} has no row of {tokens} tokens with one to learn (the first of a row is none): in all "
                f"{stream.num_rows_without_labels:,} that {positions} positions can use, there are only prompts; ask for "
                "longer rows, or prepare the data with --prompt-loss"
            )
        if not len(stream):
            raise InputError(
                f"{folder} has no row of {tokens} tokens that one document fills, which {positions} positions need; "
                f"its longest document has {documents.lengths.max(initial=0)}: give a smaller length or longer documents"
            )
        return stream

    def __len__(self) -> int:
        """Rows of one epoch."""
        return int(self._rows.size)

    def share_beyond(self, window: int) -> float:
        """Share of the tokens of all rows that have `window` tokens or more before them in their document."""
        return share_at_positions_beyond(self._pieces[:, 3] - self._pieces[:, 2], window)

    def row(self, index: int) -> Row:
        """Row `index`, the same whenever it is asked for."""
        if index < 0:
            raise IndexError(f"rows are counted from 0, got {index}")
        index += self._start
        epoch, at = divmod(index, len(self))
        number = int(self._rows[self._order(epoch)[at]])
        pieces = self._pieces[self._first[number] : self._first[number + 1], 1:].tolist()
        row = make_row([self.documents.piece(*piece) for piece in pieces], length=self.length, pad_id=self.pad_id)
        return drawn(
            row, self.positions, seed=self.seed, index=index, target_length=self.target_length, num_chunks=self.num_chunks
        )

    def _order(self, epoch: int) -> NDArray[np.int64]:
        known = self._epoch
        if known is None or known[0] != epoch:
            known = (epoch, generator(self.seed, ORDER, epoch).permutation(len(self)))
            self._epoch = known
        return known[1]


def have_labels(documents: Documents, pieces: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Of each row of a pack, whether anything in it is learned."""
    found = np.zeros(int(pieces[-1, 0]) + 1 if pieces.size else 0, dtype=np.bool_)
    found[pieces[documents.learns(pieces[:, 1:]), 0]] = True
    return found


def read_card(folder: Path) -> dict[str, Any]:
    """The card of a folder of prepared data. Raises `SourceError` for anything else, and where it is not finished."""
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        verb, status = card["verb"], card["status"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{folder} is no folder of prepared data; make one with ropewalk data PATHS --out DIR") from error
    if verb != "data":
        raise SourceError(f"{folder} is the folder of a {verb} run, expected prepared data; make it with ropewalk data")
    if status != "done":
        raise SourceError(f"the data in {folder} are not finished; repeat their ropewalk data command with --resume")
    return dict(card)


def _kept(folder: Path, card: dict[str, Any], num_documents: int) -> NDArray[np.int64]:
    try:
        content = (folder / KEPT).read_bytes()
        kept: NDArray[np.int64] = np.load(io.BytesIO(content), allow_pickle=False)
    except (OSError, ValueError) as error:
        raise SourceError(f"{folder / KEPT} is missing or broken; prepare the data anew with --force") from error
    # A run that was killed between the mix and the card leaves the new one beside the old one.
    if kept.shape != (num_documents,) or hashlib.sha256(content).hexdigest() != card["kept_sha256"]:
        raise SourceError(f"{folder / KEPT} is not what the card speaks of; repeat the ropewalk data command with --resume")
    return kept


def _fingerprint(folder: Path, documents: Documents) -> str:
    """Of every shard's hashes and of what the mix keeps."""
    digest = hashlib.sha256((folder / KEPT).read_bytes())
    digest.update(json.dumps([shard.sha256 for shard in documents.shards]).encode())
    return digest.hexdigest()
