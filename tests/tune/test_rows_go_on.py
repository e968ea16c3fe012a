"""No row comes twice before an epoch is over: not from stage to stage, and not from run to run of a chain."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import Tune, tuning
from streams import Counting
from test_chain import TEMPLATE
from test_resume import At, killed

from ropewalk.api.data import data
from ropewalk.data.stream import Stream
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


def test_rows_of_prompts_alone_are_not_read_and_a_killed_run_goes_on_without_them(
    tied: Path, tmp_path: Path, rows_read: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    """Forty conversations of four rows and more, of which the last has the answer."""
    source, chats = tmp_path / "chatty", tmp_path / "chats.jsonl"
    shutil.copytree(tied, source)
    (source / "chat_template.jinja").write_text(TEMPLATE)
    turns = [[{"role": "user", "content": "How " * (60 + n)}, {"role": "assistant", "content": "Many."}] for n in range(40)]
    chats.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in turns))
    made = data([chats], tokenizer=source, length=64, out=tmp_path / "data", window=32, allow_short=True)
    rows, left = (made["packed"][name] for name in ("num_rows", "num_rows_without_labels"))
    assert left > rows / 3
    asked = {"data": tmp_path / "data", "window": 64, "steps": 6, "data_options": {"allow_short": True}}
    tune = tuning(source)
    tune(tmp_path / "whole", **asked)
    assert f"rows of 64 tokens: {rows - left:,} ({left:,} others have no token to learn" in capsys.readouterr().err
    stream = Stream.open(tmp_path / "data", length=64)
    assert rows_read == [stream.row(index).ids.tobytes() for index in range(12)]
    assert all((stream.row(index).labels != -100).any() for index in range(12))
    assert killed(lambda: tune(tmp_path / "out", callbacks=[At("on_step_end", 3)], **asked))
    tune(tmp_path / "out", resume=True, **asked)
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "out"))
    assert one == other
