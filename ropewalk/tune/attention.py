"""Which attention a run trains with, stage after stage.

Groups of shifted sparse attention may be a share of the rows. They are made tokens from the rows that a stage has, so a
curriculum's groups grow with its rows, as LongLoRA's quarter does; and never from a batch, whose length is that of its
padding. At the first step of a stage its groups are put on in place of the last one's: the model's config says what is on at
every step, and a resumed run puts on what its step has.
"""

from contextlib import ExitStack
from types import TracebackType
from typing import Any

import numpy as np
from torch import nn
from transformers import TrainerCallback

from ropewalk.attention.registered import put_on
from ropewalk.attention.shifted import Shifted
from ropewalk.tune.settings import Settings


class StageAttention(TrainerCallback):  # type: ignore[misc]
    """`with StageAttention(model, settings) as attention: ...` puts on the first stage's attention, and at the end takes off
    what is on. As a callback of the trainer it follows the stages."""

    def __init__(self, model: nn.Module, settings: Settings) -> None:
        self.model, self.own = model, settings.attention == "own"
        self.stages = stage_groups(settings)
        self.ends = np.cumsum([stage.steps for stage in settings.stages])
        self._on = ExitStack()
        self._now: Shifted | None = None

    def __enter__(self) -> "StageAttention":
        """Raises `UnsupportedError` for a model that segments cannot serve."""
        if not self.own:
            self._put(self.stages[0])
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._on.close()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Before the first pass of a step."""
        wanted = self.stages[int(np.searchsorted(self.ends, state.global_step, side="right"))]
        if wanted != self._now:
            self._put(wanted)

    def _put(self, shifted: Shifted | None) -> None:
        self._on.close()
        self._on.enter_context(put_on(self.model, shifted))
        self._now = shifted


def stage_groups(settings: Settings) -> list[Shifted | None]:
    """The groups of each stage in tokens; None where attention is not shifted sparse."""
    shifted = settings.shifted
    return [None if shifted is None else shifted.at(stage.window) for stage in settings.stages]
