"""What callbacks are given, and our own callback: the one that judges a step before it is taken.

Trainer trains a module that holds model and loss. Callbacks and trackers save, generate and ask for `config` or
`peft_config`, so they are given the real model: PEFT's or transformers'. They are called inside the run's autocast, since a
base in bfloat16 with norms that train in float32 runs nowhere else.

Given up: `CallbackHandler` is transformers' own and not promised to stay; the tests hold this to the installed version.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from torch import nn
from transformers import TrainerCallback
from transformers.trainer_callback import CallbackHandler, ExportableState


class Callbacks(CallbackHandler):  # type: ignore[misc]
    """Calls each callback with the real model."""

    def __init__(
        self,
        callbacks: Sequence[TrainerCallback],
        model: nn.Module,
        before: Any,
        precision: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        """`before` is the handler that Trainer made; `precision` makes the run's autocast."""
        self.real, self.precision = model, precision
        super().__init__(callbacks, model, before.processing_class, before.optimizer, before.lr_scheduler)

    @property
    def model(self) -> nn.Module:
        """The real model, whatever Trainer sets."""
        return self.real

    @model.setter
    def model(self, trained: nn.Module) -> None:
        """Trainer sets what it trains before each run."""

    def call_event(self, event: str, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """One event, for all callbacks in turn."""
        with self.precision():
            return super().call_event(event, args, state, control, **kwargs)

    def exported(self, control: Any) -> dict[str, Any]:
        """The states of callbacks that have one, as `TrainerState` holds them: a list where one class is there twice."""
        states: dict[str, Any] = {}
        for callback in [*self.callbacks, control]:
            if isinstance(callback, ExportableState):
                states.setdefault(type(callback).__name__, []).append(callback.state())
        return {name: found[0] if len(found) == 1 else found for name, found in states.items()}


class Judged(Protocol):
    """What `Steps` asks of the trainer."""

    validate: Any

    def begin(self) -> None:
        """Before the first pass of a step."""

    def judge(self) -> None:
        """Between the gradients and the step."""

    def tell(self, line: dict[str, Any]) -> None:
        """A line for the log."""


class Steps(TrainerCallback):  # type: ignore[misc]
    """Judges a step before it is taken, tells its line, and asks for a last validation."""

    def __init__(self, tuner: Judged) -> None:
        self.tuner = tuner

    def on_step_begin(self, args: Any, trainer_state: Any, control: Any, **kwargs: Any) -> None:
        """Before anything is drawn for the step."""
        self.tuner.begin()

    def on_pre_optimizer_step(self, args: Any, trainer_state: Any, control: Any, **kwargs: Any) -> None:
        """Between the gradients and the step."""
        self.tuner.judge()

    def on_step_end(self, args: Any, trainer_state: Any, control: Any, **kwargs: Any) -> None:
        """The last step is validated, whatever its number."""
        if self.tuner.validate is not None and trainer_state.global_step == args.max_steps:
            control.should_evaluate = True

    def on_log(self, args: Any, trainer_state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """One line for each step; the summary at the end and validation have other keys and are left out."""
        if logs and "loss" in logs:
            kept = {key: logs[key] for key in ("loss", "grad_norm", "learning_rate") if key in logs}
            self.tuner.tell({"step": trainer_state.global_step, **kept})


def steps_told(path: Path, upto: int) -> list[dict[str, Any]]:
    """The lines of a log up to a step; half a line at its end, and what was told after the last state, are left out."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            told = json.loads(line)
        except ValueError:
            continue
        if told["step"] <= upto:
            kept.append(told)
    return kept
