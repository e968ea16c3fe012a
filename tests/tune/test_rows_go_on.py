"""No row comes twice before an epoch is over: not from stage to stage, and not from run to run of a chain."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import Tune
from streams import Counting

from ropewalk.api.data import data
from ropewalk.tune.batches import Before, RunRows, given, opened
from ropewalk.tune.settings import Settings, Stage


@pytest.fixture(scope="module")
def folder(tied: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some hundred rows of 64 tokens."""
    place, rng = tmp_path_factory.mktemp("texts"), np.random.default_rng(0)
    for number in range(40):
        (place / f"{number}.txt").write_text("".join(rng.choice(list("abcdefgh "), size=200)))
    data(sorted(place.glob("*.txt")), tokenizer=tied, length=64, out=place / "data", window=32)
    return place / "data"


def settings(*stages: tuple[int, int], **changes: Any) -> Settings:
    return Settings(length=256, stages=tuple(Stage(window=window, steps=steps) for window, steps in stages), **changes)


def read(rows: RunRows) -> list[bytes]:
    return [rows[index].ids.tobytes() for index in range(len(rows))]


def test_a_stage_goes_on_where_one_of_the_same_rows_ended(folder: Path) -> None:
    one, two = settings((64, 60)), settings((64, 40), (32, 10), (64, 20))
    whole = read(RunRows(one, opened(folder, one)))
    rows = RunRows(two, opened(folder, two))
    assert len(set(whole)) == 60
    assert read(rows)[:40] + read(rows)[50:] == whole
    assert rows.describe(49, 52) == "9 of stage 2, 40 of stage 3, 41 of stage 3"


def test_two_runs_of_a_chain_read_what_one_run_would(folder: Path) -> None:
    first, second = settings((64, 30), accumulate=2), settings((64, 20))
    whole = settings((64, 80))
    ours = opened(folder, first)
    before = Before().then(ours[0].fingerprint, first, apart=False)  # type: ignore[attr-defined]
    runs = read(RunRows(first, ours)) + read(RunRows(second, opened(folder, second, before=before)))
    assert runs == read(RunRows(whole, opened(folder, whole)))


def test_other_rows_have_an_order_of_their_own(folder: Path) -> None:
    first, second = settings((64, 8)), settings((32, 8))
    before = Before().then(opened(folder, first)[0].fingerprint, first, apart=False)  # type: ignore[attr-defined]
    alone, behind = opened(folder, second), opened(folder, second, before=before)
    assert read(RunRows(second, behind)) != read(RunRows(second, alone))
    # The same rows under another seed of the user are other ones, too, and so are drawn positions.
    other = settings((64, 8), seed=1)
    assert opened(folder, other, before=before)[0].row(0).ids.tolist() != opened(folder, first)[0].row(8).ids.tolist()
    assert before.place(("other", 64, False, "full", 0), 0) == (1, 0)


def test_positions_are_drawn_on_as_well() -> None:
    first = settings((32, 4), positions="pose")
    before = Before().then(Counting, first, apart=False)
    whole = given(Counting, settings((32, 8), positions="pose"))[0]
    onward = given(Counting, first, before=before)[0]
    for index in range(4):
        assert onward.row(index).position_ids.tolist() == whole.row(4 + index).position_ids.tolist()


def test_the_runs_of_a_chain_go_on(tune: Tune, tmp_path: Path, rows_read: list[bytes]) -> None:
    tune(tmp_path / "out", runs=[{}, {"method": None}, {"method": None, "window": 40}], steps=1)
    rows = [Counting(48).row(index).ids.tobytes() for index in range(4)]
    assert rows_read == [*rows, *(Counting(40).row(index).ids.tobytes() for index in range(2))]
