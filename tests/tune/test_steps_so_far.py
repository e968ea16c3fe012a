"""Every run that trained a plan stays in the block of what it left, and the older form of that record is read."""

import json
from pathlib import Path

from small import Tune

import ropewalk
from ropewalk.api.tuning import merge
from ropewalk.engines.transformers import block
from ropewalk.hosts.folder import open_checkpoint


def recipes(folder: Path) -> list[str]:
    found = block.find(open_checkpoint(folder).config)
    assert found is not None
    return [run["recipe"] for run in block.runs(found["steps"][-1])]


def test_a_second_run_on_a_plan_does_not_erase_the_first(tune: Tune, tmp_path: Path) -> None:
    tune(tmp_path / "first", steps=1)
    tune(tmp_path / "second", start=tmp_path / "first", steps=1, method=None, recipe="lora")
    assert recipes(tmp_path / "first") == ["full"]
    assert recipes(tmp_path / "second") == ["full", "lora"]
    merge(tmp_path / "second", tmp_path / "merged")
    assert recipes(tmp_path / "merged") == ["full", "lora"]
    # What an earlier release wrote: the last run alone.
    config = json.loads((tmp_path / "first" / "config.json").read_text())
    step = config["ropewalk"]["steps"][-1]
    step["tuning"] = step["tuning"][0]
    (tmp_path / "first" / "config.json").write_text(json.dumps(config))
    assert recipes(tmp_path / "first") == ["full"]
    assert ropewalk.geometry(tmp_path / "first").lineage == "trained"
    again = block.marked(config, {"recipe": "longlora"})
    assert [run["recipe"] for run in again["ropewalk"]["steps"][-1]["tuning"]] == ["full", "longlora"]


def test_a_longer_plan_begins_a_step_of_its_own(tune: Tune, tmp_path: Path) -> None:
    tune(tmp_path / "first", steps=1, length=128)
    tune(tmp_path / "second", start=tmp_path / "first", steps=1, length=256, recipe="longlora", merge=True)
    found = block.find(open_checkpoint(tmp_path / "second").config)
    assert found is not None
    assert [[run["recipe"] for run in block.runs(step)] for step in found["steps"]] == [["full"], ["longlora"]]
