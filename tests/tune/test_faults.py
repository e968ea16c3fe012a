"""A loss that is not finite or runs away stops a run before the step is taken."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from small import Tune
from transformers import TrainerCallback

from ropewalk.core.errors import MachineError
from ropewalk.tune import state
from ropewalk.tune.faults import DivergedError, Watch


class Spoil(TrainerCallback):
    """From a step on, the last hidden states or the gradients are multiplied."""

    def __init__(self, step: int, by: float, *, gradients: bool = False) -> None:
        self.step, self.by, self.gradients = step, by, gradients

    def on_step_begin(self, args: Any, progress: Any, control: Any, model: Any = None, **_: Any) -> None:
        if progress.global_step != self.step:
            return
        if self.gradients:
            next(model.parameters()).register_hook(lambda grad: grad * self.by)
        else:
            model.get_decoder().norm.register_forward_hook(lambda *call: call[2] * self.by)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (Spoil(3, math.nan), "the loss is nan"),
        (Spoil(3, math.nan, gradients=True), "a gradient is not finite"),
        (Spoil(3, math.inf, gradients=True), "a gradient is not finite"),
    ],
)
def test_nothing_that_is_not_finite_reaches_a_parameter(spoil: Spoil, words: str, tune: Tune, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(DivergedError, match=words) as caught:
        tune(out, steps=8, callbacks=[spoil])
    assert caught.value.exit_code == 3
    assert "before step 4" in str(caught.value)
    assert "6 of stage 1, 7 of stage 1" in str(caught.value)
    newest = state.latest(out / "state")
    assert newest is not None
    assert newest.name == "step-000000003"
    from safetensors.torch import load_file

    assert all(torch.isfinite(tensor).all() for tensor in load_file(newest / "parameters.safetensors").values())
    # Without what spoiled it, the run goes on from there to the end.
    assert tune(out, steps=8, resume=True).status == "done"


def test_a_loss_that_runs_away_stops_the_run(tune: Tune, tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="10 times its running median"):
        tune(tmp_path / "out", steps=20, learning_rate=1e-4, callbacks=[Spoil(6, 50.0)])


def test_the_watch_forgives_a_spike_and_remembers_across_a_resume() -> None:
    watch = Watch()
    assert [watch.fault(2.0) for _ in range(6)] == [None] * 6
    assert [watch.fault(30.0) for _ in range(4)] == [None] * 4
    assert watch.fault(2.0) is None
    again = Watch(watch.to_dict())
    faults = [again.fault(30.0) for _ in range(5)]
    assert faults[:4] == [None] * 4
    assert faults[4] is not None


def test_a_run_that_falls_from_a_high_loss_has_not_diverged() -> None:
    watch = Watch()
    assert all(watch.fault(100.0 / (step + 1)) is None for step in range(50))
