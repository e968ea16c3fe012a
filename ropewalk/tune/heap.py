"""Large tensors on a processor go back to the system when they are freed.

glibc's malloc takes blocks above a threshold from the system one by one, and gives them back one by one. It raises that
threshold by itself, to 32 MB, and most tensors of a training step are smaller (8,192 tokens of width 576 in float32 are 19
MB): they are cut out of heaps where whatever stays pins what was freed before it. Resident memory then grows from step to
step to about twice what the tensors take. With the threshold held at 4 MB it stays at what they take.

It holds for the whole process and from then on, since malloc has one setting. What it costs is the clearing of pages that
are taken anew; below 4 MB that becomes more than it saves. Figures: `benchmarks/README.md`.
"""

import ctypes
import os
from contextlib import suppress

LARGE_BYTES = 4 * 1024**2
"""Blocks of at least this are taken from the system one by one."""
_M_MMAP_THRESHOLD = -3


def give_back_large() -> bool:
    """Tells malloc so; False where it is not glibc's, or where the environment says how it is to be."""
    if "MALLOC_MMAP_THRESHOLD_" in os.environ or "mmap_threshold" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    with suppress(AttributeError, OSError, ValueError):
        if (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc"):
            return bool(ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES))
    return False
