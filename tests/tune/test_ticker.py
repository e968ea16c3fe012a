"""A training says how it goes where no terminal shows it: by a clock of the test, and once as a batch job does it."""

import io
import json
from pathlib import Path

import pytest
from command import Command

from ropewalk.core.progress import Progress
from ropewalk.tune.settings import Settings, Stage
from ropewalk.tune.ticker import Ticker

SETTINGS = Settings(length=16384, stages=(Stage(window=16384, steps=100),), batch_size=2, accumulate=2)
CURRICULUM = Settings(length=8192, stages=(Stage(window=4096, steps=3), Stage(window=8192, steps=2)))


class Clock:
    """Seconds as a test sets them."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def told(settings: Settings, seconds: float, *, first: int = 1, stream: io.StringIO | None = None) -> list[str]:
    """The lines of a training whose steps take so many seconds each."""
    stream, clock = stream or io.StringIO(), Clock()
    ticker = Ticker(settings, Progress(stream, patience_seconds=0.0), clock=clock)
    for step in range(first, settings.steps + 1):
        clock.now += seconds
        ticker.tell({"step": step, "loss": 10.0 - step / 100, "grad_norm": 1.0})
    ticker.end()
    return stream.getvalue().splitlines()


def test_a_line_after_the_first_step_and_then_at_most_one_a_minute() -> None:
    lines = told(SETTINGS, 8.0)
    # 4 rows of 16,384 tokens in 8 seconds; 99 steps are left, which are 13 minutes.
    assert lines[0] == "step 1 of 100: loss 9.99, 8,192 tokens a second, about 13 min left"
    steps = [int(line.split()[1]) for line in lines[:-1]]
    assert steps == list(range(1, 100, 8))
    assert lines[-1] == "trained to step 100 of 100: loss 9, 6,553,600 tokens in 13 min"


def test_slow_steps_are_told_one_by_one() -> None:
    assert [line.split()[1] for line in told(CURRICULUM, 90.0)[:3]] == ["1", "2", "1"]


def test_the_end_of_each_stage_is_told_and_rates_are_of_a_stage() -> None:
    lines = told(CURRICULUM, 2.0)
    assert lines == [
        "step 1 of 5: loss 9.99, 2,048 tokens a second, about 12 s left",
        "stage 1 of 2 ends; step 3 of 5: loss 9.97, 2,048 tokens a second, about 8 s left",
        "trained to step 5 of 5: loss 9.95, 28,672 tokens in 10 s",
    ]


def test_a_resumed_run_counts_what_it_does_itself() -> None:
    lines = told(CURRICULUM, 2.0, first=4)
    assert lines[0] == "step 4 of 5: loss 9.96, 4,096 tokens a second, about 2 s left"
    assert lines[-1] == "trained to step 5 of 5: loss 9.95, 16,384 tokens in 4 s"


def test_held_out_scores_are_told_under_their_name_and_what_is_no_number_is_not() -> None:
    stream = io.StringIO()
    ticker = Ticker(SETTINGS, Progress(stream), metric="accuracy")
    ticker.tell({"step": 50, "validation": {"4096": 3.0517, "16384": None}})
    ticker.tell({"step": 60, "validation": {"4096": None}})
    ticker.end()
    assert stream.getvalue() == "held-out accuracy after step 50: 3.052 at 4,096 tokens\n"


def test_a_terminal_has_it_in_the_line_that_is_rewritten() -> None:
    stream, clock = Terminal(), Clock()
    progress = Progress(stream, patience_seconds=0.0)
    ticker = Ticker(SETTINGS, progress, clock=clock)
    with progress.task("training"):
        clock.now += 8.0
        ticker.tell({"step": 1, "loss": 9.99})
        progress._draw()
    assert "step 1 of 100: loss 9.99, 8,192 tokens a second" in stream.getvalue()
    assert "\n" not in stream.getvalue()


def test_a_batch_job_s_log_has_the_loss_and_its_stdout_one_document(
    tied: Path, books: Path, tmp_path: Path, command: Command
) -> None:
    said = command(
        "tune", tied, "--data", books, "--length", "64", "--steps", "2", "--learning-rate", "1e-3", "--device", "cpu",
        "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert json.loads(said.out)["status"] == "done"
    losses = [json.loads(line)["loss"] for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    lines = said.err.splitlines()
    assert [line for line in lines if line.startswith(f"step 1 of 2: loss {losses[0]:.4g}, ")]
    assert [line for line in lines if line.startswith(f"trained to step 2 of 2: loss {losses[1]:.4g}, 128 tokens in ")]


@pytest.mark.parametrize("steps", [1, 3])
def test_a_finished_training_that_is_resumed_says_nothing(steps: int) -> None:
    stream = io.StringIO()
    Ticker(Settings(length=64, stages=(Stage(window=64, steps=steps),)), Progress(stream)).end()
    assert stream.getvalue() == ""
