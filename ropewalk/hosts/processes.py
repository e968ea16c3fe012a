"""Whether another process still goes on: what a run that was killed left behind is swept by the next."""

import os


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
