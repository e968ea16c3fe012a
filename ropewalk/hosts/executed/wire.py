"""The child's end of a probe: one job as JSON on stdin, one answer as JSON on stdout, in an engine's own environment.

    python -E -s wire.py transformers|vllm|llamacpp

This file and the probes beside it run where ropewalk is not installed: standard library, numpy and the engine. Engines print
what they like on stdout, so the answer leaves by a descriptor that nothing else knows. What was given up: nothing is kept
between jobs; a process that ends cannot leak one checkpoint's numbers into the next one's.
"""

import base64
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Job = dict[str, Any]
"""`checkpoint`, `dtype`, `cache`, `max_length` (tokens), `threads`; `token_ids` with `positions`: where the next token's
log-probabilities are asked; `prompts` (lists of token ids) with `num_new`: what is to be continued greedily."""


def answer_of(
    version: str, log_probabilities: npt.NDArray[np.float32], generated: list[list[int]], seconds: dict[str, float]
) -> dict[str, Any]:
    """The answer: float32 log-probabilities [num_positions, vocabulary] as base64, -inf where the engine said nothing."""
    raw = np.ascontiguousarray(log_probabilities, dtype="<f4")
    return {
        "version": version,
        "shape": list(raw.shape),
        "log_probabilities": base64.b64encode(raw.tobytes()).decode("ascii"),
        "generated": generated,
        "seconds": seconds,
    }


def array_of(answer: dict[str, Any]) -> npt.NDArray[np.float32]:
    """The log-probabilities of an answer, float32 [num_positions, vocabulary]."""
    flat = np.frombuffer(base64.b64decode(answer["log_probabilities"]), dtype="<f4")
    return flat.reshape(answer["shape"])


class Clock:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        """Ends the phase `name`."""
        now = time.monotonic()
        self.seconds[name] = round(now - self._last, 2)
        self._last = now


def probe_of(engine: str) -> Callable[[Job], dict[str, Any]]:
    """The engine's probe, imported from the file beside this one."""
    # No package is above these files where they run, and so the names are plain.
    if engine == "transformers":
        from transformers_probe import probe  # type: ignore[import-not-found]
    elif engine == "vllm":
        from vllm_probe import probe  # type: ignore[import-not-found]
    else:
        from llamacpp_probe import probe  # type: ignore[import-not-found]
    chosen: Callable[[Job], dict[str, Any]] = probe
    return chosen


def leave_with(parent: int) -> None:
    """Ends this process when the one that started it is gone: a killed command must not leave an engine running."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def main() -> int:
    """Reads the job, runs it, writes the answer."""
    threading.Thread(target=leave_with, args=(os.getppid(),), daemon=True).start()
    answers = os.dup(1)
    os.dup2(2, 1)
    job = json.load(sys.stdin)
    answer = {**probe_of(sys.argv[1])(job), "cpu_seconds": round(time.process_time(), 1)}
    with os.fdopen(answers, "w", encoding="ascii") as out:
        json.dump(answer, out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
