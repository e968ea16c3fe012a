"""The verb that trains: `tune`, one run or a chain; and `merge`, which writes an adapter folder as a full checkpoint."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any

from ropewalk.api.checkpoints import need
from ropewalk.api.training_data import check_kept_data, rows_made, rows_of, rows_told
from ropewalk.api.training_disk import check_disk
from ropewalk.api.training_request import Request, known_settings, request
from ropewalk.core.errors import InputError, OutputError, near
from ropewalk.core.geometry import Lineage
from ropewalk.core.method import Method
from ropewalk.core.progress import Progress
from ropewalk.core.record import Card
from ropewalk.core.run import Run, card_of, removed_by_force
from ropewalk.core.run import check_out as check_run


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


def tune(
    source: str | Path, data: Any = None, *, out: str | Path, length: int | str | None = None,
    method: str | Method | None = None, steps: int | None = None, window: int | str | None = None,
    stages: Sequence[tuple[int, int]] | str | None = None, lineage: Lineage | None = None, freeze: bool = False,
    device: str = "auto", dtype: str = "auto", merge: bool = False, runs: Sequence[Mapping[str, Any]] | None = None,
    scorer: Any = None, validate_lengths: Sequence[int] = (), validate_every: int = 0, callbacks: Sequence[Any] = (),
    arguments: Mapping[str, Any] | None = None, force: bool = False, resume: bool = False,
    progress: Progress | None = None, data_options: Mapping[str, Any] | None = None, **settings: Any,
) -> Card:  # fmt: skip
    """Trains a model at `length` tokens with a plan on, and writes `out`, which `load`, `verify` and `measure` take.

    `data` are text files or a folder that `ropewalk data` made; or a callable from a window to a stream of rows. Without
    a `method` the source keeps the positions it carries; with the one it was tuned by, a longer plan is made from its
    origin. `stages` are pairs (window, steps) for a curriculum, else one stage of `steps` at `window`. `scorer(model,
    length)` gives held-out scores at `validate_lengths`; `arguments` go to `transformers.TrainingArguments`, those that
    `ropewalk.tune.arguments` passes on, others are refused; `settings` are the fields of `ropewalk.tune.settings.Settings`.

    `runs` make a chain: each is a mapping of these options (and `data`) over those given here, and goes on from the folder
    of the one before, `out/chain/1` and so on; the last writes `out`.

    Everything is checked before a folder is made, for all runs of a chain. Raises `InputError` and its kind for what cannot
    run, `HostError` for a plan that no config says, `MachineError` (exit code 3) for a full disk, too little memory, or a
    loss that is not finite or runs away; the state is saved, and `resume` goes on to the same parameters.
    """
    need("tune", "torch", "transformers", "accelerate", "safetensors")
    beside = Beside(
        scorer=scorer, validate_lengths=tuple(validate_lengths), validate_every=validate_every, callbacks=callbacks,
        arguments=arguments or {}, progress=progress or Progress(),
    )  # fmt: skip
    given = {"data": data, "length": length, "method": method, "steps": steps, "window": window, "stages": stages,
             "lineage": lineage, "data_options": data_options}  # fmt: skip
    said = {key: value for key, value in given.items() if value is not None}
    said |= {"freeze": freeze, "device": device, "dtype": dtype, "merge": merge, **settings}
    if runs is not None:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise InputError("the runs of a chain begin in one process, and this is one of several; start them one by one")
        from ropewalk.api.training_chain import run_chain

        return run_chain(source, [{**said, **run} for run in runs], out=out, beside=beside, force=force, resume=resume)
    return run_one(source, said, out=out, beside=beside, force=force, resume=resume)


def run_one(
    source: str | Path, said: Mapping[str, Any], *, out: str | Path, beside: Beside, force: bool = False,
    resume: bool = False, opened: Run | None = None, before: Any = None,
) -> Card:  # fmt: skip
    """One run, from its options to its folder; into a run folder that is `opened` already where it ends a chain, on rows
    that come after those that were read `before`."""
    from ropewalk.tune.processes import joined

    asked = asked_for(source, said, beside=beside)
    processes = joined(asked.device)
    made = processes.lead(lambda: _begun(asked, said, out, beside, force=force, resume=resume, opened=opened, before=before))
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
) -> tuple[Run, Sequence[Any] | None]:
    """The open run folder and the rows of a run; no rows where it is finished already."""
    from ropewalk.tune.lowered import settle

    if opened is None:
        check_run(out, force=force, resume=resume, verb="tune")
        check_apart(out, asked.checkpoint.path)
        if not resume:
            check_kept_data(out, said["data"])
            check_disk(out, [asked], force=force)
    for note in asked.notes:
        beside.progress.say(note)
    with beside.progress.task("reading the data"):
        rows = rows_of(
            said["data"], asked.checkpoint.path, asked.settings, asked.reads, out=Path(out),
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
            return Run(Path(out), finished), None
        if opened is None and force and Path(out).is_dir():
            beside.progress.say(removed_by_force(out))
        run = opened or Run.open(out, card, force=force, resume=resume)
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


def check_together(asked: Request, streams: Sequence[Any], progress: Progress) -> None:
    """Raises `InputError` for choices that do not go together, now that data are known; says what groups save of them."""
    from ropewalk.tune import batches, combinations, pairs

    packed = any(stream.packed for stream in streams)
    combinations.check(asked.settings, plan=asked.kind, switch=asked.switch, packed=packed, merge=asked.merge)
    batches.Rows(asked.settings, streams)
    for line in pairs.told(asked.settings, streams):
        progress.say(line)


def check_apart(out: str | Path, source: Path) -> None:
    """Raises `OutputError` where what is written lies inside what is read, or around it."""
    final, real = Path(out).resolve(), source.resolve()
    if final.is_relative_to(real) or real.is_relative_to(final):
        raise OutputError(f"output folder {out} and source {source} lie inside one another; give another --out")


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


def _train(asked: Request, streams: Sequence[Any], run: Run, beside: Beside, processes: Any) -> None:
    from ropewalk.tune.run import Job

    settings = asked.settings
    # A prefix takes the first positions, and no text is to pass the plan behind it.
    longest = settings.length - (settings.num_virtual_tokens if settings.recipe == "prefix" else 0)
    lengths = beside.validate_lengths or (longest,)
    Job(
        checkpoint=asked.checkpoint, source=_where(asked.source), plan=asked.plan, geometry=asked.start,
        settings=asked.settings, streams=streams, device=processes.device or asked.device, processes=processes,
        bfloat16=asked.bfloat16, merge=asked.merge,
        scorer=beside.scorer, validate_lengths=lengths, validate_every=beside.validate_every, extra=beside.arguments,
        callbacks=beside.callbacks, progress=beside.progress,
    ).run(run)  # fmt: skip


def _where(source: str | Path) -> str:
    """The source as an adapter names its base: a folder by its whole path, a hub id as it is."""
    return str(Path(source).resolve()) if Path(source).expanduser().is_dir() else str(source)


def merge(source: str | Path, out: str | Path, *, force: bool = False, dtype: str = "float32") -> Path:
    """An adapter folder that `tune` wrote, as a full checkpoint with the same plan and lineage; the folder that was made.

    Weights and adapter are added in float32 and rounded to `dtype` last. What is merged is what `load` reads: a `qlora`
    adapter on the base as it was before it was rounded to 4 bits. Raises `InputError` where it is no adapter folder of ours
    or a prefix, `SourceError` where its base is gone, `HostError` for another base.
    """
    need("tune", "torch", "transformers", "peft", "safetensors")
    import torch

    from ropewalk.hosts import folder, live
    from ropewalk.hosts.staging import check_out

    if dtype not in live.DTYPES:
        raise InputError(f"unknown dtype {dtype!r} to merge into; {near(dtype, live.DTYPES)}")
    final = check_out(out, force=force, sources=[source])
    checkpoint = folder.open_checkpoint(source)
    if not checkpoint.is_own_adapter:
        raise InputError(f"{source} is a {checkpoint.kind}, and only an adapter folder that ropewalk tune wrote is merged")
    folder.check_mergeable(checkpoint)
    model, _ = live.load(checkpoint.path, dtype=torch.float32, device="cpu")
    for parameter in model.parameters():
        # Of the parameters alone: frequencies stay in float32.
        parameter.data = parameter.data.to(live.DTYPES[dtype])
    folder.write_merged(checkpoint, final, lambda stage: model.save_pretrained(stage), dtype=dtype, force=force)
    return final


def preset(given: str) -> Any:
    """A preset, by file or name: its name, its source and the options of its runs. Raises `InputError`."""
    from ropewalk.tune.presets import read

    return read(given)


def preset_runs(given: str | None, said: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """The options of each run of a preset, or of one run without a preset, and over them what is `said` besides; and lines
    for the user, where something of a preset was fitted to that."""
    from ropewalk.tune.presets import read, warmed

    found = [warmed(run, said) for run in (read(given).runs if given else ({},))]
    return [options for options, _ in found], [words for _, words in found if words is not None]


def preset_names() -> list[str]:
    """The presets that come with the package."""
    from ropewalk.tune.presets import names

    return names()


def presets_told() -> str:
    """Every preset that comes with the package, with the source of its numbers."""
    from ropewalk.tune.presets import told

    return told()


def settings_of() -> tuple[str, ...]:
    """Names of the settings that `tune` takes beside its own arguments."""
    need("tune", "torch", "transformers", "accelerate", "safetensors")
    return tuple(sorted(known_settings()))


def held_out(text: Sequence[str | Path], source: str | Path, longest: int) -> Any:
    """A scorer: the mean NLL in nats of the first tokens of held-out texts, never holding their logits.

    Raises `TextError` for a text that is shorter than `longest` tokens.
    """
    from ropewalk.data.documents import read_documents
    from ropewalk.hosts import folder, live

    tokenizer = live.load_tokenizer(folder.open_checkpoint(source).path)
    documents = read_documents(list(text), tokenizer, longest)

    def scorer(model: Any, length: int) -> float:
        import torch

        from ropewalk.measure.forward import Forward

        forward, total = Forward(model), 0.0
        for document in documents:
            ids = torch.as_tensor(document.ids[:length], dtype=torch.long)
            total += float(forward.nll(forward.hidden(ids)[:-1], ids[1:]).mean())
        return total / len(documents)

    return scorer
