"""Training steps our way, in the manner of `training_peer.py`: the same job, the same turns, the same answers.

`who` is `ours` (every layer checkpointed) or `ours-selective`. Rows are given as lists of documents' ids; a row of several
is a pack.
"""

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from turns import answers, turns


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


def train(job: dict[str, Any], say: Any, away: Path) -> None:
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
    say(version={name: version(name) for name in names})
    train_unsaved(model, settings, [rows_of(job)], device=device, bfloat16=job["bfloat16"], callbacks=[turns(job, say, {})])


def cut(path: Path, num_layers: int, out: Path) -> Path:
    """The checkpoint's first layers as one of its own."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    config = AutoConfig.from_pretrained(path)
    config.num_hidden_layers = num_layers
    AutoModelForCausalLM.from_pretrained(path, config=config).save_pretrained(out)
    AutoTokenizer.from_pretrained(path).save_pretrained(out)
    return out


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        train(json.loads(sys.stdin.readline()), answers(), Path(place))
