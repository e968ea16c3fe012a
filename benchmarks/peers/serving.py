"""A peer's side of a race: reads one job, gets ready, then answers the same questions as often as it is told to.

Runs as a plain script's neighbour in the peer's own environment, so it imports nothing but the standard library. The job is
the first line of stdin; every further line is the name of a part of it (`warm`, `all`), answered with one line of JSON.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

Job = dict[str, Any]
Run = Callable[[list[dict[str, Any]]], list[Any]]
"""Stacks of questions in, what was said to each question out, in their order."""


def serve(load: Callable[[Job], tuple[str, Run]]) -> None:
    """Loads as the job says, then runs and times until stdin ends."""
    # Libraries print to stdout; the answers have it for themselves.
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    job: Job = json.loads(sys.stdin.readline())
    version, run = load(job)
    tell(answers, {"version": version})
    for line in sys.stdin:
        stacks = job["stacks"] if line.strip() == "all" else [first_stage(job["stacks"][0])]
        wall, busy = time.perf_counter(), time.process_time()
        said = run(stacks)
        tell(answers, {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - busy, "said": said})


def tell(answers: Any, content: dict[str, Any]) -> None:
    """One line of JSON."""
    answers.write(json.dumps(content) + "\n")
    answers.flush()


def first_stage(stack: dict[str, Any]) -> dict[str, Any]:
    """The shortest context of a stack with its questions: what a warm-up reads."""
    return {**stack, "cuts": stack["cuts"][:1], "questions": [one for one in stack["questions"] if one["stage"] == 0]}
