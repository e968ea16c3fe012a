"""A watch over the loss: what is not finite or runs away stops a run before it has cost anything.

A step whose loss is not finite, or whose gradients are not, is never taken: the parameters before it are saved. A loss above
ten times the running median for five steps is a run that has diverged.

The same command would come to the same fault, to the last bit. So `state/fault.json` says where the run was stopped, and a
resumed run may then have a lower learning rate: it goes on from the last state that was written in the course of the run,
since the parameters just before the fault are what made it.

Given up: going on by skipping a bad batch, which hides why it is bad.
"""

import json
import math
import shutil
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from ropewalk.core.errors import MachineError
from ropewalk.core.run import write_atomic
from ropewalk.tune import state

REMEMBERED = 100
"""Losses the median runs over."""
LIMIT = 10.0
"""A loss above this many medians is too high."""
PATIENCE = 5
"""So many steps in a row of a loss too high are a run that has diverged."""
FEWEST = 5
"""Losses that a median needs to say anything."""
FAULT = "fault.json"


class DivergedError(MachineError):
    """Training stopped by the watch; the state before the step is saved."""


class Watch:
    """Sees every step's loss; `fault` is what is wrong, in words, or None."""

    def __init__(self, content: Mapping[str, Any] | None = None) -> None:
        """With the `content` of an earlier watch it goes on from there."""
        known = content or {"losses": [], "high": 0}
        self.losses: deque[float] = deque(known["losses"], maxlen=REMEMBERED)
        self.high = int(known["high"])

    def to_dict(self) -> dict[str, Any]:
        """In JSON types."""
        return {"losses": list(self.losses), "high": self.high}

    def fault(self, loss: float) -> str | None:
        """What is wrong with the loss of a step, None where nothing is."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        middle = median(self.losses) if len(self.losses) >= FEWEST else math.inf
        self.high = self.high + 1 if loss > LIMIT * middle else 0
        if self.high >= PATIENCE:
            return f"the loss is {loss:.4g}, above {LIMIT:g} times its running median {middle:.4g} for {PATIENCE} steps"
        if not self.high:
            # What is too high is no measure of what is usual.
            self.losses.append(loss)
        return None


def note(states: Path, step: int, fault: str, rate: float) -> None:
    """Writes down that the step after `step` failed at a learning rate; before the state at `step` is written."""
    known = noted(states)
    own = known["own"] if known and known["step"] == step else not (state.place(states, step) / state.DONE).is_file()
    content = {"step": step, "fault": fault, "learning_rate": rate, "own": own}
    write_atomic(states / FAULT, json.dumps(content).encode())


def noted(states: Path) -> dict[str, Any] | None:
    """What `note` wrote; None where no fault stopped the run, or a later state was written since."""
    try:
        content: dict[str, Any] = json.loads((states / FAULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    newest = state.latest(states)
    return content if newest is None or newest.name <= state.place(states, int(content["step"])).name else None


def before(states: Path) -> Path | None:
    """The newest state that was not written at a fault."""
    fault = noted(states)
    return state.latest(states, but=state.place(states, fault["step"]) if fault and fault["own"] else None)


def leave(states: Path, rate: float) -> None:
    """Takes the state at a fault away where a run goes on at another rate than failed: what made the fault is in it."""
    fault = noted(states)
    if fault is None or fault["learning_rate"] == rate:
        return
    if fault["own"]:
        shutil.rmtree(state.place(states, fault["step"]), ignore_errors=True)
    (states / FAULT).unlink()


def message(fault: str, step: int, rows: str, states: Path) -> str:
    """The sentence a run stops with: the same command would come to the same fault, so it says what would not."""
    sound = before(states)
    since = 0 if sound is None else state.read(sound)["step"]
    lower = f"give the same command with --resume and a lower --learning-rate, which goes on from step {since}, or take "
    if since == step - 1:
        # Another rate changes nothing before the failed step.
        lower = "no state before that one is left to go on from, so begin anew with a lower --learning-rate, or take "
    return (
        f"training stopped before step {step} was taken: {fault} (rows {rows}); the state before it is in {states}; {lower}"
        "those rows out of the data and begin anew with --force"
    )
