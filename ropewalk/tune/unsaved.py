"""A training that leaves nothing behind: the run's own learner, attention, trainer and optimizer, and no file.

Whatever is measured of a step, its memory or its time, is measured through this, so that it is what a run costs and not what
a likeness of it does.

Given up: a state to go on from, a log and a result; `ropewalk.tune.run` has those.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ropewalk.tune.arguments import arguments
from ropewalk.tune.attention import StageAttention
from ropewalk.tune.batches import RunRows, Stream
from ropewalk.tune.heap import give_back_large
from ropewalk.tune.learner import Learner
from ropewalk.tune.run import accumulation_in_order, dressed
from ropewalk.tune.settings import Settings
from ropewalk.tune.trainer import Tuner


class Unsaved(Tuner):
    """Leaves no state behind."""

    def save_state(self, *, fault: str | None = None) -> None:
        """Nothing."""


def train_unsaved(
    model: Any, settings: Settings, streams: Sequence[Stream], *, device: torch.device, bfloat16: bool,
    callbacks: Sequence[Any] = (),
) -> Learner:  # fmt: skip
    """Trains a model that is on its device, one stream for each stage; the learner that it became."""
    give_back_large()
    with StageAttention(model, settings) as attention, tempfile.TemporaryDirectory() as away:
        learner = dressed(model, settings)
        args = arguments(settings, Path(away), device=device.type, bfloat16=bfloat16)
        tuner = Unsaved(
            learner, args, RunRows(settings, streams), states=Path(away) / "states", callbacks=[attention, *callbacks]
        )
        with accumulation_in_order():
            tuner.go()
    return learner
