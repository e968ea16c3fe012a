"""Rows as the batches of a training run: which row comes when, as tensors.

Row i of a run is a pure function of the settings and i, so a resumed run reads what the unbroken one would have read.
Nothing is drawn here and no epoch is counted: the streams do both, each from the run's seed and its stage. What this maps is
a run's index to a stage and an index in its stream.

A batch is as long as the longest text in it: padding that its rows share is cut off, and shorter rows get more.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ropewalk.core.errors import InputError
from ropewalk.data import stream
from ropewalk.data.given import Given
from ropewalk.data.given import Rows as GivenRows
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


def opened(folder: Path, settings: Settings, *, apart: bool = False) -> list[Stream]:
    """A stream of prepared data for each stage, `apart` with one document in a row."""
    return [
        stream.Stream.open(
            folder, seed=(settings.seed, number), length=stage.window, positions=settings.positions,
            target_length=settings.length, num_chunks=settings.chunks, apart=apart,
        )
        for number, stage in enumerate(settings.stages)
    ]  # fmt: skip


def given(make: Callable[[int], GivenRows], settings: Settings, *, apart: bool = False) -> list[Stream]:
    """A stream of a user's rows for each stage; `make` is called with its window. Rows without positions of their own get
    those of the settings drawn."""
    return [
        Given(
            make(stage.window), seed=(settings.seed, number), positions=settings.positions, target_length=settings.length,
            num_chunks=settings.chunks, apart=apart,
        )
        for number, stage in enumerate(settings.stages)
    ]  # fmt: skip


class Rows(Dataset[Row]):
    """All rows of a run, stage after stage."""

    def __init__(self, settings: Settings, streams: Sequence[Stream], *, processes: int = 1) -> None:
        """One stream for each stage. Raises `InputError` for a stream without rows, with too few, or at other positions."""
        if len(streams) != len(settings.stages):
            raise InputError(f"{len(settings.stages)} stages need as many streams of rows, got {len(streams)}")
        per_step = settings.batch_size * settings.accumulate * processes
        for stage, rows in zip(settings.stages, streams, strict=True):
            _check_stream(rows, stage.steps * per_step, settings.positions)
        self.settings, self.streams = settings, streams
        self.ends = np.cumsum([stage.steps * per_step for stage in settings.stages])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def place(self, index: int) -> tuple[int, int]:
        """The stage of row `index` of the run, and its index in that stage's stream."""
        stage = int(np.searchsorted(self.ends, index, side="right"))
        inside = index - (int(self.ends[stage - 1]) if stage else 0)
        return stage, inside

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
