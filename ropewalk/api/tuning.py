"""The verb that trains: `tune`, one run or a chain; and `merge`, which writes an adapter folder as a full checkpoint."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ropewalk.api.checkpoints import need
from ropewalk.api.training_chain import run_chain
from ropewalk.api.training_request import known_settings
from ropewalk.api.training_run import Beside, run_one
from ropewalk.core.errors import InputError, TextError, near
from ropewalk.core.geometry import Lineage
from ropewalk.core.method import Method
from ropewalk.core.output import check_apart
from ropewalk.core.progress import Progress
from ropewalk.core.record import Card


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
        return run_chain(source, [{**said, **run} for run in runs], out=out, beside=beside, force=force, resume=resume)
    return run_one(source, said, out=out, beside=beside, force=force, resume=resume)


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
        whole = "; its weights are whole already" if checkpoint.kind == "folder" else ""
        raise InputError(
            f"{source} is a {checkpoint.kind}, and only an adapter folder that ropewalk tune wrote is merged{whole}"
        )
    folder.check_mergeable(checkpoint)
    # Where the base's weights are links by path, the adapter is lost with the folder that they lead to.
    check_apart(out, [folder.base_of(checkpoint).path])
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


def recipes() -> list[dict[str, str]]:
    """Every recipe: its name, what of a model it trains, and what it leaves."""
    from ropewalk.tune.recipe_words import RECIPES_TOLD

    return [{"name": name, "trains": trains, "leaves": leaves} for name, (trains, leaves) in RECIPES_TOLD.items()]


def settings_of() -> tuple[str, ...]:
    """Names of the settings that `tune` takes beside its own arguments."""
    need("tune", "torch", "transformers", "accelerate", "safetensors")
    return tuple(sorted(known_settings()))


def held_out(text: Sequence[str | Path], source: str | Path, longest: int) -> Any:
    """A scorer: the mean NLL in nats of the first tokens of held-out texts, never holding their logits.

    Raises `TextError` for a text that is shorter than `longest` tokens, and for files of records: read as one text they
    would be scored with all their syntax.
    """
    from ropewalk.data.documents import read_documents
    from ropewalk.data.reading.files import RECORDS
    from ropewalk.hosts import folder, live

    for path in text:
        if Path(path).suffix.lower() in (*RECORDS, ".csv", ".tsv"):
            raise TextError(
                f"{path} holds records, and --validate scores plain texts from their first token on; write the text of some "
                "records to .txt files, one document each, and give those"
            )
    tokenizer = live.load_tokenizer(folder.open_checkpoint(source).path)
    documents = read_documents(list(text), tokenizer, longest, option="--validate-lengths")

    def scorer(model: Any, length: int) -> float:
        import torch

        from ropewalk.measure.forward import Forward

        forward, total = Forward(model), 0.0
        for document in documents:
            ids = torch.as_tensor(document.ids[:length], dtype=torch.long)
            total += float(forward.nll(forward.hidden(ids)[:-1], ids[1:]).mean())
        return total / len(documents)

    return scorer
