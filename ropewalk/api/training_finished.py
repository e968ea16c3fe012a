"""A finished run that is asked for again: what takes no training is still done, and what cannot be done is said.

Where a result is uploaded to and what scores it are no part of a run's question, so they may be asked for when it is done.
Held-out scores are of the result as `load` reads it, under the run's autocast; with what is in the log already nothing is
scored again. An upload is made anew, since nobody here knows what the hub has.

Given up: scores at steps before the last, whose parameters are gone; callbacks and trackers, which follow a training.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ropewalk.core.errors import MachineError
from ropewalk.core.record import Card
from ropewalk.core.run import Run, card_of

if TYPE_CHECKING:
    from ropewalk.api.training_request import Request
    from ropewalk.api.training_run import Beside


def finished_card(out: str | Path, card: Card) -> Card | None:
    """The card of this very run where it is finished already. What it was killed before sweeping away goes."""
    old = card_of(Path(out))
    if old is None:
        return None
    written = any((Path(out) / name).is_file() for name in ("config.json", "adapter_config.json"))
    if not (old.status == "done" and old.question == card.question and written):
        return None
    from ropewalk.tune.run import swept

    swept(Path(out))
    return old


def done_after(run: Run, asked: "Request", beside: "Beside", *, first: "Request | None" = None) -> None:
    """Scores and uploads the result of a finished run where that is asked for, and says that nothing trains.

    `first` is the first run of a chain, whose source is still there. Raises what an upload raises.
    """
    from ropewalk.tune import hub

    beside.progress.say(f"{run.path} is finished, and nothing trains")
    upload = hub.asked(beside.arguments)
    if upload is not None:
        upload.prepare()
    if beside.scorer is not None:
        _score(run, asked, beside)
    if upload is not None:
        with beside.progress.task(f"uploading to {upload.repository}"), TemporaryDirectory(prefix="ropewalk-") as scratch:
            upload.push(run.path, _start_again(first or asked, Path(scratch) / "plan"))


def _start_again(asked: "Request", place: Path) -> Path:
    """Configuration and tokenizer as the run began with, which say by name what belongs to the model."""
    from ropewalk.hosts import folder

    folder.write_start(asked.checkpoint, asked.plan, place, length=asked.settings.length, geometry=asked.start)
    return place


def lengths_scored(asked: "Request", beside: "Beside") -> tuple[int, ...]:
    """The lengths of a run's held-out scores."""
    settings = asked.settings
    # A prefix takes the first positions, and no text is to pass the plan behind it.
    longest = settings.length - (settings.num_virtual_tokens if settings.recipe == "prefix" else 0)
    return beside.validate_lengths or (longest,)


def _score(run: Run, asked: "Request", beside: "Beside") -> None:
    """Adds the scores of the result that the log lacks, and says which others it will not have."""
    from ropewalk.tune.callbacks import steps_told
    from ropewalk.tune.run import LOG

    told = steps_told(run.path / LOG, asked.settings.steps)
    last = max((line["step"] for line in told), default=asked.settings.steps)
    every = beside.validate_every or last
    wanted = set(range(every, last + 1, every))
    missing, gone = [], set[int]()
    for length in lengths_scored(asked, beside):
        there = {line["step"] for line in told if str(length) in line.get("validation", {})}
        gone |= wanted - there - {last}
        if not there or last in wanted - there:
            missing.append(length)
    if gone:
        beside.progress.say(
            f"held-out scores of earlier steps ({len(gone)}) cannot be made: of a finished run only the result is there"
        )
    if missing:
        scores = _scores(run, asked, beside, missing)
        run.append(LOG, [{"step": last, "validation": scores}])


def _scores(run: Run, asked: "Request", beside: "Beside", lengths: list[int]) -> dict[str, float | None]:
    import torch

    from ropewalk.hosts import live

    found: dict[str, float | None] = {}
    with _out_of_memory_is_told("while loading the result to score it", "score it on a larger machine"):
        model: Any = live.load(run.path, dtype="float32", device=asked.device)[0]
    with torch.no_grad(), torch.autocast(asked.device.type, torch.bfloat16, enabled=asked.bfloat16):
        for length in lengths:
            with _out_of_memory_is_told(f"while scoring the result at {length} tokens", "give smaller --validate-lengths"):
                score = float(beside.scorer(model, length))
            found[str(length)] = score if math.isfinite(score) else None
            beside.progress.say(f"held-out score of the result at {length} tokens: {score:.4f}")
    return found


@contextmanager
def _out_of_memory_is_told(when: str, mend: str) -> Iterator[None]:
    from ropewalk.hosts.watched import out_of_memory

    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise MachineError(f"out of memory {when}; the result is whole: {mend}") from error
