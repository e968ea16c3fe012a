"""What a run will write is known before it begins, from the headers of the weights, and held to what it wrote."""

import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from small import SETTINGS, Tune
from test_resume import At, killed

from ropewalk.api.training_disk import Need, need
from ropewalk.core.errors import MachineError
from ropewalk.hosts.folder import open_checkpoint, shapes
from ropewalk.tune.settings import Settings, Stage

Usage = namedtuple("Usage", "total used free")
SMALL: dict[str, Any] = {"rank": 4, "save_every": 1, "steps": 2}


def needed(tied: Path, recipe: str, *, merge: bool = False) -> Need:
    stages = (Stage(window=SETTINGS["window"], steps=2),)
    settings = Settings(length=256, stages=stages, recipe=recipe, rank=4, save_every=1)
    return need(shapes(open_checkpoint(tied)), settings, merge=merge, arguments={})


def size(*paths: Path) -> int:
    return sum(path.stat().st_size for path in paths)


@pytest.mark.parametrize("recipe", ["full", "lora", "longlora"])
def test_the_need_is_what_a_run_wrote(recipe: str, tied: Path, tune: Tune, tmp_path: Path) -> None:
    expected = needed(tied, recipe)
    assert killed(lambda: tune(tmp_path / "killed", callbacks=[At("on_step_begin", 1)], recipe=recipe, **SMALL))
    state = size(*(tmp_path / "killed" / "state").glob("step-*/*.safetensors"))
    # The headers and the generators are some kilobytes, which only a model as small as this one feels.
    assert state == pytest.approx(expected.state, abs=30_000)
    assert state >= expected.state
    tune(tmp_path / "out", recipe=recipe, **SMALL)
    result = size(*(tmp_path / "out").glob("*.safetensors"))
    assert result == pytest.approx(expected.result, abs=15_000)
    assert expected.peak == max(2 * expected.state, expected.state + expected.result)


def test_merged_it_is_the_whole_model(tied: Path) -> None:
    assert needed(tied, "lora", merge=True).result == needed(tied, "full").result == needed(tied, "full").state // 3


def test_a_disk_that_will_be_full_is_said_before_a_folder_is_made(
    tied: Path, tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peak = needed(tied, "full").peak
    free = [peak - 1]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, free[0]))
    with pytest.raises(MachineError, match=r"the run writes up to 0\.6 MB below .*out .*two states.*are free there"):
        tune(tmp_path / "out", **SMALL)
    assert not list(tmp_path.iterdir())
    # Two runs: the first one's checkpoint stays while the second writes.
    free[0] = peak
    with pytest.raises(MachineError, match="checkpoints of 1 run before the last"):
        tune(tmp_path / "out", runs=[{}, {"length": 512}], **SMALL)
    assert not list(tmp_path.iterdir())
    tune(tmp_path / "out", **SMALL)
    # Begun anew, it has the room of what was there.
    free[0] = peak - 10_000
    tune(tmp_path / "out", force=True, **SMALL)
