"""A training step that is measured: the child process of `longest`.

    python -m ropewalk.tune.measured < JOB      one line of JSON; the answer is one line of JSON

It is the run's own way: the same learner, attention, trainer and optimizer. Two kinds of job:

- `count`: a few layers with random weights, every allocation of one step counted by torch's profiler (on CUDA by its
  allocator). Counted, not read off the process: what a few layers take is less than what an allocator's habits change.
- `step`: the whole model with its weights, and the resident memory of the process.

The step that counts is the second one, as AdamW's moments are there from then on; the first is short. A step of several
passes has a short pass first, which leaves the gradients that every later pass finds.

Rows hold random ids. What a step costs does not depend on them.
"""

import json
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig, TrainerCallback

from ropewalk.core.budget import CHUNK_BYTES
from ropewalk.data.rows import Row, make_row
from ropewalk.hosts import folder, live
from ropewalk.hosts.live.tuning import untrained
from ropewalk.hosts.watched import job_of_child, own_now, own_peak
from ropewalk.tune.recipes import num_trained
from ropewalk.tune.run import held_dtype
from ropewalk.tune.settings import Settings, Stage
from ropewalk.tune.unsaved import train_unsaved

SHORT = 16
"""Tokens of the passes that are not measured."""


class Filler:
    """Random rows: short ones, and at the end of the run those of one pass at the window."""

    positions, packed = "full", False

    def __init__(self, *, window: int, short: int, num_rows: int, vocabulary: int) -> None:
        self.window, self.short, self.num_rows, self.vocabulary = window, short, num_rows, vocabulary

    def row(self, index: int) -> Row:
        """Row `index`."""
        size = min(SHORT, self.window) if index < self.short else self.window
        ids = np.random.default_rng(index).integers(0, self.vocabulary, size)
        return make_row([(ids, np.ones(size, dtype=np.bool_))])

    def __len__(self) -> int:
        return self.num_rows


class Second(TrainerCallback):  # type: ignore[misc]
    """What the second step takes: seconds, and with `counted` bytes above what is there before it."""

    def __init__(self, *, counted: bool, cuda: bool) -> None:
        self.counted, self.cuda, self.seconds, self.step_bytes, self.before, self.runtime = counted, cuda, 0.0, 0, 0, 0
        self.watched: Any = None

    def on_step_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **kwargs: Any
    ) -> None:  # fmt: skip
        """Gradients of the first step are gone, the moments are there."""
        if state.global_step != 1:
            return
        moments = [t for fields in optimizer.state.values() for t in fields.values() if isinstance(t, torch.Tensor)]
        held = {id(t): t.numel() * t.element_size() for t in (*model.parameters(), *moments)}
        self.before = sum(held.values())
        # What a step leaves behind: libraries, and what the allocator does not give back.
        self.runtime = own_now() - self.before
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        elif self.counted:
            self.watched = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
            self.watched.__enter__()
        self.seconds = -time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After the optimizer's step."""
        if state.global_step != 2:
            return
        self.seconds += time.perf_counter()
        if self.cuda:
            self.step_bytes = torch.cuda.max_memory_allocated() - self.before
        elif self.watched is not None:
            self.watched.__exit__(None, None, None)
            self.step_bytes = peak_of(self.watched)


def peak_of(watched: Any) -> int:
    """Most bytes that were allocated at one time while a profile was taken."""
    now = top = 0
    events = [event for event in watched.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        top = max(top, now)
    return top


def shallow(path: Path, num_layers: int, *, dtype: torch.dtype) -> Any:
    """The model of a folder's config with its first layers alone, and random weights."""
    config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    text = config.get_text_config(decoder=True)
    whole = text.num_hidden_layers
    for name, value in list(vars(text).items()):
        if isinstance(value, list) and len(value) == whole:
            setattr(text, name, value[:num_layers])
    text.num_hidden_layers = num_layers
    torch.manual_seed(0)
    return untrained(text, dtype=dtype)


def measured(job: Mapping[str, Any], *, num_layers: int | None, window: int, counted: bool) -> dict[str, Any]:
    """One measurement: `window` tokens, all layers or the first few."""
    path, device = Path(job["source"]), torch.device(job["device"])
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(min(1.0, job["limit_bytes"] / torch.cuda.mem_get_info(device)[1]), device)
    given = job["settings"]
    # A prefix takes positions before the row.
    before = given["num_virtual_tokens"] if given["recipe"] == "prefix" else 0
    settings = Settings(**given, length=max(window, SHORT) + before, stages=(Stage(window=window, steps=2),))
    held = held_dtype(settings, bfloat16=job["bfloat16"])
    if num_layers is None:
        model, _ = live.build(path, path, dtype=held, device=device, four_bits=settings.recipe == "qlora")
    else:
        model = shallow(path, num_layers, dtype=held).to(device)
    passes = settings.accumulate * settings.batch_size
    stream = Filler(
        window=window, short=2 * passes - settings.batch_size, num_rows=2 * passes,
        vocabulary=int(model.get_input_embeddings().weight.shape[0]),
    )  # fmt: skip
    second = Second(counted=counted, cuda=device.type == "cuda")
    learner = train_unsaved(model, settings, [stream], device=device, bfloat16=job["bfloat16"], callbacks=[second])
    layers = num_layers if num_layers is not None else checkpoint_layers(path)
    return {
        "num_layers": layers, "window": window, "tokens": window * settings.batch_size, "seconds": second.seconds,
        "trained": num_trained(learner)[0], "held_bytes": second.before, "step_bytes": second.step_bytes,
        "runtime_bytes": second.runtime,
    }  # fmt: skip


def checkpoint_layers(path: Path) -> int:
    """Layers of the whole model."""
    return folder.geometry_of(folder.open_checkpoint(path)).num_layers


def counts(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Two depths and two lengths. Rows are so long that a layer's work is the peak, not the head's chunk of logits: from
    where arithmetic puts that, longer until the bytes of a token are constant, as far as rows are to be measured."""
    few, more = job["depths"]
    found: list[dict[str, Any]] = []
    window = first_window(job)
    while not found or (not even(found[-3:]) and 4 * window <= job["longest_row"]):
        window = window if not found else 2 * window
        lengths = (window, 3 * window // 2, 2 * window)
        found += [measured(job, num_layers=few, window=one, counted=True) for one in lengths]
    ends = (found[-3]["window"], found[-1]["window"])
    return [*found, *(measured(job, num_layers=more, window=one, counted=True) for one in ends)]


def first_window(job: Mapping[str, Any]) -> int:
    """Where a layer's work passes three chunks of logits: it grows by some 80 h bytes a token more than the head's in
    float32, by half of that under autocast (`ropewalk.core.budget` has both). Four fifths are taken: better late.

    For a narrow model with many words that is longer than anybody trains; twice it is at most the longest row to measure.
    """
    text = AutoConfig.from_pretrained(job["source"], trust_remote_code=False).get_text_config(decoder=True)
    least, hidden, vocabulary = int(job["window"]), int(text.hidden_size), int(text.vocab_size)
    by_token = (32 if job["bfloat16"] else 64) * hidden
    chunk = min(CHUNK_BYTES, 4 * least * vocabulary)
    enough = max(least, math.ceil(3 * chunk / by_token / 256) * 256)
    return max(SHORT, min(enough, int(job["longest_row"]) // 32 * 16))


def even(three: list[dict[str, Any]], share: float = 0.02) -> bool:
    """Whether three lengths lie on a line."""
    (a, b, c) = ((one["tokens"], one["held_bytes"] + one["step_bytes"]) for one in three)
    first, second = (b[1] - a[1]) / (b[0] - a[0]), (c[1] - b[1]) / (c[0] - b[0])
    return bool(abs(second - first) <= share * abs(second))


def main() -> int:
    """Does a job and says what it found, or what went wrong."""
    job = job_of_child()
    try:
        if job["kind"] == "count":
            found: dict[str, Any] = {"measured": counts(job)}
        else:
            found = {"measured": [measured(job, num_layers=None, window=job["window"], counted=False)]}
    except (RuntimeError, MemoryError, ValueError) as error:
        text = "out of memory" if isinstance(error, MemoryError | torch.OutOfMemoryError) else str(error)
        found = {"error": text.strip().partition("\n")[0] or type(error).__name__}
    print(json.dumps({**found, "resident_bytes": own_peak()}), file=sys.stdout)
    return 1 if "error" in found else 0


def plain(settings: Settings) -> dict[str, Any]:
    """Settings as a job holds them: what does not matter to memory is left out, and several passes are two."""
    chosen = replace(settings, positions="full", accumulate=min(settings.accumulate, 2)).to_dict()
    return {name: value for name, value in chosen.items() if name not in ("length", "stages")}


if __name__ == "__main__":
    sys.exit(main())
