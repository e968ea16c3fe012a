"""A run that is killed anywhere ends, resumed, with the very parameters of the unbroken run."""

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError
from small import Tune, tuning
from transformers import TrainerCallback

from ropewalk.core.errors import MachineError, OutputError
from ropewalk.core.run import Run
from ropewalk.engines.transformers import block
from ropewalk.hosts.folder import tuned
from ropewalk.tune import run, state


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class At(TrainerCallback):
    """Does something at a step."""

    def __init__(self, event: str, step: int, act: Callable[..., None] = die) -> None:
        def called(args: Any, progress: Any, control: Any, **kwargs: Any) -> None:
            if progress.global_step == step:
                act()

        setattr(self, event, called)


def dying(module: Any, name: str, number: int) -> list[TrainerCallback]:
    """The process dies when a function is called for the `number`-th time."""
    inner, calls = getattr(module, name), []

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return die() if len(calls) == number else inner(*args, **kwargs)

    setattr(module, name, counted)
    return []


PLACES: dict[str, Callable[[], list[TrainerCallback]]] = {
    "before the first step": lambda: [At("on_train_begin", 0)],
    "between the passes of a step": lambda: [At("on_substep_end", 3)],
    "between gradient and step": lambda: [At("on_pre_optimizer_step", 3)],
    "after a step": lambda: [At("on_step_end", 3)],
    # Five files are written for each state: the ninth is in the midst of the second.
    "while a state is written": lambda: dying(state, "_flush", 9),
    # A file each, and the folder: the twelfth is after the second state's rename, the first one still there.
    "before the older state goes": lambda: dying(state, "_flush", 12),
    "between the last step and the result": lambda: dying(block, "marked", 1),
    "while the result is put in place": lambda: dying(tuned, "_move", 2),
    "between the result and the card that says done": lambda: dying(Run, "save_card", 2),
    "before the states go": lambda: dying(run, "swept", 1),
}


def killed(work: Callable[[], object]) -> bool:
    """Runs `work` in a child process; whether it was killed with signal 9."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


DROPOUT = {"recipe": "lora", "dropout": 0.1, "merge": True}
"""Dropout draws from torch's generator, so its state has to come back too."""


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def unbroken(tied: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody disturbs."""
    out = tmp_path_factory.mktemp("unbroken") / "run"
    tuning(tied)(out, **DROPOUT)
    return out


@pytest.mark.parametrize("place", PLACES)
def test_killed_and_resumed_is_bit_equal_to_unbroken(place: str, tune: Tune, unbroken: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert killed(lambda: tune(out, callbacks=PLACES[place](), **DROPOUT))
    assert tune(out, resume=True, **DROPOUT).status == "done"
    assert weights(out) == weights(unbroken)
    assert (out / "log.jsonl").read_text() == (unbroken / "log.jsonl").read_text()
    assert not (out / "state").exists()
    assert not list(out.glob(".*"))


class Counted(TrainerCallback):
    """Counts the steps that are taken."""

    steps = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps += 1


@pytest.mark.parametrize(("owner", "name", "number"), [(Run, "save_card", 2), (run, "swept", 1)])
def test_killed_after_its_result_a_run_takes_no_step_again(
    owner: Any, name: str, number: int, tune: Tune, tmp_path: Path
) -> None:
    out, counted = tmp_path / "run", Counted()
    assert killed(lambda: tune(out, callbacks=dying(owner, name, number), **DROPOUT))
    assert (out / "config.json").is_file()
    assert tune(out, resume=True, callbacks=[counted], **DROPOUT).status == "done"
    assert counted.steps == 0
    assert not (out / "state").exists()


def test_a_state_holds_no_pickle(tune: Tune, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert killed(lambda: tune(out, callbacks=[At("on_step_end", 3)]))
    files = {path.suffix for path in out.rglob("*") if path.is_file()}
    assert files == {".json", ".jsonl", ".safetensors"}


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error: No space (os error 28)")]
)
def test_a_full_disk_loses_nothing(
    error: Exception, tune: Tune, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, inner = tmp_path / "run", state.save_file

    def full(tensors: Any, path: Path) -> None:
        if "step-000000004" in str(path):
            raise error
        inner(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr(state, "save_file", full)
        with pytest.raises(MachineError, match="the disk is full"):
            tune(out, **DROPOUT)
    newest = state.latest(out / "state")
    assert newest is not None
    assert newest.name == "step-000000002"
    tune(out, resume=True, **DROPOUT)
    assert weights(out) == weights(unbroken)


def test_a_changed_setting_is_another_run(tune: Tune, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert killed(lambda: tune(out, callbacks=[At("on_step_end", 3)]))
    with pytest.raises(OutputError, match="max_grad_norm"):
        tune(out, resume=True, max_grad_norm=0.5)


def test_a_finished_run_is_not_trained_again(tune: Tune, tmp_path: Path) -> None:
    out = tmp_path / "run"
    tune(out, steps=1)
    before = (out / "model.safetensors").stat().st_mtime_ns
    assert tune(out, steps=1, resume=True).status == "done"
    assert (out / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(OutputError, match="--resume"):
        tune(out, steps=1)
