"""s0 of an earlier run: the untouched model's answers to the very same prompts.

An effective length is held against the *untouched* model's short score. A server that computes a stretched model cannot give
it, so it is taken from a run folder of the untouched model, made with the same tasks, lengths, depths, samples, texts and
seed. What is taken is checked prompt by prompt. Given up: s0 from a run with other prompts, which would let a lucky draw of
needles pass for a longer reach.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ropewalk.core.errors import InputError
from ropewalk.core.record import Record
from ropewalk.data.tasks.task import find_task
from ropewalk.measure.map_rows import CONTROLS, Base
from ropewalk.measure.maps import Prompts, cells
from ropewalk.measure.settings import NONE, SERVED

Sample = dict[str, Any]


def read_base(folder: str | Path, prompts: Prompts) -> Base:
    """The short answers of the untouched model in a run folder, under the label `none`.

    Raises `SourceError` for what is no run folder, and `InputError` where it was stretched, or asked anything else.
    """
    record = Record.read(folder)
    if record.card.geometry.get("lineage") == "runtime":
        raise InputError(f"{folder} is a run of a stretched model; --base-run takes one of the untouched model")
    ours, theirs = [d.sha256 for d in prompts.documents], [d["sha256"] for d in record.card.documents]
    if ours != theirs:
        raise InputError(f"{folder} was made with other texts; repeat it with the same --text, or leave --base-run out")
    known = {_prompt(s): s for s in _untouched(record.samples)}
    return Base(
        samples=tuple({**_found(folder, known, asked), "method": NONE} for asked in _asked(prompts)),
        note=f"s0 from the run {record.card.hash} of {record.card.model}",
    )


def _untouched(samples: list[Sample]) -> list[Sample]:
    """What the model as it came answered: on a server, or in the process."""
    labels = {s["method"] for s in samples}
    return [s for s in samples if s["method"] == (NONE if NONE in labels else SERVED) and s["protocol"] not in CONTROLS]


def _prompt(s: Sample) -> tuple[Any, ...]:
    """What makes two prompts of runs with the same texts the same."""
    what = (s["task"], s["protocol"], s["asked_length"], s["haystack"], s["seed"], s["asked_depth"])
    return (*what, s["key"], s["position"], tuple(s["references"]), s["template"])


def _asked(prompts: Prompts) -> Iterator[Sample]:
    """The prompts whose answers are wanted: those of the shortest length."""
    settings = prompts.settings
    for cell in cells(settings):
        shortest = settings.lengths_of(cell.task)[0]
        if cell.label != settings.untouched or cell.protocol in CONTROLS or cell.lengths[0] != shortest:
            continue
        haystack, task = prompts.build(cell), find_task(cell.task)
        for q in haystack.at(0):
            yield {
                "task": cell.task, "protocol": cell.protocol, "asked_length": cell.lengths[0], "haystack": cell.index,
                "seed": haystack.seed, "asked_depth": q.asked_depth, "key": q.key, "position": q.position,
                "references": q.references, "template": prompts.template(haystack),
                "scoring": "generate" if len(q.spans) > 1 else settings.scoring_of(task.scoring),
            }  # fmt: skip


def _found(folder: str | Path, known: dict[tuple[Any, ...], Sample], asked: Sample) -> Sample:
    """The answer to one prompt. Raises `InputError`."""
    about = f"{asked['task']} ({asked['protocol']}) at {asked['asked_length']} tokens"
    found = known.get(_prompt(asked))
    if found is None:
        raise InputError(
            f"{folder} lacks the untouched model's answer to a prompt of {about}; make it with the same --tasks, --lengths, "
            "--depths, --samples, --mode, --template and --seed"
        )
    if found["scoring"] != asked["scoring"]:
        raise InputError(
            f"{folder} scored {about} as {found['scoring']!r} and a server is scored as {asked['scoring']!r}; "
            f"make it with --scoring {asked['scoring']}"
        )
    return found
