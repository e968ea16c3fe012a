"""A loss that is not finite or runs away stops a run before the step is taken."""

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from small import Tune
from streams import Unlabelled
from test_resume import At, killed
from transformers import TrainerCallback

from ropewalk.core.errors import MachineError, OutputError
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
        # Finite, and their squares are not.
        (Spoil(3, 1e25, gradients=True), "the norm of the gradients is inf"),
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


def test_a_language_model_that_collapses_has_diverged() -> None:
    """ln V of 49,152 words is 10.8, five times a usual loss: no factor of ten ever comes."""
    for before in (1, 3, 100):
        watch = Watch()
        assert [watch.fault(2.2) for _ in range(before)] == [None] * before
        faults = [watch.fault(10.8) for _ in range(5)]
        assert faults[:4] == [None] * 4
        assert faults[4] is not None
        assert "nats above the lowest running median 2.2 for 5 steps" in faults[4]


def test_a_collapse_is_seen_however_slowly_it_comes_and_however_losses_scatter() -> None:
    draw = random.Random(0)
    watch = Watch()
    assert all(watch.fault(2.2 + draw.gauss(0, 0.8)) is None for _ in range(300))
    # So slowly that a running median alone goes along.
    assert any(watch.fault(2.2 + 8.6 * step / 600 + draw.gauss(0, 0.8)) for step in range(700))


@pytest.mark.parametrize("seed", range(5))
def test_what_ordinary_runs_do_is_no_fault(seed: int) -> None:
    """Rows of prose, code and tables one at a time; a first step that harms; a stretched model that learns to read again."""
    draw = random.Random(seed)
    noise = [draw.choice((0.9, 2.2, 2.6, 3.4)) + draw.gauss(0, 0.5) for _ in range(5000)]
    easy_first = [0.3, *(3.4 + draw.gauss(0, 0.4) for _ in range(300))]
    harmed = [2.4, *(2.4 + 2.5 * 0.97**step + draw.gauss(0, 0.2) for step in range(300))]
    stretched = [7.5 * 0.9**step + 2.3 + draw.gauss(0, 0.2) for step in range(300)]
    for losses in (noise, easy_first, harmed, stretched):
        watch = Watch()
        assert {watch.fault(max(0.01, loss)) for loss in losses} == {None}


def test_a_step_without_a_learned_token_is_not_looked_at() -> None:
    draw = random.Random(0)
    watch = Watch()
    for _ in range(400):
        learned = draw.random() < 0.4
        assert watch.fault(draw.uniform(1.8, 2.6) if learned else 0.0, learned=learned) is None
    assert min(watch.losses) >= 1.8
    # Such a step neither interrupts five bad ones nor counts among them, and what is not finite is still a fault.
    faults = [watch.fault(loss, learned=loss > 0) for loss in (30.0, 0.0, 30.0, 0.0, 0.0, 30.0, 30.0, 0.0, 30.0)]
    assert faults[:8] == [None] * 8
    assert faults[8] is not None
    assert watch.fault(math.nan, learned=False) == "the loss is nan"


def test_given_rows_without_labels_stop_no_healthy_run(tune: Tune, tmp_path: Path) -> None:
    """Eight steps learn nothing and eight do: the median of all losses would be 0, every real loss ten times above it."""
    out = tmp_path / "out"
    assert tune(out, data=Unlabelled, steps=16, learning_rate=1e-4).status == "done"
    losses = [json.loads(line)["loss"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert [loss == 0 for loss in losses] == [True] * 8 + [False] * 8


# --- the way out of a fault ------------------------------------------------------------------------------------------------


class Exploding(TrainerCallback):
    """Gradients become NaN once the parameters have gone too far, as with a rate that is too high."""

    def __init__(self, furthest: float) -> None:
        self.furthest = furthest

    def on_train_begin(self, args: Any, progress: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.begun = getattr(self, "begun", {name: p.detach().clone() for name, p in model.named_parameters()})

    def on_step_begin(self, args: Any, progress: Any, control: Any, model: Any = None, **_: Any) -> None:
        far = max(float((p.detach() - self.begun[name]).abs().max()) for name, p in model.named_parameters())
        if far > self.furthest:
            next(model.parameters()).register_hook(lambda grad: grad * math.nan)


def beginning(tied: Path) -> dict[str, torch.Tensor]:
    from ropewalk.hosts import live

    model, _ = live.load(tied, dtype=torch.float32, device="cpu")
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def exploding(tied: Path) -> Exploding:
    """With AdamW a step at rate r moves a parameter by about r: 1e-2 is too far after the third step, 1e-3 never."""
    callback = Exploding(0.025)
    callback.begun = beginning(tied)
    return callback


def test_a_fault_comes_again_and_a_lower_rate_goes_on(tied: Path, tune: Tune, tmp_path: Path) -> None:
    out, asked = tmp_path / "out", {"steps": 8, "save_every": 2}
    with pytest.raises(DivergedError, match=r"before step 4 was taken.*lower --learning-rate, which goes on from step 2"):
        tune(out, callbacks=[exploding(tied)], **asked)
    # The same command: the same step, from the state that was written at the fault; the one before it is still there.
    with pytest.raises(DivergedError, match="before step 4"):
        tune(out, callbacks=[exploding(tied)], resume=True, **asked)
    assert sorted(path.name for path in (out / "state").glob("step-*")) == ["step-000000002", "step-000000003"]
    with pytest.raises(OutputError, match="learning_rate"):
        tune(out, resume=True, **{**asked, "learning_rate": 2e-2})
    # A lower one, killed on the way: the state of the fault is not taken up again.
    assert killed(
        lambda: tune(out, callbacks=[exploding(tied), At("on_step_end", 3)], resume=True, learning_rate=1e-3, **asked)
    )
    card = tune(out, callbacks=[exploding(tied)], resume=True, learning_rate=1e-3, **asked)
    assert card.status == "done"
    assert card.config["learning_rate"] == 1e-3
    told = {"step": 2, "from": 1e-2, "to": 1e-3, "fault": "a gradient is not finite", "stopped_after": 3}
    assert card.config["lowered"] == [told]
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [line["learning_rate"] for line in lines] == pytest.approx([1e-2] * 2 + [1e-3] * 6)


def test_a_lower_rate_without_a_fault_is_another_run(tune: Tune, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert killed(lambda: tune(out, callbacks=[At("on_step_end", 3)]))
    with pytest.raises(OutputError, match="learning_rate"):
        tune(out, resume=True, learning_rate=1e-3)


def test_a_fault_right_after_a_state_keeps_that_state(tune: Tune, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(DivergedError, match="no state before that one is left"):
        tune(out, callbacks=[Spoil(2, math.nan)])
    (newest,) = (out / "state").glob("step-*")
    before = {path.name: path.stat().st_mtime_ns for path in newest.iterdir()}
    with pytest.raises(DivergedError):
        tune(out, callbacks=[Spoil(2, math.nan)], resume=True)
    assert {path.name: path.stat().st_mtime_ns for path in newest.iterdir()} == before


def test_a_state_at_a_fault_is_bit_equal_to_go_on_from(tune: Tune, tmp_path: Path) -> None:
    """With dropout: the failed step had drawn its masks already, and the resumed one draws the same ones again."""
    asked = {"recipe": "lora", "dropout": 0.1, "merge": True, "steps": 6, "save_every": 50}
    tune(tmp_path / "whole", **asked)
    with pytest.raises(DivergedError):
        tune(tmp_path / "out", callbacks=[Spoil(3, math.nan)], **asked)
    tune(tmp_path / "out", resume=True, **asked)
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "out"))
    assert one == other
