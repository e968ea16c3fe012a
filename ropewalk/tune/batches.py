"""Rows as the batches of a training run: which row comes when, as tensors.

Row i of a run is a pure function of the settings and i, so a resumed run reads what the unbroken one would have read.
Nothing is drawn here and no epoch is counted: the streams do both, each from the run's seed and its stage. What this maps is
a run's index to a stage and an index in its stream.

No row comes twice before an epoch is over: a stage whose rows are as long as those of an earlier one goes on where that one
ended, and so does a run of a chain with the data of an earlier run (`Before`). Rows of another length are other rows, in an
order of their own; what they share with earlier ones is chance.

A batch is as long as the longest text in it: padding that its rows share is cut off, and shorter rows get more.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ropewalk.core.errors import InputError
from ropewalk.data import stream
from ropewalk.data.given import Given, GivenRows
from ropewalk.data.rows import NOT_LEARNED, Row
from ropewalk.tune.settings import Settings, Stage

FIELDS = {"input_ids": "ids", "labels": "labels", "position_ids": "position_ids", "document_ids": "document_ids"}


class Stream(Protocol):
    """Rows by index, drawn and shuffled already: a pure function of a seed, a stage and the index."""

    @property
    def positions(self) -> str:
        """The positions that its rows have: `full`, `pose` or `randomized`."""

    @property
    def packed(self) -> bool:
        """Whether any row holds more than one document."""

    def row(self, index: int) -> Row:
        """Row `index`, from 0; those beyond its length are later epochs."""

    def __len__(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Before:
    """What the earlier runs of a chain have read."""

    num_stages: int = 0
    """Of all of them: the next run's stages are counted on from here, so that none repeats another's draws."""
    read: tuple[tuple[Any, int, int], ...] = ()
    """A kind of rows, the stage that drew their order, and how many of them were read."""

    def place(self, kind: Any, number: int) -> tuple[int, int]:
        """For stage `number` of the next run: the stage whose order its rows have, and the first of them that is unread."""
        known = [(stage, rows) for one, stage, rows in self.read if one == kind]
        return (known[0][0], sum(rows for _, rows in known)) if known else (self.num_stages + number, 0)

    def then(self, source: Any, settings: Settings, *, apart: bool) -> "Before":
        """This and one more run, of one process, on the rows of `source`."""
        read = list(self.read)
        for number, stage in enumerate(settings.stages):
            kind = _kind(source, settings, stage.window, apart)
            first = Before(num_stages=self.num_stages, read=tuple(read)).place(kind, number)[0]
            read.append((kind, first, stage.steps * settings.batch_size * settings.accumulate))
        return Before(num_stages=self.num_stages + len(settings.stages), read=tuple(read))


def _kind(source: Any, settings: Settings, window: int, apart: bool) -> Any:
    """What rows have to have in common for one order of them to go on."""
    return source, window, apart, settings.positions, settings.seed


def opened(folder: Path, settings: Settings, *, apart: bool = False, before: Before | None = None) -> list[Stream]:
    """A stream of prepared data for each stage, `apart` with one document in a row; one for all stages of one window."""
    found: dict[int, Stream] = {}
    for number, stage in enumerate(settings.stages):
        if stage.window in found:
            continue
        one = stream.Stream.open(
            folder, seed=(settings.seed, number), length=stage.window, positions=settings.positions,
            target_length=settings.length, num_chunks=settings.chunks, apart=apart,
        )  # fmt: skip
        kind = _kind(one.fingerprint, settings, stage.window, apart)
        draws, start = (before or Before()).place(kind, number)
        found[stage.window] = one.onward((settings.seed, draws), start)
    return [found[stage.window] for stage in settings.stages]


def given(
    make: Callable[[int], GivenRows], settings: Settings, *, apart: bool = False, before: Before | None = None
) -> list[Stream]:
    """A stream of a user's rows for each stage, one for all stages of one window; `make` is called with it. Rows without
    positions of their own get those of the settings drawn."""
    found: dict[int, Stream] = {}
    for number, stage in enumerate(settings.stages):
        if stage.window in found:
            continue
        one = Given(
            make(stage.window), seed=(settings.seed, number), positions=settings.positions, target_length=settings.length,
            num_chunks=settings.chunks, apart=apart,
        )  # fmt: skip
        draws, start = (before or Before()).place(_kind(make, settings, stage.window, apart), number)
        found[stage.window] = one.onward((settings.seed, draws), start)
    return [found[stage.window] for stage in settings.stages]


class RunRows(Dataset[Row]):
    """All rows of a run, stage after stage."""

    def __init__(self, settings: Settings, streams: Sequence[Stream], *, processes: int = 1) -> None:
        """One stream for each stage. Raises `InputError` for a stream without rows, with too few, or at other positions."""
        if len(streams) != len(settings.stages):
            raise InputError(f"{len(settings.stages)} stages need as many streams of rows, got {len(streams)}")
        per_step = settings.batch_size * settings.accumulate * processes
        self.settings, self.streams = settings, streams
        counts = [stage.steps * per_step for stage in settings.stages]
        self.ends = np.cumsum(counts)
        # One stream of several stages goes on.
        self.starts = [
            sum(counts[earlier] for earlier in range(number) if streams[earlier] is rows)
            for number, rows in enumerate(streams)
        ]
        for start, count, rows in zip(self.starts, counts, streams, strict=True):
            _check_stream(rows, start + count, settings.positions)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def place(self, index: int) -> tuple[int, int]:
        """The stage of row `index` of the run, and its index in that stage's stream."""
        stage = int(np.searchsorted(self.ends, index, side="right"))
        inside = index - (int(self.ends[stage - 1]) if stage else 0)
        return stage, self.starts[stage] + inside

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < len(self):
            raise IndexError(index)
        stage, inside = self.place(index)
        row = self.streams[stage].row(inside)
        _check_row(row, self.settings.stages[stage], inside)
        return row

    def describe(self, low: int, high: int) -> str:
        """Where rows low..high-1 come from, in words."""
        places = [self.place(index) for index in range(low, min(high, len(self)))]
        return ", ".join(f"{inside} of stage {stage + 1}" for stage, inside in places)


def _check_stream(rows: Stream, num_rows: int, positions: str) -> None:
    """Raises `InputError` for a stream that cannot give what a stage reads, before the first step."""
    if not len(rows):
        raise InputError("a stage has no rows at all; give more or longer texts, or a shorter window")
    own = getattr(rows, "positions", "full")
    if own != positions:
        raise InputError(f"rows at {own} positions were given to a run of {positions} ones; open them with the same")
    try:
        rows.row(num_rows - 1)
    except IndexError as error:
        raise InputError(
            f"a stage reads {num_rows} rows and was given {len(rows)} of them ({error}); row(index) is to give a later "
            "epoch for an index beyond its length"
        ) from error


def _check_row(row: Row, stage: Stage, index: int) -> None:
    """Raises `InputError` for a row that would be trained on wrongly."""
    size = row.ids.size
    if not row.labels.size == row.position_ids.size == row.document_ids.size == size > 0:
        raise InputError(f"row {index} has fields of different lengths, or none; make rows with ropewalk.data.rows.make_row")
    if size > stage.window:
        raise InputError(f"row {index} has {size} tokens, and the stage's window is {stage.window}; cut the rows to it")
    firsts = np.flatnonzero(np.diff(row.document_ids, prepend=-1))
    if bool((row.labels[firsts] != NOT_LEARNED).any()):
        raise InputError(
            f"row {index} learns the first token of a document, which nothing before it predicts; label it {NOT_LEARNED}, "
            "as ropewalk.data.rows.make_row does"
        )


def collate(rows: Sequence[Row]) -> dict[str, Tensor]:
    """Rows as int64 tensors [B, T]; what is left of shorter ones is padding under an id of its own."""
    longest = max(1, *(row.num_tokens for row in rows))
    return {name: torch.stack([_fitted(row, field, longest) for row in rows]) for name, field in FIELDS.items()}


def _fitted(row: Row, field: str, length: int) -> Tensor:
    fill = {"ids": 0, "labels": NOT_LEARNED, "position_ids": 0, "document_ids": row.num_documents}[field]
    values = getattr(row, field)[:length]
    return torch.from_numpy(np.pad(values, (0, length - values.size), constant_values=fill).astype(np.int64))
