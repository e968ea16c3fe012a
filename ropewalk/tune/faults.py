"""A watch over the loss: what is not finite or runs away stops a run before it has cost anything.

A step whose loss is not finite, or whose gradients are not, is never taken: the parameters before it are saved. A loss above
ten times the running median for five steps is a run that has diverged. Given up: going on by skipping a bad batch, which
hides why it is bad.
"""

import math
from collections import deque
from collections.abc import Mapping
from statistics import median
from typing import Any

from ropewalk.core.errors import MachineError

REMEMBERED = 100
"""Losses the median runs over."""
LIMIT = 10.0
"""A loss above this many medians is too high."""
PATIENCE = 5
"""So many steps in a row of a loss too high are a run that has diverged."""
FEWEST = 5
"""Losses that a median needs to say anything."""


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


def message(fault: str, step: int, rows: str, state: str) -> str:
    """The sentence a run stops with."""
    return (
        f"training stopped before step {step} was taken: {fault} (rows {rows}); the state before it is in {state}; look at "
        "those rows, or begin anew with a lower learning rate and --force"
    )
