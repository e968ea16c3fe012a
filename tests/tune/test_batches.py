"""Rows of a run: which row of which stage, what is refused of a user's rows, and how rows become a batch."""

from typing import Any

import numpy as np
import pytest
import torch
from streams import Counting

from ropewalk.core.errors import InputError
from ropewalk.data.rows import Row, make_row
from ropewalk.tune.batches import RunRows, collate, given
from ropewalk.tune.settings import Settings, Stage


def settings(*windows: int, steps: int = 2, **changes: Any) -> Settings:
    return Settings(length=128, stages=tuple(Stage(window=window, steps=steps) for window in windows), **changes)


def plain(size: int, *, length: int = 0) -> Row:
    return make_row([(np.arange(1, size + 1), np.ones(size, dtype=bool))], length=length)


class Listed:
    """Rows that end: an index beyond them is an error."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows

    def row(self, index: int) -> Row:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)


def test_rows_come_stage_after_stage_as_their_streams_give_them() -> None:
    chosen = settings(16, 32, batch_size=2, accumulate=3)
    streams = given(Counting, chosen)
    rows = RunRows(chosen, streams)
    assert len(rows) == 24
    for index in range(24):
        expected = Counting(16 if index < 12 else 32).row(index % 12)
        assert rows[index].ids.tolist() == expected.ids.tolist()
    assert rows.describe(11, 13) == "11 of stage 1, 0 of stage 2"


@pytest.mark.parametrize("positions", ["pose", "randomized"])
def test_no_stage_draws_what_another_drew(positions: str) -> None:
    chosen = settings(16, 16, positions=positions)
    rows = RunRows(chosen, given(Counting, chosen))
    drawn = [rows[index].position_ids.tolist() for index in range(4)]
    assert len({tuple(places) for places in drawn}) == 4
    # The second stage has the same rows as the first, and goes on in them.
    assert rows[2].ids.tolist() == Counting(16).row(2).ids.tolist()
    again = RunRows(chosen, given(Counting, chosen))
    assert [again[index].position_ids.tolist() for index in (3, 1, 2, 0)] == [drawn[index] for index in (3, 1, 2, 0)]


@pytest.mark.parametrize(
    ("rows", "changes", "words"),
    [
        (Counting(16), {"positions": "pose"}, "rows at full positions were given to a run of pose ones"),
        (Listed([]), {}, "a stage has no rows at all"),
        (Listed([plain(16)]), {}, "a stage reads 2 rows and was given 1 of them .*later epoch"),
    ],
)
def test_a_stream_that_cannot_serve_is_refused_before_the_first_step(rows: Any, changes: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        RunRows(settings(16, **changes), [rows])


def learned_first(row: Row) -> Row:
    row.labels[5] = row.ids[5]
    return row


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (plain(17), "row 0 has 17 tokens, and the stage's window is 16; cut the rows to it"),
        (Row(np.arange(4), np.arange(3), np.arange(4), np.zeros(4, int)), "row 0 has fields of different lengths"),
        (make_row([]), "row 0 has fields of different lengths, or none"),
        (
            learned_first(make_row([(np.arange(5), np.ones(5, bool)), (np.arange(7, 10), np.ones(3, bool))])),
            "row 0 learns the first token of a document, which nothing before it predicts; label it -100",
        ),
    ],
)
def test_a_row_that_would_be_trained_on_wrongly_is_refused(row: Row, words: str) -> None:
    rows = RunRows(settings(16), [Listed([row, plain(16)])])
    with pytest.raises(InputError, match=words):
        rows[0]


def test_a_batch_is_as_long_as_its_longest_text() -> None:
    batch = collate([plain(5, length=16), plain(3, length=16), plain(2)])
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5], [1, 2, 3, 0, 0], [1, 2, 0, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 2, 3, 4, 5], [-100, 2, 3, -100, -100], [-100, 2, -100, -100, -100]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 0, 0], [0, 1, 0, 0, 0]]
    assert batch["document_ids"].tolist() == [[0, 0, 0, 0, 0], [0, 0, 0, 1, 1], [0, 0, 1, 1, 1]]
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}
    assert collate([make_row([], length=4)])["labels"].tolist() == [[-100]]


def test_padding_is_never_given_an_id_of_a_document() -> None:
    two = make_row([(np.arange(3), np.ones(3, bool)), (np.arange(2), np.ones(2, bool))], length=6)
    batch = collate([two, plain(8)])
    assert batch["document_ids"][0].tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
