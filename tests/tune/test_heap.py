"""Freed tensors go back to the system: resident memory after a pattern of allocations that pins malloc's heaps.

In processes of their own, since malloc has one setting for a process.
"""

import os
import subprocess
import sys

import pytest

from ropewalk.tune.heap import give_back_large

PATTERN = """
import sys
import torch
from ropewalk.tune.heap import give_back_large
from ropewalk.hosts.watched import own_now
told = give_back_large() if sys.argv[1] == "given" else None
# A freed block of 24 MB raises the threshold to its size, as the first steps of a training do.
del_me = torch.zeros(6 << 20); del del_me
before = own_now()
large, small = [], []
for _ in range(40):
    large.append(torch.zeros(2 << 20))   # 8 MB
    small.append(torch.zeros(1 << 10))   # 4 KB, stays
large.clear()
print(told, own_now() - before)
"""


def left(how: str, **environment: str) -> tuple[str, int]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", PATTERN, how], env={**clean, **environment}, capture_output=True, text=True, check=True
    )  # fmt: skip
    told, num_bytes = done.stdout.split()
    return told, int(num_bytes)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_what_is_freed_goes_back() -> None:
    """320 MB in blocks of 8 MB, with something small after each: without the setting most of it stays."""
    if not give_back_large():
        pytest.skip("another malloc than glibc's, or told otherwise by the environment")
    told, kept = left("given")
    _, without = left("as it comes")
    assert told == "True"
    assert kept < 20e6
    assert without > 10 * max(kept, 1)


def test_what_a_user_says_stands() -> None:
    """Either variable."""
    assert left("given", MALLOC_MMAP_THRESHOLD_="33554432")[0] == "False"
    assert left("given", GLIBC_TUNABLES="glibc.malloc.mmap_threshold=33554432")[0] == "False"
