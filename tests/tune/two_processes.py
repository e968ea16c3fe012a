"""A process of a run, alone or one of several as a launcher would start it. Run by a test, with a JSON of what to do."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from small import tuning
from streams import Unequal
from transformers import TrainerCallback


class Uneven(TrainerCallback):
    """The second process draws more than the first, so that each has to find its own generator again."""

    def on_step_end(self, args: Any, *_: Any, **__: Any) -> None:
        if args.process_index == 1:
            torch.rand(3)


class Killed(TrainerCallback):
    """Kills its process at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_substep_end(self, args: Any, progress: Any, *_: Any, **__: Any) -> None:
        if progress.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def main(source: str, out: str, settings: dict[str, Any]) -> int:
    from ropewalk.core.errors import RopewalkError

    torch.set_num_threads(1)
    kill = settings.pop("kill", None)
    callbacks = [Uneven()] if kill is None else [Uneven(), Killed(kill)]
    if settings.pop("validate", False):
        settings |= {"scorer": lambda model, length: float(length), "validate_lengths": (64,)}
    try:
        tuning(Path(source))(Path(out), **{"data": Unequal, "callbacks": callbacks, **settings})
    except RopewalkError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
