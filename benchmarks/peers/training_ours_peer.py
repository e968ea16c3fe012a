"""Training steps our way, in the manner of `training_peer.py`: the same job, the same turns, the same answers.

`who` is `ours` (every layer checkpointed) or `ours-selective`. Rows are given as lists of documents' ids; a row of several
is a pack.
"""

import json
import os
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any


def rows_of(job: dict[str, Any]) -> Any:
    """The rows as a stream."""
    import numpy as np

    from ropewalk.data.rows import Row, make_row

    class Given:
        positions = "full"
        packed = any(len(row) > 1 for row in job["rows"])

        def row(self, index: int) -> Row:
            documents = [np.asarray(ids, dtype=np.int64) for ids in job["rows"][index % len(self)]]
            return make_row([(ids, np.ones(ids.size, dtype=np.bool_)) for ids in documents])

        def __len__(self) -> int:
            return len(job["rows"])

    return Given()


def callback(job: dict[str, Any]) -> Any:
    """Waits for its turn before a step and tells what the step took."""
    from transformers import TrainerCallback

    from ropewalk.hosts.watched import own_peak

    class Turns(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if job["turns"] and not sys.stdin.readline():
                os._exit(1)
            self.began, self.busy = time.perf_counter(), time.process_time()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.seconds, self.cpu = time.perf_counter() - self.began, time.process_time() - self.busy

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if logs and "loss" in logs:
                told = {"seconds": self.seconds, "cpu_seconds": self.cpu, "loss": float(logs["loss"])}
                print(json.dumps({**told, "resident_bytes": own_peak()}), file=ANSWERS, flush=True)

    return Turns()


def train(job: dict[str, Any], away: Path) -> None:
    """The run's own learner, attention and trainer, without a state on disk."""
    import torch
    import transformers

    from ropewalk.hosts import live
    from ropewalk.tune.settings import Settings, Stage
    from ropewalk.tune.unsaved import train_unsaved

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(job["threads"])
    path, device = Path(job["model"]), torch.device("cpu")
    selective = {"checkpoint": "selective"} if job["who"] == "ours-selective" else {}
    settings = Settings(
        length=job["length"], stages=(Stage(window=job["length"], steps=job["steps"]),), learning_rate=1e-5, **selective
    )
    if job.get("num_layers"):
        path = cut(path, job["num_layers"], away / "cut")
    model, _ = live.build(path, path, dtype=torch.float32, device=device)
    names = ("torch", "transformers", "accelerate", "ropewalk")
    print(json.dumps({"version": {name: version(name) for name in names}}), file=ANSWERS, flush=True)
    train_unsaved(model, settings, [rows_of(job)], device=device, bfloat16=job["bfloat16"], callbacks=[callback(job)])


def cut(path: Path, num_layers: int, out: Path) -> Path:
    """The checkpoint's first layers as one of its own."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    config = AutoConfig.from_pretrained(path)
    config.num_hidden_layers = num_layers
    AutoModelForCausalLM.from_pretrained(path, config=config).save_pretrained(out)
    AutoTokenizer.from_pretrained(path).save_pretrained(out)
    return out


if __name__ == "__main__":
    ANSWERS = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory() as place:
        train(json.loads(sys.stdin.readline()), Path(place))
