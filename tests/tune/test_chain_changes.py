"""A chain that stopped: runs that have not begun may be asked for otherwise, and no finished run is lost in silence."""

import io
from pathlib import Path
from typing import Any

import pytest
from small import SETTINGS
from streams import Counting
from transformers import TrainerCallback

import ropewalk
from ropewalk.core.errors import OutputError
from ropewalk.core.progress import Progress
from ropewalk.core.record import Card

SHARED = {key: SETTINGS[key] for key in ("method", "learning_rate", "accumulate", "device", "dtype")} | {"save_every": 1}


class Stop(TrainerCallback):
    """Interrupts the second run at a step."""

    def __init__(self, step: int) -> None:
        self.step, self.run = step, 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.run += 1

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.run == 2 and state.global_step == self.step:
            raise KeyboardInterrupt


def chain(source: Path, out: Path, second: dict[str, Any], **more: Any) -> Card:
    first = {"length": 128, "window": 48, "steps": 2}
    return ropewalk.tune(source, Counting, out=out, runs=[first, {"window": 48, "length": 256, **second}], **SHARED, **more)


def test_a_run_that_has_not_begun_may_change(tied: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        chain(tied, out, {"steps": 3}, callbacks=[Stop(0)])
    before = (out / "chain" / "1" / "model.safetensors").stat().st_mtime_ns
    card = chain(tied, out, {"steps": 2, "learning_rate": 1e-3}, resume=True)
    assert card.status == "done"
    assert (out / "chain" / "1" / "model.safetensors").stat().st_mtime_ns == before
    assert [link["run"] for link in card.links] == [1]
    assert card.config["runs"][1]["learning_rate"] == 1e-3
    (told,) = [one["problem"] for one in card.findings if one["field"] == "chain"]
    assert told == "run 2 was asked for otherwise before it began (in learning_rate, stages)"
    assert len((out / "log.jsonl").read_text().splitlines()) == 2


def test_a_run_that_has_begun_may_not_and_the_way_on_is_said(tied: Path, tmp_path: Path) -> None:
    out, said = tmp_path / "out", io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        chain(tied, out, {"steps": 3}, callbacks=[Stop(1)])
    with pytest.raises(OutputError, match=r"run 2 of .* has begun.*max_grad_norm.*go on from .*chain/1, which is finished"):
        chain(tied, out, {"steps": 3, "max_grad_norm": 0.5}, resume=True)
    # Repeated as it was, it goes on.
    assert chain(tied, out, {"steps": 3}, resume=True).status == "done"
    chain(tied, out, {"steps": 1}, force=True, progress=Progress(said))
    assert "--force removes 1 finished runs below" in said.getvalue()
