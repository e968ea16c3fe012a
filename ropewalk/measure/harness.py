"""lm-eval on a live model: its tasks found and loaded, and one of them answered by whatever the model computes now.

A published score of a short task is lm-eval's score, down to how a choice is joined to its question. So prompts, rules and
means are left to it, and only what belongs to the model is ours: the plan that is on, and the window that prompts are cut
to. What it prints is kept from the terminal.

`lm_eval.evaluate` is called rather than `simple_evaluate`, which is the same after it has built a model, seeded every
generator of the process and asked the machine for its packages, once for each task. Few-shot counts and seeds are set here
as it sets them, and a test holds the two against each other. `--seed 0` draws what lm-eval draws by default.

Given up: tasks with images or sound, and tasks that run what the model writes (`unsafe_code`), which is never confirmed.

Source: EleutherAI, lm-evaluation-harness (https://github.com/EleutherAI/lm-evaluation-harness), 0.4.13.
"""

import copy
import logging
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from io import StringIO
from typing import Any

import numpy as np
import torch

from ropewalk.core.errors import InputError, MachineError, UnsupportedError, near
from ropewalk.core.progress import Progress
from ropewalk.measure.settings import ShortSettings

SEED = 1234
"""What lm-eval seeds numpy, torch and the few-shot draws with by default; `random` it seeds with 0."""
RESAMPLES = 1000
"""Of the bootstrap by which lm-eval makes standard errors where it has no formula."""
Sample = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What lm-eval says of one task."""

    metrics: list[dict[str, Any]]
    """`name`, `filter`, `value`, `stderr` (None where lm-eval makes none), `higher_is_better`."""
    samples: list[Sample]
    """One a document and filter, as lm-eval logs them."""
    num_fewshot: int
    num_documents: int
    num_available: int
    """Documents that the task has."""
    task_version: str
    num_cut: int
    """Warnings of lm-eval that a prompt did not fit the window and was cut from the left."""


class Harness:
    """The short tasks of a run, loaded."""

    def __init__(self, asked: ShortSettings, seed: int) -> None:
        """Raises `InputError` for a task that is unknown, broken or not ours to run, `MachineError` without its data."""
        self.asked, self.seed = asked, seed
        self.tasks: dict[str, Any] = {}
        self.members: dict[str, tuple[str, ...]] = {}
        """A name that was asked for, and the tasks it stands for."""
        with _quiet(), _seeded(seed), _sandboxed():
            manager = _manager(asked)
            for name in asked.names:
                if name not in manager.all_tasks:
                    raise InputError(f"lm-eval has no task {name!r}; {_near(name, manager.all_tasks)}")
                _check_safe(manager, name)
                loaded = _load(manager, name)
                self.tasks |= loaded
                self.members[name] = tuple(loaded)
        for name, task in self.tasks.items():
            _check(name, task)
            if asked.num_fewshot is not None or task.get_config("num_fewshot") is None:
                _set_fewshot(task, asked.num_fewshot or 0)

    def versions(self) -> dict[str, str]:
        """Versions of what makes the prompts and the scores."""
        return {name: version(name) for name in ("lm_eval", "datasets")}

    def answer(self, model: Any, tokenizer: Any, name: str, max_length: int, progress: Progress) -> Answered:
        """One task, asked of a model as it is now, prompts cut from the left to `max_length` tokens."""
        from lm_eval import evaluate
        from lm_eval.models.huggingface import HFLM

        task = self.tasks[name]
        with _quiet() as said, _seeded(self.seed), _sandboxed(), _counted(model, task, self.asked.batch_size, progress):
            task.set_fewshot_seed(SEED + self.seed)
            # lm-eval sets the padding of the tokenizer that it is given.
            reader = HFLM(
                pretrained=model, tokenizer=copy.deepcopy(tokenizer), backend="causal", max_length=max_length,
                batch_size=self.asked.batch_size,
            )  # fmt: skip
            try:
                found = evaluate(reader, {"tasks": {name: task}}, limit=self.asked.limit, bootstrap_iters=RESAMPLES)
            except (ValueError, AssertionError, KeyError, TypeError) as error:
                raise InputError(f"lm-eval gives up on the task {name}: {_reason(error)}") from error
        return _answered(name, found, sum("runcat" in line for line in said))


def _answered(name: str, found: Any, num_cut: int) -> Answered:
    result, directions = found["results"][name], found["higher_is_better"][name]
    metrics = []
    for key, value in result.items():
        metric, comma, kind = key.partition(",")
        if not comma or metric.endswith("_stderr"):
            continue
        stderr = result.get(f"{metric}_stderr,{kind}")
        metrics.append(
            {
                "name": metric, "filter": kind, "value": float(value),
                "stderr": float(stderr) if isinstance(stderr, int | float) else None,
                "higher_is_better": directions.get(metric),
            }
        )  # fmt: skip
    counts = found["n-samples"][name]
    return Answered(
        metrics=metrics, samples=found["samples"][name], num_fewshot=int(found["n-shot"].get(name) or 0),
        num_documents=int(counts["effective"]), num_available=int(counts["original"]),
        task_version=str(found["versions"].get(name)), num_cut=num_cut,
    )  # fmt: skip


# --- tasks ------------------------------------------------------------------------------------------------------------


def _manager(asked: ShortSettings) -> Any:
    """lm-eval's index of tasks. The thousands that it ships are read only where the user's folder does not have all."""
    from lm_eval.tasks import TaskManager

    if asked.path is not None:
        own = TaskManager(include_path=asked.path, include_defaults=False)
        if all(_is_whole(own, name) for name in asked.names):
            return own
    return TaskManager(include_path=asked.path)


def _is_whole(manager: Any, name: Any) -> bool:
    """Whether an index has a task, or a group with all its members: one of the user's may hold tasks of lm-eval's."""
    if not isinstance(name, str) or name in manager.all_subtasks:
        return isinstance(name, str)
    members = manager.task_index[name].cfg.get("task", []) if name in manager.all_groups else None
    return isinstance(members, list) and all(_is_whole(manager, member) for member in members)


def _near(name: str, known: Sequence[str]) -> str:
    """The near names; where there are none, thousands are not listed."""
    said = near(name, known)
    return said if len(known) < 50 or said.startswith("did") else "lm-eval ls tasks lists those it has"


def _load(manager: Any, name: str) -> dict[str, Any]:
    """The tasks a name stands for, with their data."""
    try:
        found: dict[str, Any] = manager.load([name])["tasks"]
    except (ConnectionError, TimeoutError) as error:
        raise MachineError(
            f"the data of the task {name} is not on this machine and cannot be fetched ({_reason(error)}); connect, or hand "
            "in a task file that reads a file of yours with --short-tasks-path"
        ) from error
    except Exception as error:
        # Task files are programs of others: whatever comes out of one is a broken task.
        raise InputError(f"lm-eval cannot load the task {name}: {_reason(error)}") from error
    if not found:
        raise InputError(f"{name} stands for no task in lm-eval; name a task")
    return found


def _check_safe(manager: Any, name: Any) -> None:
    """Raises `UnsupportedError` for a task that runs what a model writes, before its file is: that may load more code."""
    entry = manager.task_index.get(name) if isinstance(name, str) else None
    if entry is None:
        return
    if (entry.cfg or {}).get("unsafe_code"):
        raise UnsupportedError(f"the task {name} runs the code that a model writes, which ropewalk never does; leave it out")
    members = (entry.cfg or {}).get("task", ())
    for member in members if isinstance(members, list) else entry.tags if entry.yaml_path is None else ():
        _check_safe(manager, member.get("task") if isinstance(member, dict) else member)


def _check(name: str, task: Any) -> None:
    """Raises `UnsupportedError` for tasks that are not put to a model of text."""
    if getattr(task, "MULTIMODAL", False):
        raise UnsupportedError(f"the task {name} shows images or plays sound, and ropewalk reads text; leave it out")


def _set_fewshot(task: Any, num: int) -> None:
    """Examples before each question, by lm-eval's own rule: a task that says 0 keeps it."""
    if task.get_config("num_fewshot") != 0:
        task.set_config(key="num_fewshot", value=num)


def _reason(error: BaseException) -> str:
    """The first line of an error, and what it is where that says nothing."""
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# --- the process while lm-eval runs -----------------------------------------------------------------------------------


@contextmanager
def _quiet() -> Iterator[list[str]]:
    """Nothing on stdout and stderr, and lm-eval's warnings in the list. Bars and prints would break a JSON document."""
    said: list[str] = []
    logger = logging.getLogger("lm_eval")
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            yield said
    finally:
        logger.propagate = before
        logger.removeHandler(handler)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Every generator that task files draw from, seeded as lm-eval seeds them, and put back afterwards."""
    python, numpy, parallel = random.getstate(), np.random.get_state(), os.environ.get("DISABLE_MULTIPROC")
    with torch.random.fork_rng():
        random.seed(seed)
        np.random.seed((SEED + seed) % 2**32)
        torch.manual_seed(SEED + seed)
        # A pool of processes that each hold a copy of the model, for a bootstrap that takes a second.
        os.environ["DISABLE_MULTIPROC"] = "1"
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
            if parallel is None:
                del os.environ["DISABLE_MULTIPROC"]
            else:
                os.environ["DISABLE_MULTIPROC"] = parallel


@contextmanager
def _sandboxed() -> Iterator[None]:
    """Templates of task files in Jinja's sandbox: without it a template reaches any Python object from any string."""
    from jinja2.sandbox import SandboxedEnvironment
    from lm_eval import utils

    usual = utils.env
    boxed = SandboxedEnvironment(loader=usual.loader, undefined=usual.undefined, keep_trailing_newline=True)
    boxed.filters.update(usual.filters)
    utils.env = boxed
    try:
        yield
    finally:
        utils.env = usual


@contextmanager
def _counted(model: Any, task: Any, batch_size: int, progress: Progress) -> Iterator[None]:
    """Progress by forwards, where a request is one. Requests that differ in their last token share one, so it may jump."""
    done = 0

    def tick(*_: Any) -> None:
        nonlocal done
        done += 1
        if task.OUTPUT_TYPE != "generate_until":
            progress.at(min(0.99, done * batch_size / max(1, len(task.instances))))

    handle = model.register_forward_hook(tick)
    try:
        yield
    finally:
        handle.remove()
