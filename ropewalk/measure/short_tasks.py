"""Short tasks: what a stretch costs on the benchmarks that everybody reports, asked by lm-eval inside the old window.

A cell is one method on one task. Its samples and then its result are on disk before the next begins
(`short_tasks/METHOD/TASK.jsonl` and `.json`), so a finished cell is never asked again; they are no part of `samples.jsonl`,
whose readers know haystacks. Every method reads the same documents in the same prompts, cut to the same window.

A plan that depends on the length is asked only where it is one and the same at every length up to the old window, as most
are: prompts of many lengths share a forward, and each would need numbers of its own. `crop` is not asked: it crops nothing
there.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ropewalk.core.errors import UnsupportedError
from ropewalk.core.progress import Progress
from ropewalk.core.record import read_lines, safe_name
from ropewalk.core.run import Run
from ropewalk.measure.comparison import Subject
from ropewalk.measure.harness import Harness
from ropewalk.measure.memory import peak_bytes
from ropewalk.measure.settings import NONE

FOLDER = "short_tasks"


def labels(subject: Subject) -> list[str]:
    """The methods that are asked, the untouched model first: the others are paired with it."""
    found = [label for label in subject.plans if subject.keeps(label) is None]
    return sorted(found, key=lambda label: label != NONE)


def check_short(subject: Subject) -> None:
    """Raises `UnsupportedError` for a plan that is not one and the same at every length up to the old window."""
    for label in labels(subject):
        plan = subject.plans[label]
        if plan.kind != "static" and plan.at(1).groups != plan.at(subject.window).groups:
            raise UnsupportedError(
                f"{label} has other frequencies at each length, and short tasks have prompts of every length up to "
                f"{subject.window}; leave --short-tasks out, or give a static method"
            )


def run_short(subject: Subject, harness: Harness, run: Run, progress: Progress) -> None:
    """Every cell that is not on disk yet."""
    for label in labels(subject):
        for task in harness.tasks:
            if (run.path / cell_file(label, task, "json")).is_file():
                continue
            with progress.task(f"{task} {label}"), subject.put_on(label, subject.window):
                began = time.monotonic()
                found = harness.answer(subject.model, subject.tokenizer, task, subject.window, progress)
            names = {"method": label, "task": task}
            result = {
                **names, **asdict(found), "window": subject.window, "seconds": time.monotonic() - began,
                "peak_bytes": peak_bytes(),
            }  # fmt: skip
            samples = result.pop("samples")
            for kind in ("jsonl", "json"):
                run.card.files[cell_file(label, task, kind)] = {"method": label, "document": task}
            run.save_card()
            run.rewrite(cell_file(label, task, "jsonl"), [{**names, **plain(sample)} for sample in samples])
            # The result comes last: where it is, the cell is whole.
            run.rewrite(cell_file(label, task, "json"), [plain(result)])


def cell_file(label: str, task: str, kind: str) -> str:
    """Where a cell lives, relative to the run folder; the card knows the true names."""
    return f"{FOLDER}/{safe_name(label)}/{safe_name(task)}.{kind}"


def read_cell(run: Run, label: str, task: str) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
    """Result and samples of a finished cell."""
    path = run.path / cell_file(label, task, "json")
    if not path.is_file():
        return None
    return next(read_lines(path)), list(read_lines(run.path / cell_file(label, task, "jsonl")))


def plain(value: Any) -> Any:
    """What JSON can say of a value: arrays as lists, numbers that are not finite as words, other objects as their text."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, str | bool | int) or value is None:
        return value
    if isinstance(value, Sequence | set | frozenset):
        return [plain(part) for part in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return str(value)
