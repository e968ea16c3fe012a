"""The verb that trains: `tune`, and `merge`, which writes an adapter folder as a full checkpoint."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ropewalk.api import provenance
from ropewalk.api.checkpoints import check_frozen, need, plan_to_write
from ropewalk.api.plans import geometry
from ropewalk.api.training_data import rows_of
from ropewalk.core.errors import InputError, OutputError
from ropewalk.core.geometry import Lineage
from ropewalk.core.method import Method
from ropewalk.core.plan import Plan, parse_length
from ropewalk.core.progress import Progress
from ropewalk.core.record import Card
from ropewalk.core.run import Run
from ropewalk.core.run import check_out as check_run


def tune(
    source: str | Path, data: Any, *, length: int | str, out: str | Path, method: str | Method | None = None,
    steps: int | None = None, window: int | str | None = None, stages: Sequence[tuple[int, int]] | None = None,
    lineage: Lineage | None = None, freeze: bool = False, device: str = "auto", dtype: str = "auto", merge: bool = False,
    scorer: Any = None, validate_lengths: Sequence[int] = (), validate_every: int = 0, callbacks: Sequence[Any] = (),
    arguments: Mapping[str, Any] | None = None, force: bool = False, resume: bool = False,
    progress: Progress | None = None, data_options: Mapping[str, Any] | None = None, **settings: Any,
) -> Card:  # fmt: skip
    """Trains a model at `length` tokens with a plan on, and writes `out`, which `load`, `verify` and `measure` take.

    `data` are text files or a folder that `ropewalk data` made; or a callable from a window to a stream of rows. Without
    a `method` the source keeps the positions it carries. `stages` are pairs (window, steps) for a curriculum, else one stage
    of `steps` at `window`. `scorer(model, length)` gives held-out scores at `validate_lengths`; `arguments` go to
    `transformers.TrainingArguments` as they are; `settings` are the fields of `ropewalk.tune.settings.Settings`.

    Everything is checked before a folder is made. Raises `InputError` and its kind for what cannot run, `HostError` for a
    plan that no config says, `MachineError` (exit code 3) for a full disk, too little memory, or a loss that is not finite
    or runs away; the state is saved, and `resume` goes on to the same parameters.
    """
    need("tune", "torch", "transformers", "accelerate", "safetensors")
    from ropewalk.hosts import folder, live
    from ropewalk.tune import combinations, recipes
    from ropewalk.tune.run import Job

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("tune writes its run folder from one process, and this is one of several; start it alone")
    progress, tokens = progress or Progress(), parse_length(length)
    chosen = _settings(tokens, _stages(source, tokens, steps, window, stages, settings), settings)
    recipes.refuse(chosen.recipe)
    check_run(out, force=force, resume=resume)
    checkpoint = folder.open_checkpoint(source, weights=True)
    if checkpoint.kind != "folder" or checkpoint.quantisation is not None:
        raise InputError(
            f"{source} is {checkpoint.quantisation or checkpoint.kind} and cannot be trained; give a folder with "
            "unquantised safetensors weights (an adapter is merged by ropewalk tune DIR --merge --out NEW)"
        )
    _check_apart(out, checkpoint.path)
    plan, found = None, geometry(source)
    if method is not None:
        plan, found = plan_to_write(source, method, length=tokens, lineage=lineage, freeze=freeze)
        check_frozen(plan)
    folder.check_start(checkpoint, plan, length=tokens, geometry=found)
    target = live.choose_device(device)
    _check_machine(chosen, found, target.type)
    bfloat16 = _bfloat16(dtype, target)
    with progress.task("reading the data"):
        rows = rows_of(
            data, checkpoint.path, chosen, found, out=Path(out), options=data_options or {}, resume=resume, progress=progress
        )  # fmt: skip
    try:
        combinations.check(chosen, plan="static" if plan is None else plan.kind, packed=_packed(rows.streams), merge=merge)
        config = {**chosen.to_dict(), "source": str(source), "out": str(out), "merge": merge, "lineage": lineage,
                  "data_options": dict(data_options or {}), "arguments": {k: str(v) for k, v in (arguments or {}).items()},
                  "resume": resume, "force": force}  # fmt: skip
        precision = "bfloat16" if bfloat16 else "float32"
        card = _card(checkpoint, config, found, plan, rows.documents, chosen.seed, precision, str(target))
        finished = _finished(out, card) if resume else None
        if finished is not None:
            return finished
        run = Run.open(out, card, force=force, resume=resume)
    except BaseException:
        rows.removed()
        raise
    Job(
        checkpoint=checkpoint, source=_where(source), plan=plan, geometry=found, settings=chosen,
        streams=rows.moved(run.path, chosen).streams, device=target, bfloat16=bfloat16, merge=merge, scorer=scorer,
        validate_lengths=tuple(validate_lengths), validate_every=validate_every, extra=arguments or {}, callbacks=callbacks,
        progress=progress,
    ).run(run)  # fmt: skip
    return run.card


def merge(source: str | Path, out: str | Path, *, force: bool = False, dtype: str = "float32") -> Path:
    """An adapter folder that `tune` wrote, as a full checkpoint with the same plan and lineage; the folder that was made.

    Raises `SourceError` where it is no adapter folder of ours or its base is gone, `HostError` for another base.
    """
    need("tune", "torch", "transformers", "peft", "safetensors")
    import torch

    from ropewalk.hosts import folder, live
    from ropewalk.hosts.staging import check_out

    final = check_out(out, force=force, sources=[source])
    checkpoint = folder.open_checkpoint(source)
    if not checkpoint.is_own_adapter:
        raise InputError(f"{source} is a {checkpoint.kind}, and only an adapter folder that ropewalk tune wrote is merged")
    model, _ = live.load(checkpoint.path, dtype=getattr(torch, dtype), device="cpu")
    folder.write_merged(checkpoint, final, lambda stage: model.save_pretrained(stage), dtype=dtype, force=force)
    return final


def _settings(length: int, stages: Any, settings: Mapping[str, Any]) -> Any:
    import dataclasses

    from ropewalk.core.errors import near
    from ropewalk.tune.settings import Settings

    known = {field.name for field in dataclasses.fields(Settings)} - {"length", "stages"}
    for name in settings:
        if name not in known:
            raise InputError(f"tune takes no setting {name!r}; {near(name, known)}")
    return Settings(length=length, stages=stages, **settings)


def _stages(source: Any, length: int, steps: int | None, window: Any, stages: Any, settings: Mapping[str, Any]) -> Any:
    """The stages that were asked for; training short takes rows of what the source reads now."""
    from ropewalk.tune.settings import Stage

    if stages is not None:
        if steps is not None or window is not None:
            raise InputError("a curriculum says the steps and rows of each stage; leave --steps and --window out")
        return tuple(Stage(window=one, steps=many) for one, many in stages)
    if steps is None:
        raise InputError("a run needs a number of steps; give --steps, such as 400")
    if window is None:
        short = settings.get("positions", "full") != "full"
        rows = min(length, geometry(source).trained_length) if short else length
    else:
        rows = parse_length(window)
    return (Stage(window=rows, steps=steps),)


def _check_machine(settings: Any, found: Any, device: str) -> None:
    """What shows only with the model or the device, before anything is made."""
    if settings.offload and device == "cpu":
        raise InputError("activations are offloaded from a device, and this trains on the processor; leave --offload out")
    longest = max(stage.window for stage in settings.stages)
    narrow = [group for group in found.groups if group.window is not None and group.window < longest]
    if narrow and settings.attention != "own":
        raise InputError(
            f"layers of group {narrow[0].label} see {narrow[0].window} tokens, fewer than a row of {longest}, which "
            "segments cannot keep apart; say --attention own and give one document in a row"
        )


def _packed(streams: Sequence[Any]) -> bool:
    """Whether some first row packs documents that are learned: padding is a document that is not."""
    firsts = [stream.row(0) for stream in streams]
    return any(bool(((row.document_ids > 0) & (row.labels != -100)).any()) for row in firsts)


def _bfloat16(dtype: str, device: Any) -> bool:
    from ropewalk.core.errors import near
    from ropewalk.hosts import live

    if dtype not in ("auto", "float32", "bfloat16"):
        raise InputError(f"unknown dtype {dtype!r} to train in; {near(dtype, ['auto', 'float32', 'bfloat16'])}")
    return dtype == "bfloat16" or (dtype == "auto" and str(live.choose_dtype(device)[0]) == "torch.bfloat16")


def _check_apart(out: str | Path, source: Path) -> None:
    final, real = Path(out).resolve(), source.resolve()
    if final.is_relative_to(real) or real.is_relative_to(final):
        raise OutputError(f"output folder {out} and source {source} lie inside one another; give another --out")


def _where(source: str | Path) -> str:
    """The source as an adapter names its base: a folder by its whole path, a hub id as it is."""
    return str(Path(source).resolve()) if Path(source).expanduser().is_dir() else str(source)


def _finished(out: str | Path, card: Card) -> Card | None:
    """The card of this very run where it is finished already."""
    path = Path(out) / "card.json"
    if not path.is_file():
        return None
    try:
        old = Card.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        return None
    same = old.question == card.question
    return old if old.status == "done" and same and (Path(out) / "config.json").is_file() else None


def _card(
    checkpoint: Any, config: dict[str, Any], found: Any, plan: Plan | None, documents: list[dict[str, Any]], seed: int,
    dtype: str, device: str,
) -> Card:  # fmt: skip
    name = Path(config["source"]).name
    return Card(
        verb="tune",
        model=name,
        source={"name": name, "kind": checkpoint.kind, "sha256": provenance.source_hash(checkpoint.path)},
        config=config,
        geometry=found.to_dict(),
        plans={} if plan is None else {plan.method: plan.to_dict()},
        documents=documents,
        seed=seed,
        dtype=dtype,
        device=device,
        quantisation=provenance.quantisation(checkpoint.config),
        versions={**provenance.versions(), **provenance.versions_of("accelerate", "peft")},
        hardware=provenance.hardware(device),
    )


def preset(given: str) -> dict[str, Any]:
    """The options of a preset, by file or name. Raises `InputError`."""
    from ropewalk.tune.presets import read

    return read(given)


def settings_of() -> tuple[str, ...]:
    """Names of the settings that `tune` takes beside its own arguments."""
    import dataclasses

    need("tune", "torch", "transformers", "accelerate", "safetensors")
    from ropewalk.tune.settings import Settings

    return tuple(field.name for field in dataclasses.fields(Settings) if field.name not in ("length", "stages"))


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
