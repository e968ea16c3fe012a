"""The memory of the process that measures: how much it took, and one sentence where there was not enough.

Out of memory comes in three ways (torch's own error on a GPU, a plain `RuntimeError` elsewhere, Python's `MemoryError`), and
a user is owed one.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ropewalk.core.errors import MachineError
from ropewalk.hosts.watched import out_of_memory

RESUMED = (
    "free some memory and run again with --resume, which keeps what is finished, or ask anew with a smaller --length or "
    "--dtype bfloat16 and another --out"
)
ANEW = "free some memory, or give a smaller --length or --dtype bfloat16"


@contextmanager
def out_of_memory_is_told(length: int, mend: str = RESUMED) -> Iterator[None]:
    """Turns "out of memory" while texts of `length` are measured into a `MachineError` that says how to `mend` it."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # torch.OutOfMemoryError is a RuntimeError.
        if not (isinstance(error, torch.OutOfMemoryError) or out_of_memory(error)):
            raise
        raise MachineError(f"out of memory at length {length}; {mend}") from error


def peak_bytes() -> int | None:
    """Most memory this process has held, bytes: device memory on a GPU, resident memory elsewhere."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    try:
        import resource
    except ImportError:
        # Not on every system.
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit
