"""Rows as the batches of a training run: which row comes when, at which positions, as tensors.

Row i of a run is a pure function of the settings and i, so a resumed run reads what the unbroken one would have read, and
nothing draws from a global generator. Rows are taken in order; the stream itself has mixed them.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ropewalk.core.errors import InputError
from ropewalk.data.positions import pose, randomized
from ropewalk.data.rows import Row
from ropewalk.tune.settings import Settings, Stage

FIELDS = {"input_ids": "ids", "labels": "labels", "position_ids": "position_ids", "document_ids": "document_ids"}


class Stream(Protocol):
    """Rows by index: a pure function of a seed and the index. One that has positions of its own says so in `positions`."""

    def row(self, index: int) -> Row:
        """Row `index`, from 0; those beyond its length are later epochs."""

    def __len__(self) -> int: ...


class Rows(Dataset[Row]):
    """All rows of a run, stage after stage."""

    def __init__(self, settings: Settings, streams: Sequence[Stream], *, processes: int = 1) -> None:
        """One stream for each stage. Raises `InputError` for a stream without rows."""
        if len(streams) != len(settings.stages):
            raise InputError(f"{len(settings.stages)} stages need as many streams of rows, got {len(streams)}")
        if not all(len(stream) for stream in streams):
            raise InputError("a stage has no rows at all; give more or longer texts, or a shorter window")
        self.settings, self.streams = settings, streams
        per_step = settings.batch_size * settings.accumulate * processes
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
        _check_row(row, self.settings.stages[stage])
        if getattr(self.streams[stage], "positions", "full") == self.settings.positions:
            return row
        rng = np.random.default_rng((self.settings.seed, stage, index))
        if self.settings.positions == "pose":
            return pose(row, self.settings.length, rng, self.settings.chunks)
        if self.settings.positions == "randomized":
            return randomized(row, self.settings.length, rng)
        return row

    def describe(self, low: int, high: int) -> str:
        """Where rows low..high-1 come from, in words."""
        places = [self.place(index) for index in range(low, min(high, len(self)))]
        return ", ".join(f"{inside} of stage {stage + 1}" for stage, inside in places)


def _check_row(row: Row, stage: Stage) -> None:
    size = row.ids.size
    assert row.labels.size == row.position_ids.size == row.document_ids.size == size, "a row's fields differ in length"
    if size > stage.window:
        raise InputError(f"a row has {size} tokens, and the stage's window is {stage.window}; cut the rows to it")


def collate(rows: Sequence[Row]) -> dict[str, Tensor]:
    """Rows as int64 tensors [B, T]; shorter rows end in a document of padding that nobody learns from."""
    longest = max(row.ids.size for row in rows)
    return {name: torch.stack([_padded(row, field, longest) for row in rows]) for name, field in FIELDS.items()}


def _padded(row: Row, field: str, longest: int) -> Tensor:
    values, short = getattr(row, field), longest - row.ids.size
    fill = {
        "ids": np.zeros(short, np.int64),
        "labels": np.full(short, -100, np.int64),
        "position_ids": np.arange(short),
        "document_ids": np.full(short, row.num_documents),
    }[field]
    return torch.from_numpy(np.concatenate([values, fill]).astype(np.int64))
