"""A probe in a process of its own: started in the engine's environment, bounded in time, ended with its children.

What was given up: a server that stays up between probes. A start costs seconds, and a process that answers one job cannot
answer it with the state of another.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ropewalk.core.errors import HostError, MachineError
from ropewalk.hosts import processes
from ropewalk.hosts.executed import wire
from ropewalk.hosts.executed.environments import OLDEST, missing, python_of

QUIET = processes.QUIET | {
    # Threads that wait without spinning: a spinning one takes the core from the one it waits for.
    "OMP_WAIT_POLICY": "passive",
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}
"""What every probe finds in its environment."""
KEPT = (
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "XDG_CACHE_HOME", "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
)  # fmt: skip
"""What it finds of ours."""
LONGEST_SECONDS = 1800.0


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What one engine is asked about one checkpoint."""

    checkpoint: Path
    """A folder, or for llama.cpp a GGUF file."""
    token_ids: tuple[int, ...] = ()
    positions: tuple[int, ...] = ()
    """Indices into `token_ids`, rising: where the next token's distribution is asked."""
    prompts: tuple[tuple[int, ...], ...] = ()
    """Token ids to be continued greedily."""
    num_new: int = 16
    """Tokens to continue with."""
    dtype: str = "float32"
    """Of weights and activations; a GGUF file has its own."""
    cache: str = ""
    """Type of the key-value cache in the engine's spelling; empty: the same as `dtype`."""
    max_length: int = 0
    """Tokens the engine is opened for; 0: what the longest request needs."""
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the engine said."""

    engine: str
    version: str
    log_probabilities: npt.NDArray[np.float32]
    """[num_positions, vocabulary]; -inf where the engine said nothing."""
    generated: tuple[tuple[int, ...], ...]
    seconds: dict[str, float]
    """By phase: load, probe, generate."""
    cpu_seconds: float = 0.0
    """Of the whole process, all threads: what it costs on a busy machine too."""


def probe(engine: str, asked: Probe, *, limit_seconds: float = LONGEST_SECONDS) -> Answer:
    """Runs one probe and ends every process it started.

    Raises `HostError` where the engine refuses the checkpoint or crashes, with its own last words, and `MachineError` where
    it is not installed or passes the time limit.
    """
    python = python_of(engine)
    if python is None:
        raise MachineError(missing(engine))
    # Another environment must not see the user's own site-packages; in ours they are where the engine was found.
    alone = [] if str(python) == sys.executable else ["-E", "-s"]
    raw = _run(engine, [str(python), *alone, wire.__file__, _script(engine)], _job(engine, asked), asked, limit_seconds)
    return Answer(
        engine=engine,
        version=str(raw["version"]),
        log_probabilities=wire.array_of(raw),
        generated=tuple(tuple(ids) for ids in raw["generated"]),
        seconds=dict(raw["seconds"]),
        cpu_seconds=float(raw["cpu_seconds"]),
    )


def _script(engine: str) -> str:
    return "transformers" if engine == OLDEST else engine.replace(".", "")


def _job(engine: str, asked: Probe) -> dict[str, Any]:
    # One token is generated after the last probe, and llama.cpp rounds a context up to 256.
    needed = max([position + 2 for position in asked.positions] + [len(p) + asked.num_new for p in asked.prompts] + [1])
    own = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}[asked.dtype] if engine == "llama.cpp" else "auto"
    return {
        "checkpoint": str(asked.checkpoint.absolute()),
        "dtype": asked.dtype,
        "cache": asked.cache or own,
        "max_length": asked.max_length or -(-needed // 256) * 256,
        "threads": asked.threads,
        "token_ids": list(asked.token_ids),
        "positions": list(asked.positions),
        "prompts": [list(prompt) for prompt in asked.prompts],
        "num_new": asked.num_new,
    }


def _run(engine: str, command: list[str], job: dict[str, Any], asked: Probe, limit_seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as words:
        known = bare_environment(asked.threads)
        with processes.child(command, stdout=subprocess.PIPE, stderr=words, environment=known) as child:
            try:
                out, _ = child.communicate(json.dumps(job), timeout=limit_seconds)
            except subprocess.TimeoutExpired:
                raise MachineError(
                    f"{engine} did not answer within {limit_seconds:.0f} s; give fewer or shorter probes, or a longer limit"
                ) from None
        if child.returncode != 0:
            words.seek(0)
            raise HostError(f"{engine} cannot run {asked.checkpoint.name}: {_last_words(words.read(), child.returncode)}")
    answer: dict[str, Any] = json.loads(out)
    return answer


def bare_environment(threads: int) -> dict[str, str]:
    """What an engine finds in its environment."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return {**kept, **QUIET, "OMP_NUM_THREADS": str(threads)}


def _last_words(text: str, code: int) -> str:
    """The line that says why: the last one that is an exception's, else the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = [line for line in lines if "Error" in line.split(":")[0] and not line.startswith("File ")]
    return (said or lines or [f"it ended with exit code {code} without a word"])[-1][:400]
