"""The processes of a run, alone or several as a launcher would start them, for a test that says what each is to do.

Importing torch and transformers takes most of a short run. So one process imports them, and every process of a run is a
fork of it, with an environment, a rendezvous and random generators of its own. Jobs come as lines of JSON on stdin, each a
list of processes; the answer is a line with their exit codes. It ends when stdin closes.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from joining import talk
from small import tuning
from streams import Unequal
from transformers import TrainerCallback

SECONDS = 300
"""A process that hangs is ended."""


class Uneven(TrainerCallback):
    """The second process draws more than the first, so that each has to find its own generator again."""

    def on_step_end(self, args: Any, *_: Any, **__: Any) -> None:
        if args.process_index == 1:
            torch.rand(3)


class Said(TrainerCallback):
    """Says how the processes of the run talk, and how long they wait."""

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        if torch.distributed.is_initialized():
            print(*talk(), file=sys.stderr)


class Killed(TrainerCallback):
    """Kills its process at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_substep_end(self, args: Any, progress: Any, *_: Any, **__: Any) -> None:
        if progress.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def main(source: str, out: str, settings: dict[str, Any]) -> int:
    from ropewalk.core.errors import RopewalkError

    kill = settings.pop("kill", None)
    callbacks = [Uneven(), Said()] if kill is None else [Uneven(), Said(), Killed(kill)]
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


def forked(job: dict[str, Any]) -> int:
    """The id of a process that does `job`; what it says goes into a file."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        signal.alarm(SECONDS)
        said = os.open(job["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(said, stream)
        os.environ.update(job["environment"])
        code = main(job["source"], job["out"], job["settings"])
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def serve() -> None:
    """Does jobs until stdin closes."""
    import peft  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    import ropewalk.api.training_data
    import ropewalk.tune.run  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        children = [forked(job) for job in json.loads(line)]
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]), flush=True)
    # Taking an interpreter with all of torch apart takes seconds.
    os._exit(0)


if __name__ == "__main__":
    serve()
