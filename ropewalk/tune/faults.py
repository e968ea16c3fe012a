"""A watch over the loss: what is not finite or runs away stops a run before it has cost anything.

A step whose loss, gradients or norm of gradients are not finite is never taken: the parameters before it are saved. A loss
that is too high for five steps is a run that has diverged: above ten times its running median, or, since a language model
that has forgotten all says ln V (10.8 of 2.2) and never more, far above its lowest median in nats: eight times as far as
losses usually are from their median, at least 3 and at most 6. Before twenty losses are known it is 6, above the median of
those there are: the first one is the untouched model's. A loss one or two nats up that comes down again is no fault. A step
that learns no token has a loss of 0 that says nothing: only whether it is finite is looked at, and it is not remembered.

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
NATS = 3.0
"""A loss so far above the lowest median is too high: a perplexity 20 times as large; more where losses scatter."""
MOST_NATS = 6.0
"""A loss so far above it is too high, however they scatter: from 2 nats to ln 49,152 it is 8.8."""
SPREADS = 8.0
"""How many median distances from the median are usual; of a normal distribution 8 are 5.4 standard deviations."""
KNOWN = 20
"""Losses that a median needs to be the lowest one: of five easy rows it would be too low for all that follows."""
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
        self.lowest: float | None = known.get("lowest")

    def to_dict(self) -> dict[str, Any]:
        """In JSON types."""
        return {"losses": list(self.losses), "high": self.high, "lowest": self.lowest}

    def fault(self, loss: float, *, learned: bool = True) -> str | None:
        """What is wrong with the loss of a step, None where nothing is; `learned` is whether any token was."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not learned:
            return None
        above = self._above(loss)
        self.high = self.high + 1 if above else 0
        if above and self.high >= PATIENCE:
            return f"the loss is {loss:.4g}, {above} for {PATIENCE} steps"
        if not above:
            # What is too high is no measure of what is usual.
            self.losses.append(loss)
            if len(self.losses) >= KNOWN:
                self.lowest = min(median(self.losses), math.inf if self.lowest is None else self.lowest)
        return None

    def _above(self, loss: float) -> str | None:
        """What a loss is too high above, in words; None where it is not."""
        if not self.losses:
            return None
        middle = median(self.losses)
        if len(self.losses) >= FEWEST and loss > LIMIT * middle:
            return f"above {LIMIT:g} times its running median {middle:.4g}"
        lowest, margin = middle, MOST_NATS
        if self.lowest is not None:
            spread = median(abs(one - middle) for one in self.losses)
            lowest, margin = self.lowest, min(max(NATS, SPREADS * spread), MOST_NATS)
        if loss > lowest + margin:
            return f"more than {margin:.2g} nats above the lowest running median {lowest:.4g}"
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
