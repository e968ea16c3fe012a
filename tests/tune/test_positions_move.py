"""Positions that are asked to be spread are spread: what would move nothing is refused, or said of its stage."""

from pathlib import Path
from typing import Any

import pytest
from command import Command, snapshot
from small import SETTINGS, Tune
from streams import Counting

from ropewalk.api.training_request import request
from ropewalk.core.errors import InputError

SHORTER = "give a shorter --window, such as "


@pytest.mark.parametrize("positions", ["pose", "randomized"])
@pytest.mark.parametrize("rows", [{"window": 256}, {"window": None, "stages": [(256, 1), (256, 2)], "steps": None}], ids=str)
def test_rows_as_long_as_the_length_are_refused(positions: str, rows: dict[str, Any], tune: Tune, tmp_path: Path) -> None:
    read: list[int] = []

    def data(window: int) -> Counting:
        read.append(window)
        return Counting(window)

    with pytest.raises(InputError, match=f"{positions} spreads .* 256 tokens, .*{SHORTER}64, or leave --positions out"):
        tune(tmp_path / "out", data=data, positions=positions, **rows)
    assert read == []
    assert not list(tmp_path.iterdir())


def test_one_chunk_is_refused(tune: Tune, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pose moves every chunk of a row but the first.*--chunks of at least 2"):
        tune(tmp_path / "out", positions="pose", chunks=1)
    assert not list(tmp_path.iterdir())


def test_a_tuned_source_at_its_length_says_which_rows_to_ask_for(
    tied: Path, books: Path, tune: Tune, tmp_path: Path, command: Command
) -> None:
    tune(tmp_path / "tuned", steps=1)
    before = snapshot(tmp_path)
    line = ("tune", tmp_path / "tuned", "--data", books, "--length", "256", "--steps", "1", "--positions", "pose",
            "--device", "cpu", "--dtype", "float32", "--out", tmp_path / "out")  # fmt: skip
    # By default rows are what the source reads now, and that is the length.
    assert command(*line).refused("rows are as long as that, 256 tokens", f"{SHORTER}64")
    assert snapshot(tmp_path) == before
    said = command(*line, "--window", "64")
    assert said.code == 0, said.err


def test_a_later_run_of_a_chain_says_so_before_the_first(tune: Tune, tmp_path: Path) -> None:
    asked = {"positions": "pose", "window": None, "steps": 1}
    with pytest.raises(InputError, match=f"run 2 of 2: pose spreads .*{SHORTER}64"):
        tune(tmp_path / "out", runs=[{}, {"method": None}], **asked)
    assert not list(tmp_path.iterdir())


def test_a_stage_that_moves_nothing_beside_one_that_does_is_said(tied: Path) -> None:
    asked = {key: SETTINGS[key] for key in ("length", "method", "device", "dtype")}
    for stages, words in (("64:1,256:1", ["pose moves nothing in the stage of rows of 256, as long as the length is"]),
                          ("64:1,128:1", [])):  # fmt: skip
        found = request(tied, stages=stages, positions="pose", **asked)
        assert [note for note in found.notes if "moves nothing" in note] == words
