"""A run of several processes, each with its share of the rows: the first one writes, the others wait for it.

A launcher (`torchrun`, `accelerate launch`) starts the same command several times and says so in the environment. Parameters
are whole in every process and gradients are averaged (accelerate's DistributedDataParallel). Everything that is checked,
made or written is so by process 0; before each step that needs it, the others wait, and where it fails they end as well.
Process 0 may tokenize for hours meanwhile, so they wait longer than torch's ten or thirty minutes.

Given up: parameters in shards (FSDP, DeepSpeed), which the state of a run does not know; disks that processes do not share.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch

from ropewalk.core.errors import InputError, MachineError

SHARDED = {
    "ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed", "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism of accelerate",
}  # fmt: skip
"""What a launcher says in the environment where parameters are to be cut up."""
HOURS = 12
"""So long processes wait for each other where `ddp_timeout` does not say it."""
Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class Processes:
    """This process among those of its run; alone unless a launcher says otherwise."""

    count: int = 1
    rank: int = 0
    device: torch.device | None = None
    """Where this process trains; None leaves it as it was chosen."""

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            torch.distributed.barrier()

    def lead(self, work: Callable[[], Made]) -> Made | None:
        """What process 0 makes of `work`, when it is done; None in the others, which raise where it failed.

        Raises `MachineError` there: the message of process 0 says why.
        """
        if self.count == 1:
            return work()
        if not self.first:
            if not self._told(0):
                raise MachineError("the first process of this run stopped, and says why; this one ends with it")
            return None
        try:
            made = work()
        except BaseException:
            self._told(0)
            raise
        self._told(1)
        return made

    def _told(self, word: int) -> int:
        """The word of process 0, in all of them."""
        told = torch.tensor([word], device=self.device)
        torch.distributed.broadcast(told, src=0)
        return int(told)


def take_device(device: Any = "auto") -> None:
    """Makes the CUDA device that a launcher gave this process the one that `cuda` means here, before anything asks it.

    Whatever is put on `cuda`, or asks for its free memory, would otherwise open a context on the first device, once for
    every process of the machine. Which device it is accelerate says alike when the processes join.
    """
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several and "LOCAL_RANK" in os.environ and str(device) in ("auto", "cuda") and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())


def joined(device: Any, *, backend: str | None = None, seconds: Any = None) -> Processes:
    """This process's place, as its launcher says it. The first call in a process makes the group of all, which talks
    by `backend` (None is accelerate's choice) and waits `seconds` for a word (None is `HOURS`); later calls find it.

    Raises `InputError` for a way to train that is not served.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    for variable, name in SHARDED.items():
        if os.environ.get(variable, "").lower() in ("1", "true", "yes"):
            raise InputError(
                f"{name} cuts parameters up between processes, and the state of a run holds whole ones; start plain "
                "processes with torchrun"
            )
    if count == 1:
        return Processes()
    from accelerate import PartialState  # type: ignore[import-untyped]

    timeout = timedelta(hours=HOURS) if seconds is None else _timeout(seconds)
    try:
        state = PartialState(cpu=torch.device(device).type == "cpu", backend=backend, timeout=timeout)
    except ValueError as error:
        # Half made it would pass for a group.
        PartialState._reset_state()
        if backend is None:
            raise
        raise InputError(f"processes on {device} cannot talk by {backend!r} ({error}); leave ddp_backend out") from error
    return Processes(count=state.num_processes, rank=state.process_index, device=state.device)


def _timeout(seconds: Any) -> timedelta:
    try:
        found = timedelta(seconds=float(seconds))
    except (TypeError, ValueError, OverflowError):
        found = timedelta()
    if found <= timedelta():
        raise InputError(f"ddp_timeout is a number of seconds above 0, got {seconds!r}; 43200 are 12 hours")
    return found
