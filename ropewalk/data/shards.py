"""Tokenized documents on disk: tokenized once, read through memory maps.

A shard is some million tokens of one source: `00003.tokens.npy` (uint16 where the vocabulary allows, else uint32),
`00003.documents.npy` (per document: tokens, file, number in the file), `00003.learned.npy` where not every token is learned,
and `00003.json`, which is written last: a shard without it does not exist. It says where in the source the next one begins.
Where shards end depends on the documents alone, so a run that was killed ends with the same bytes as one that was not.

Given up: compression (two bytes a token are near what it would reach), and two writers at once.
"""

import dataclasses
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropewalk.core.errors import SourceError
from ropewalk.core.run import write_atomic
from ropewalk.data.reading.records import LeftOut, Record, Source, UnreadableError, stop_at
from ropewalk.data.tokens import Encoder, Tokens

SHARD_TOKENS = 4 * 1024 * 1024
"""A shard ends with the document that reaches this."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """What a shard's JSON file says."""

    number: int
    source: int
    """Which source it is of."""
    num_documents: int
    num_tokens: int
    file: int
    """With `record`: the last document in it; the next shard goes on after it."""
    record: int
    last: bool
    """Whether the source ends with it."""
    left_out: list[dict[str, Any]]
    num_broken: int
    """How many of those left out count against the threshold."""
    sha256: dict[str, str]
    """Hash of each of its arrays."""
    spelled: dict[str, int] = field(default_factory=dict)
    """Special tokens that documents spell in their own words, each with how many do (of one document the first)."""


def write_shards(
    folder: Path, source: Source, index: int, encoder: Encoder, before: Sequence[Shard], *, max_broken: int,
    shard_tokens: int = SHARD_TOKENS,
) -> Iterator[Shard]:  # fmt: skip
    """Writes and yields the shards of a source that are not there; `before` are all shards that are, of any source.

    Raises `InputError` at the record that is one broken too many, those in `before` counted.
    """
    mine = [shard for shard in before if shard.source == index]
    if mine and mine[-1].last:
        return
    number, cursor = len(before), (mine[-1].file, mine[-1].record) if mine else (0, 0)
    wide = len(encoder.tokenizer) > np.iinfo(np.uint16).max + 1
    batch = _Batch(np.dtype("<u4" if wide else "<u2"), cursor)
    broken, num_broken = broken_of(before), sum(shard.num_broken for shard in before)
    for found in source.records(*cursor):
        left = found if isinstance(found, LeftOut) else batch.add(found, source, encoder)
        if left is not None:
            batch.left_out.append(left)
            broken, num_broken = (broken or [left], num_broken + 1) if left.broken else (broken, num_broken)
            stop_at(broken, num_broken, max_broken)
        if batch.num_tokens >= shard_tokens:
            yield batch.write(folder, number, index, last=False)
            number, batch = number + 1, _Batch(batch.dtype, batch.cursor)
    yield batch.write(folder, number, index, last=True)


def broken_of(shards: Sequence[Shard]) -> list[LeftOut]:
    """The first broken record of all shards, for a message."""
    rows = (row for shard in shards if shard.num_broken for row in shard.left_out if row["broken"])
    found = next(rows, None)
    if found is None:
        return []
    return [LeftOut.from_dict(found)]


class _Batch:
    """A shard while it is collected."""

    def __init__(self, dtype: np.dtype[Any], cursor: tuple[int, int]) -> None:
        self.dtype = dtype
        self.cursor = cursor
        self.documents: list[Tokens] = []
        self.places: list[tuple[int, int, int]] = []
        self.left_out: list[LeftOut] = []
        self.spelled: Counter[str] = Counter()
        self.num_tokens = 0

    def add(self, record: Record, source: Source, encoder: Encoder) -> LeftOut | None:
        """Takes a document; what is left out, if it cannot be learned from."""
        self.cursor = (record.file, record.number)
        try:
            taken = encoder.encode(record.content)
            if not taken.learned[1:].any():
                raise UnreadableError("no token to learn", broken=False)
        except UnreadableError as error:
            return error.left_out(*source.place(record.file, record.number))
        self.documents.append(taken)
        self.spelled.update([taken.spelled] if taken.spelled else [])
        self.places.append((taken.ids.size, *self.cursor))
        self.num_tokens += taken.ids.size
        return None

    def write(self, folder: Path, number: int, index: int, *, last: bool) -> Shard:
        ids = np.concatenate([np.zeros(0, dtype=np.int64), *(document.ids for document in self.documents)])
        if ids.size and not 0 <= ids.min() <= ids.max() <= np.iinfo(self.dtype).max:
            raise SourceError(f"the tokenizer gives ids from {ids.min()} to {ids.max()}, more than its own size; mend it")
        arrays = {
            "tokens": ids.astype(self.dtype),
            "documents": np.asarray(self.places, dtype="<i8").reshape(-1, 3),
        }
        learned = [document.learned for document in self.documents]
        if not all(mask.all() for mask in learned):
            arrays["learned"] = np.concatenate(learned)
        hashes = {}
        for kind, array in arrays.items():
            content = _bytes(array)
            hashes[kind] = hashlib.sha256(content).hexdigest()
            write_atomic(folder / f"{number:05d}.{kind}.npy", content)
        shard = Shard(
            number=number,
            source=index,
            num_documents=len(self.documents),
            num_tokens=self.num_tokens,
            file=self.cursor[0],
            record=self.cursor[1],
            last=last,
            left_out=[left.to_dict() for left in self.left_out],
            num_broken=sum(left.broken for left in self.left_out),
            sha256=hashes,
            spelled=dict(sorted(self.spelled.items())),
        )
        write_atomic(folder / f"{number:05d}.json", (json.dumps(dataclasses.asdict(shard)) + "\n").encode())
        return shard


def _bytes(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def read_shards(folder: Path) -> list[Shard]:
    """The shards that are whole, in order, up to the first that is not. Raises `SourceError` for one that was edited."""
    found: list[Shard] = []
    while (path := folder / f"{len(found):05d}.json").is_file():
        try:
            shard = Shard(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise SourceError(
                f"{path} is not a shard's description ({error}); prepare the data anew with --force"
            ) from error
        found.append(shard)
    return found


class Documents:
    """The documents of a folder's shards as one list, through memory maps."""

    def __init__(self, folder: Path, shards: Iterable[Shard]) -> None:
        self.folder = folder
        self.shards = list(shards)
        tables = [self._array(shard, "documents") for shard in self.shards]
        self.lengths: NDArray[np.int64] = np.concatenate([np.zeros(0, dtype=np.int64), *(t[:, 0] for t in tables)])
        self.sources = np.repeat([s.source for s in self.shards], [s.num_documents for s in self.shards]).astype(np.int64)
        self._first = np.cumsum([0, *(shard.num_documents for shard in self.shards)])
        self._begins = np.concatenate([np.cumsum(t[:, 0]) - t[:, 0] for t in tables]) if tables else self.lengths
        self._tokens = [self._array(shard, "tokens") for shard in self.shards]
        self._learned = [self._array(s, "learned") if "learned" in s.sha256 else None for s in self.shards]
        for shard, tokens in zip(self.shards, self._tokens, strict=True):
            if tokens.size != shard.num_tokens:
                raise SourceError(f"{folder}: shard {shard.number} is cut short; prepare the data anew with --force")

    def __len__(self) -> int:
        return int(self.lengths.size)

    def _array(self, shard: Shard, kind: str) -> NDArray[Any]:
        path = self.folder / f"{shard.number:05d}.{kind}.npy"
        try:
            # An empty file cannot be mapped.
            found: NDArray[Any] = np.load(path, mmap_mode="r" if shard.num_tokens else None, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise SourceError(f"{path} is missing or broken ({error}); prepare the data anew with --force") from error
        return found

    def piece(self, document: int, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Token ids [start, stop) of a document, and which of them are learned."""
        shard = int(np.searchsorted(self._first, document, side="right")) - 1
        low, high = (int(self._begins[document]) + edge for edge in (start, stop))
        learned = self._learned[shard]
        mask = np.ones(high - low, dtype=np.bool_) if learned is None else np.array(learned[low:high], dtype=np.bool_)
        return np.array(self._tokens[shard][low:high], dtype=np.int64), mask

    def learns(self, pieces: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether anything is learned of each piece [N, 3] of (document, start, stop), its first token left out.

        No two pieces overlap. The masks are read where they lie, and nothing of them is copied.
        """
        found: NDArray[np.bool_] = pieces[:, 2] - pieces[:, 1] > 1
        order = np.flatnonzero(found)
        order = order[np.lexsort((pieces[order, 1], pieces[order, 0]))]
        bounds = np.searchsorted(pieces[order, 0], self._first)
        for learned, low, high in zip(self._learned, bounds, bounds[1:], strict=False):
            mine = order[low:high]
            if learned is None or not mine.size:
                continue
            # From a piece's second token to its end; every other stretch lies between two pieces.
            edges: NDArray[np.int64] = (self._begins[pieces[mine, 0], None] + pieces[mine, 1:] + np.array([1, 0])).ravel()
            found[mine] = np.logical_or.reduceat(learned, edges[:-1] if edges[-1] == learned.size else edges)[::2]
        return found

    def used_ids(self) -> NDArray[np.int64]:
        """Every id that stands in the tokens, once, in order."""
        found = np.zeros(0, dtype=np.int64)
        for tokens in self._tokens:
            there = np.zeros(int(tokens.max(initial=0)) + 1, dtype=np.bool_)
            there[tokens] = True
            found = np.union1d(found, np.flatnonzero(there)) if tokens.size else found
        return found

    def check(self) -> None:
        """Hashes every array again. Raises `SourceError` for one that is not what was written."""
        for shard in self.shards:
            for kind, known in shard.sha256.items():
                path = self.folder / f"{shard.number:05d}.{kind}.npy"
                with path.open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != known:
                        raise SourceError(f"{path} is not what was written; prepare the data anew with --force")
