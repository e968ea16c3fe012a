"""What peers that train share: answers as lines of JSON, and steps that are taken in turn.

It stands beside the scripts and imports nothing of ours, so that a peer's environment needs its own packages alone.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any


def answers() -> Callable[..., None]:
    """Says keywords as one line of JSON to whoever asks. Libraries print; from here on that goes to stderr."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(**content: Any) -> None:
        print(json.dumps(content), file=out, flush=True)

    return say


def peak_bytes() -> int:
    """Most resident memory of this process so far."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


def turns(job: Mapping[str, Any], say: Callable[..., None], seen: Mapping[str, Any]) -> Any:
    """A callback that waits for its turn before a step and tells what the step took, and what was `seen` meanwhile."""
    from transformers import TrainerCallback

    class Turns(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if job["turns"] and not sys.stdin.readline():
                os._exit(1)
            self.began, self.busy = time.perf_counter(), time.process_time()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.seconds, self.cpu = time.perf_counter() - self.began, time.process_time() - self.busy

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if logs and "loss" in logs:
                told = {"seconds": self.seconds, "cpu_seconds": self.cpu, "loss": float(logs["loss"])}
                say(**told, resident_bytes=peak_bytes(), **seen)

    return Turns()
