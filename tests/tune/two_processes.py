"""A process of a run of several: trains one step at the trainer, and writes the loss that was told. Run by a test."""

import json
import os
import sys
from pathlib import Path

import torch
from streams import Unequal

from ropewalk.attention.registered import put_on
from ropewalk.hosts import live
from ropewalk.tune.arguments import arguments
from ropewalk.tune.batches import Rows
from ropewalk.tune.learner import Learner
from ropewalk.tune.settings import Settings, Stage
from ropewalk.tune.trainer import Tuner


def main(source: str, out: str, accumulate: int) -> None:
    torch.set_num_threads(1)
    settings = Settings(
        length=64, stages=(Stage(window=48, steps=1),), accumulate=accumulate, learning_rate=1e-4, checkpoint_every=0
    )
    several = "WORLD_SIZE" in os.environ
    args = arguments(settings, Path(out), extra={"ddp_backend": "gloo"} if several else {})
    model, _ = live.load(source, dtype=torch.float32, device="cpu")
    model.requires_grad_(True)
    told: list[dict[str, float]] = []
    with put_on(model):
        rows = Rows(settings, [Unequal(48)], processes=args.world_size)
        tuner = Tuner(Learner(model), args, rows, states=Path(out) / "state", log=told.append)
        tuner.go()
    if args.process_index == 0:
        (Path(out) / "told.json").write_text(json.dumps(told[0]))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
