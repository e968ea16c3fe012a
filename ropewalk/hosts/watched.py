"""A process of our own under a limit of memory: told a job, it answers in JSON, and is ended where it takes too much.

The limit is on resident memory. A limit of address space (`RLIMIT_AS`) would count what torch reserves and never touches,
and a control group needs rights that users do not have. So the kernel's own high-water mark (`VmHWM` of proc(5)) is read
twenty times a second, and once more by the child when it is done: what passes the limit between two looks is found all the
same, only not stopped in time.

The child reads one line from stdin and ends itself when stdin closes, so that none outlives whoever started it.

Given up: stopping a child in time where there is no /proc; there the child's own word at its end decides.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ropewalk.hosts.processes import QUIET, child

LOOK_SECONDS = 0.05
OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")
"""What torch's allocators say inside a plain `RuntimeError`: the first on GPUs and Apple's devices, the others on a CPU."""
Ended = Literal["done", "limit", "memory", "killed", "failed"]


@dataclass(frozen=True, kw_only=True)
class Watched:
    """How a child ended."""

    ended: Ended
    """`limit`: it took more than it may; `memory`: its allocator had no more; `killed`: the system ended it; `failed`:
    anything else."""
    answer: dict[str, Any]
    """What it said, empty where it did not come to it."""
    peak_bytes: int
    """Most resident memory it was seen with."""
    seconds: float
    words: str
    """The end of what it wrote to stderr."""

    @property
    def fits(self) -> bool:
        """Whether it came to its end within the limit."""
        return self.ended == "done"

    @property
    def too_large(self) -> bool:
        """Whether memory ended it, as far as can be known: the system's killer leaves no word."""
        return self.ended in ("limit", "memory", "killed")


def watch(
    command: Sequence[str], job: Mapping[str, Any], *, limit_bytes: int, environment: Mapping[str, str] | None = None
) -> Watched:
    """Runs `command`, gives it the job, and waits for its answer or its end. Ends it in any case."""
    began, peak, passed = time.monotonic(), 0, False
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as words, tempfile.TemporaryFile("w+") as said:
        known = {**(os.environ if environment is None else environment), **QUIET}
        with child(command, stdout=said, stderr=words, environment=known) as started:
            _tell(started, job)
            while started.poll() is None:
                peak = max(peak, resident_peak(started.pid))
                if peak > limit_bytes:
                    passed = True
                    break
                time.sleep(LOOK_SECONDS)
        said.seek(0)
        words.seek(0)
        answer, told = _answer(said.read()), words.read()[-4000:]
    peak = max(peak, int(answer.get("resident_bytes", 0)))
    ended = _ended(started.returncode, answer, passed=passed or peak > limit_bytes, told=told)
    return Watched(ended=ended, answer=answer, peak_bytes=peak, seconds=time.monotonic() - began, words=told)


def _tell(started: "subprocess.Popen[str]", job: Mapping[str, Any]) -> None:
    assert started.stdin is not None
    with suppress(BrokenPipeError):
        # Left open: the child ends where it closes.
        started.stdin.write(json.dumps(job) + "\n")
        started.stdin.flush()


def _answer(text: str) -> dict[str, Any]:
    lines = text.strip().splitlines()
    try:
        found = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _ended(code: int, answer: Mapping[str, Any], *, passed: bool, told: str) -> Ended:
    if passed:
        return "limit"
    if code == -getattr(signal, "SIGKILL", 9):
        return "killed"
    if code == 0 and answer and "error" not in answer:
        return "done"
    return "memory" if out_of_memory(RuntimeError(f"{answer.get('error', '')} {told}")) else "failed"


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is out: Python's own, torch's, or torch's plain `RuntimeError` on a CPU."""
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in OUT_OF_MEMORY)


def resident_peak(pid: int, field: str = "VmHWM") -> int:
    """Most resident memory of a process so far, bytes, or with `VmRSS` what it has now; 0 where that cannot be known."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return 0


def own_peak() -> int:
    """Most resident memory of this process so far, bytes."""
    found = resident_peak(os.getpid())
    if found:
        return found
    try:
        import resource
    except ImportError:
        # Not on every system.
        return 0
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def own_now() -> int:
    """Resident memory of this process now, bytes; its peak where the present cannot be known."""
    return resident_peak(os.getpid(), "VmRSS") or own_peak()


def free_bytes() -> int | None:
    """Memory that can be taken now without swapping, bytes; None where that cannot be known."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def job_of_child() -> dict[str, Any]:
    """In the child: the job, with a thread that ends the process where stdin closes."""
    content: dict[str, Any] = json.loads(sys.stdin.readline())

    def wait() -> None:
        sys.stdin.read()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
    return content
