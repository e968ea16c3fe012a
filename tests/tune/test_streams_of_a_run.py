"""What a whole run reads: positions drawn by the streams, the same after a kill; one document in a row where needed."""

from pathlib import Path
from typing import Any

import pytest
from small import Tune
from streams import Counting
from test_resume import At, killed

from ropewalk.core.errors import InputError
from ropewalk.data.rows import Row
from ropewalk.tune import batches

CURRICULUM: dict[str, Any] = {
    "steps": None, "window": None, "stages": [(24, 2), (24, 2)], "recipe": "lora", "merge": True, "save_every": 1,
    "accumulate": 1,
}  # fmt: skip


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    """The rows that went into batches, in their order."""
    rows: list[Row] = []
    inner = batches.RunRows.__getitem__

    def told(self: batches.RunRows, index: int) -> Row:
        rows.append(inner(self, index))
        return rows[-1]

    monkeypatch.setattr(batches.RunRows, "__getitem__", told)
    return rows


@pytest.mark.parametrize("positions", ["pose", "randomized"])
def test_drawn_positions_come_back_after_a_kill(positions: str, tune: Tune, seen: list[Row], tmp_path: Path) -> None:
    asked = {**CURRICULUM, "positions": positions}
    tune(tmp_path / "whole", **asked)
    places = [tuple(row.position_ids.tolist()) for row in seen[:4]]
    # Two stages of the same rows, at positions of their own.
    assert len(set(places)) == 4
    assert 24 < max(max(place) for place in places) < 256
    assert killed(lambda: tune(tmp_path / "broken", callbacks=[At("on_step_end", 3)], **asked))
    seen.clear()
    tune(tmp_path / "broken", resume=True, **asked)
    assert tuple(seen[-1].position_ids.tolist()) == places[3]
    name = "model.safetensors"
    assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


class Pack(Counting):
    """One row of two documents, not the first."""

    def row(self, index: int) -> Row:
        return Counting(self.window, documents=2 if index == 3 else 1).row(index)


class Said(Counting):
    """Rows that are said to be packs, wherever they are."""

    packed = True


class Own(Counting):
    """Rows that say they have random positions of their own."""

    positions = "randomized"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (Said, "positions pose and data packed do not go together"),
        (Pack, "positions pose and data packed do not go together"),
        (Own, "the rows have randomized positions of their own, and pose are asked for"),
    ],
)
def test_rows_that_pose_cannot_use_are_refused_before_anything_is_made(
    data: type, words: str, tune: Tune, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        tune(tmp_path / "out", data=data, **{**CURRICULUM, "positions": "pose"})
    assert not list(tmp_path.iterdir())


def written(folder: Path) -> Path:
    """Texts of many lengths, so that a packing would join them."""
    folder.mkdir()
    for number in range(8):
        (folder / f"{number}.txt").write_text(" ".join(f"w{(number * i) % 50}" for i in range(3 + 12 * number)))
    return folder


@pytest.mark.parametrize(("attention", "packed"), [("own", False), ("full", True), ("s2", True)])
def test_own_attention_reads_files_one_document_in_a_row(
    attention: str, packed: bool, tune: Tune, seen: list[Row], tmp_path: Path
) -> None:
    options = {"data": written(tmp_path / "texts"), "data_options": {"allow_short": True}, "window": 64}
    tune(tmp_path / "out", attention=attention, steps=6, **options)
    assert (max(row.num_documents for row in seen) > 1) == packed
