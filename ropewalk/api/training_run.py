"""One run of `tune`, from its options to its folder: alone, or as a link of a chain."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any

from ropewalk.api.training_data import FOLDER, check_kept_data, rows_made, rows_of, rows_told
from ropewalk.api.training_disk import check_disk
from ropewalk.api.training_finished import done_after, finished_card, lengths_scored
from ropewalk.api.training_request import Request, request
from ropewalk.core.errors import InputError
from ropewalk.core.output import check_apart, check_out, say_beginning
from ropewalk.core.progress import Progress
from ropewalk.core.record import Card
from ropewalk.core.run import Run


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What accompanies a training without being asked of it: it is the same for every run of a chain."""

    scorer: Any = None
    validate_lengths: tuple[int, ...] = ()
    """Empty means the run's own length."""
    validate_every: int = 0
    callbacks: Sequence[Any] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)

    def of_a_link(self) -> "Beside":
        """The same for a run before the last of a chain, which is not what is uploaded."""
        return replace(self, arguments={k: v for k, v in self.arguments.items() if k != "push_to_hub"})


def run_one(
    source: str | Path, said: Mapping[str, Any], *, out: str | Path, beside: Beside, force: bool = False,
    resume: bool = False, opened: Run | None = None, before: Any = None, old_window: int | None = None,
) -> Card:  # fmt: skip
    """One run, from its options to its folder; into a run folder that is `opened` already where it ends a chain, on rows
    that come after those that were read `before`, of data that are long where they pass the `old_window` of the chain."""
    from ropewalk.tune.processes import joined, take_device

    take_device(said.get("device", "auto"))
    asked = asked_for(source, said, beside=beside)
    # Before Trainer is there, which would say these two: what comes first is the others' wait for the data.
    said_by = beside.arguments.get
    processes = joined(asked.device, backend=said_by("ddp_backend"), seconds=said_by("ddp_timeout"))
    window = asked.reads.window_length if old_window is None else old_window
    made = processes.lead(
        lambda: _begun(asked, said, out, beside, force=force, resume=resume, opened=opened, before=before, old_window=window)
    )
    if made is None:
        made = _followed(asked, said, out)
        beside = replace(beside, progress=Progress(StringIO()))
    run, streams = made
    if streams is not None:
        _train(asked, streams, run, beside, processes)
    return run.card


def _begun(
    asked: Request,
    said: Mapping[str, Any],
    out: str | Path,
    beside: Beside,
    *,
    force: bool,
    resume: bool,
    opened: Run | None,
    before: Any,
    old_window: int,
) -> tuple[Run, Sequence[Any] | None]:
    """The open run folder and the rows of a run; no rows where it is finished already."""
    from ropewalk.tune.lowered import settle

    if opened is None:
        check_out(out, force=force, resume=resume, verb="tune")
        check_apart(out, [asked.checkpoint.path])
        if not resume:
            check_kept_data(out, said["data"], said.get("data_options", {}))
            check_disk(out, [asked], force=force)
        elif before is None:
            say_beginning(out, beside.progress, Path(out).parent / f".{Path(out).name}.{FOLDER}")
    for note in asked.notes:
        beside.progress.say(note)
    with beside.progress.task("reading the data"):
        rows = rows_of(
            said["data"], asked.checkpoint.path, asked.settings, old_window, out=Path(out),
            options=said.get("data_options", {}), resume=resume, progress=beside.progress,
            apart=asked.apart, before=before,
        )  # fmt: skip
    try:
        check_together(asked, rows.streams, beside.progress)
        card = asked.card(rows.documents)
        if resume and opened is None:
            card = settle(Path(out), card)
        finished = finished_card(out, card) if resume and opened is None else None
        if finished is not None:
            rows.removed()
            done = Run(Path(out), finished)
            done_after(done, asked, beside)
            return done, None
        run = opened or Run.open(out, card, force=force, resume=resume, progress=beside.progress)
    except BaseException:
        rows.removed()
        raise
    rows = rows.moved(run.path, asked.settings)
    for line in rows_told(rows.streams, asked.settings, rows.folder):
        beside.progress.say(line)
    return run, rows.streams


def _followed(asked: Request, said: Mapping[str, Any], out: str | Path) -> tuple[Run, Sequence[Any] | None]:
    """What `_begun` made in another process, read from disk."""
    card = Card.from_dict(json.loads((Path(out) / "card.json").read_text(encoding="utf-8")))
    run = Run(Path(out), card)
    return run, None if card.status == "done" else rows_made(said["data"], asked.settings, Path(out), apart=asked.apart)


def asked_for(source: str | Path, said: Mapping[str, Any], *, beside: Beside, stand_in: bool = False) -> Request:
    """The options of a run, checked but for the data themselves."""
    if said.get("length") is None:
        raise InputError("a run needs a length, which its plan is for; give --length, such as 16k")
    if said.get("data") is None:
        raise InputError("there is nothing to train on; give --data with files, folders, or a folder of ropewalk data")
    from ropewalk.tune import hub
    from ropewalk.tune.arguments import HUB, check_extra

    check_extra(beside.arguments)
    _check_validation(beside)
    hub.asked(beside.arguments)
    more = {
        "data_options": dict(said.get("data_options", {})),
        # Where the result is uploaded, and by which token, is no part of the question.
        "arguments": {key: str(value) for key, value in beside.arguments.items() if key not in HUB},
    }
    options = {key: value for key, value in said.items() if key not in ("data", "data_options")}
    asked = request(source, stand_in=stand_in, more=more, **options)
    hub.check_result(beside.arguments, source, recipe=asked.settings.recipe, merge=asked.merge)
    return asked


def _check_validation(beside: Beside) -> None:
    """Raises `InputError` for validations that score nothing."""
    short = [length for length in beside.validate_lengths if length < 2]
    if short:
        raise InputError(f"a held-out score at {short[0]} tokens is of none, the first is only read; give at least 2")
    if beside.validate_every < 0:
        raise InputError(
            f"validations are a number of steps apart, got {beside.validate_every}; 0 validates at the end only"
        )
    if beside.scorer is None and (beside.validate_lengths or beside.validate_every):
        raise InputError(
            "validate_lengths and validate_every are of a scorer, and there is none; give a function of a model and a "
            "length as scorer, such as ropewalk.api.tuning.held_out makes, or leave them out"
        )


def check_together(asked: Request, streams: Sequence[Any], progress: Progress) -> None:
    """Raises `InputError` for choices that do not go together, now that data are known; says what groups save of them."""
    from ropewalk.tune import batches, combinations, pairs

    packed = any(stream.packed for stream in streams)
    combinations.check(asked.settings, plan=asked.kind, switch=asked.switch, packed=packed, merge=asked.merge)
    batches.RunRows(asked.settings, streams)
    for line in pairs.told(asked.settings, streams):
        progress.say(line)


def _train(asked: Request, streams: Sequence[Any], run: Run, beside: Beside, processes: Any) -> None:
    from ropewalk.tune.run import Job

    Job(
        checkpoint=asked.checkpoint, source=_where(asked.source), plan=asked.plan, geometry=asked.start,
        settings=asked.settings, streams=streams, device=processes.device or asked.device, processes=processes,
        bfloat16=asked.bfloat16, merge=asked.merge,
        scorer=beside.scorer, validate_lengths=lengths_scored(asked, beside), validate_every=beside.validate_every,
        extra=beside.arguments, callbacks=beside.callbacks, progress=beside.progress,
    ).run(run)  # fmt: skip


def _where(source: str | Path) -> str:
    """The source as an adapter names its base: a folder by its whole path, a hub id as it is."""
    path = Path(source).expanduser()
    return str(path.resolve()) if path.is_dir() else str(source)
