"""How a training goes, in words: where it is, its loss, tokens a second and the time that is left.

On a terminal the line of progress says it and is rewritten. Where there is none (`nohup`, a batch job) a line is said after
the first step and then at most one a minute; the end of a stage, held-out scores and the end of the training are said
everywhere. All of it goes to stderr. The loss is that of the step, as log.jsonl has it.

The rate is of the present stage, what saving and validation take included. The time left takes it for the stages to come,
whose longer rows are slower where attention is most of the work: given up is knowing better.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from ropewalk.core.plurals import counted
from ropewalk.core.progress import Progress, spelled
from ropewalk.tune.settings import Settings, Stage

EVERY_SECONDS = 60.0


class Ticker:
    """Says how far a training is, from the lines of its log."""

    def __init__(
        self, settings: Settings, progress: Progress, *, metric: str = "loss", num_processes: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """`metric` names the held-out scores. The training begins now, at `clock`."""
        self.settings, self.progress, self.metric, self.clock = settings, progress, metric, clock
        self.rows_of_a_step = settings.batch_size * settings.accumulate * num_processes
        self.began = self._before = self._stage_began = clock()
        self._said: float | None = None
        self._stage = self._step = 0
        self._tokens = self._all_tokens = 0
        self._loss = 0.0

    def tell(self, line: Mapping[str, Any]) -> None:
        """A line of the log: a step with its loss, or held-out scores."""
        if "validation" in line:
            self._tell_scores(line)
        elif "loss" in line:
            self._tell_step(line["step"], float(line["loss"]))

    def _tell_step(self, step: int, loss: float) -> None:
        number, stage, last = self._place(step)
        if number != self._stage:
            self._stage, self._stage_began, self._tokens = number, self._before, 0
        self._step, self._loss, self._before = step, loss, self.clock()
        self._tokens += stage.window * self.rows_of_a_step
        self._all_tokens += stage.window * self.rows_of_a_step
        settings = self.settings
        self.progress.at(step / settings.steps, self._words())
        if step == settings.steps:
            return
        if step == last:
            self.progress.say(f"stage {number} of {len(settings.stages)} ends; {self._words()}")
            self._said = self._before
        elif not self.progress.shown and (self._said is None or self._before - self._said >= EVERY_SECONDS):
            self.progress.say(self._words())
            self._said = self._before

    def _words(self) -> str:
        rate = self._tokens / max(1e-9, self._before - self._stage_began)
        return (
            f"step {self._step:,} of {self.settings.steps:,}: loss {self._loss:.4g}, {rate:,.0f} tokens a second, about "
            f"{spelled(self._tokens_left() / rate)} left"
        )

    def _tell_scores(self, line: Mapping[str, Any]) -> None:
        scores = [
            f"{score:.4g} at {int(length):,} tokens" for length, score in line["validation"].items() if score is not None
        ]
        if scores:
            self.progress.say(f"held-out {self.metric} after step {line['step']:,}: {', '.join(scores)}")

    def end(self) -> None:
        """The training is over; nothing is said where no step of it was made here."""
        if self._step:
            self.progress.say(
                f"trained to step {self._step:,} of {self.settings.steps:,}: loss {self._loss:.4g}, "
                f"{counted(self._all_tokens, 'token')} in {spelled(self._before - self.began)}"
            )

    def _place(self, step: int) -> tuple[int, Stage, int]:
        """The number of a step's stage, the stage, and its last step."""
        last, stages = 0, self.settings.stages
        for number, stage in enumerate(stages, 1):
            last += stage.steps
            if step <= last:
                return number, stage, last
        return len(stages), stages[-1], last

    def _tokens_left(self) -> int:
        done, left = self._step, 0
        for stage in self.settings.stages:
            left += max(0, stage.steps - done) * stage.window
            done = max(0, done - stage.steps)
        return left * self.rows_of_a_step
