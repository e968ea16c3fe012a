"""Pairs of processes that join and say how they talk: one pair for each port and arguments, as JSON on the command line.

Both processes of a pair are forks of this one, which imports torch once.
"""

import json
import os
import sys
from typing import Any

import torch

from ropewalk.tune.processes import joined


def talk() -> tuple[str, float]:
    """The backend of the group that this process is in, and the seconds it waits for a word."""
    group = torch.distributed.group.WORLD
    assert group is not None
    options = group._get_backend(torch.device("cpu")).options
    return torch.distributed.get_backend(), options._timeout.total_seconds()


def join(rank: int, port: int, arguments: dict[str, Any]) -> int:
    """The id of a process that joins with `arguments` and says how it talks."""
    child = os.fork()
    if child:
        return child
    os.environ.update(
        WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), LOCAL_RANK=str(rank)
    )  # fmt: skip
    code = 1
    try:
        processes = joined("cpu", **arguments)
        processes.wait()
        os.write(1, (json.dumps(talk()) + "\n").encode())
        processes.wait()
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    import accelerate  # type: ignore[import-untyped] # noqa: F401

    for text in sys.argv[1:]:
        port, arguments = json.loads(text)
        for child in [join(rank, port, arguments) for rank in (0, 1)]:
            if os.waitpid(child, 0)[1]:
                sys.exit(1)
