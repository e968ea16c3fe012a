"""Processes: children of our own, ended with all that they started, and whether another one still goes on.

A child is the first of a group of its own, so that the whole group is ended with it and nothing else is. What a run that was
killed left behind is swept by the next, which has to know whether that run goes on.

Given up: groups where the system has none; there the child alone is ended.
"""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO

QUIET = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false"}
"""What every child finds in its environment."""


@contextmanager
def child(
    command: Sequence[str], *, stdout: int | IO[str], stderr: IO[str], environment: Mapping[str, str]
) -> Iterator["subprocess.Popen[str]"]:
    """A process with an open stdin. It and what it started are ended with the block.

    stderr goes to a file: a pipe that nobody empties while the child is told its job would stop it.
    """
    started = subprocess.Popen(
        list(command), stdin=subprocess.PIPE, stdout=stdout, stderr=stderr, env=dict(environment), text=True,
        encoding="utf-8", start_new_session=True,
    )  # fmt: skip
    try:
        yield started
    finally:
        _end(started)


def _end(started: "subprocess.Popen[str]") -> None:
    """Ends the whole group, which was made for this child."""
    with suppress(ProcessLookupError):
        if os.name == "posix":
            os.killpg(started.pid, signal.SIGKILL)
        else:
            started.kill()
    started.wait()
    for stream in (started.stdin, started.stdout):
        if stream is not None:
            with suppress(BrokenPipeError):
                stream.close()


def alive(pid: int) -> bool:
    """Whether a process of that number runs here. Where that cannot be known, it is taken to run."""
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True
