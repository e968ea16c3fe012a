"""The verb that prepares data: texts, conversations and data sets into rows that training reads."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ropewalk.api import provenance
from ropewalk.api.checkpoints import need
from ropewalk.core.errors import InputError, SourceError
from ropewalk.core.output import check_kept, check_out, check_outside, say_beginning
from ropewalk.core.plan import parse_length
from ropewalk.core.progress import Progress

TOKENIZING = ("tokenizers", "transformers")
"""Packages whose version may change a token."""


def prepare(
    paths: Sequence[str | Path] = (), *, tokenizer: str | Path, length: int | str, out: str | Path,
    datasets: Sequence[str] = (), window: int | str | None = None, field: str | None = None, include: Sequence[str] = (),
    chat_template: str | Path | None = None, prompt_loss: bool = False, special_tokens: bool = False,
    end: bool = True,
    mix: Mapping[str, float] | None = None, short_share: float | None = None, keep_short: float | None = None,
    min_beyond: float = 0.1, allow_short: bool = False, max_broken: int = 10, seed: int = 0,
    force: bool = False, resume: bool = False, progress: Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The verb `data`: a folder of rows of `length` tokens from files, folders and data sets of the hub, each with `NAME=`
    before it where it is to be called so; its card.

    `tokenizer` is the model's folder; `window` what the model reads before it is tuned (default: what its config says).
    Raises `InputError` and its kin for whatever is wrong with the input, `MachineError` where the disk is full.
    """
    need("hf", "torch", "transformers")
    from ropewalk.data import preparation
    from ropewalk.data.assembly import Settings
    from ropewalk.data.mixing import Mix
    from ropewalk.data.reading.files import check_options, open_files
    from ropewalk.data.reading.records import Source
    from ropewalk.data.tokens import Encoder

    if not paths and not datasets:
        raise InputError("there is nothing to read; give files or folders, or a data set of the hub with --dataset")
    model = model_of(tokenizer)
    settings = Settings(
        length=parse_length(length),
        window=_window(model, window),
        mix=Mix(shares=dict(mix or {}), short_share=short_share, keep_short=keep_short),
        min_beyond=min_beyond,
        allow_short=allow_short,
        max_broken=max_broken,
        seed=seed,
    )
    files = [open_files(str(path), field=field, include=include) for path in paths]
    check_options(files, num_datasets=len(datasets), include=include)
    check_kept(
        out,
        [
            *(source.root / name for source in files for name in source.files),
            model,
            *folders_read([], datasets),
            *([] if chat_template is None else [chat_template]),
        ],
    )
    check_outside(out, folders_read(files, datasets))
    sources: list[Source] = [*files, *(dataset_of(text, field=field) for text in datasets)]
    encoder = Encoder(
        tokenizer=tokenizer_of(model),
        chat_template=chat_template_of(chat_template),
        prompt_loss=prompt_loss,
        end=end,
        special_tokens=special_tokens,
    )
    if chat_template is not None and not any(source.has_prompts() for source in sources):
        (progress or Progress()).say("a chat template does nothing to texts, and no conversation is among these sources")
    if resume and progress is None:
        # Whoever shows progress of its own, as tune does, says itself what it begins.
        say_beginning(check_out(out, force=force, resume=resume, verb="data"), progress)
    versions = {name: version for name, version in provenance.versions().items() if name in TOKENIZING}
    how: dict[str, Any] = {"force": force, "resume": resume, "progress": progress}
    return preparation.prepare(sources, encoder, settings, out, versions=versions, model=str(tokenizer), **how)


data = prepare
"""As the command line calls it."""


def dataset_of(text: str, *, field: str | None = None) -> Any:
    """The source that `ID:options` or `NAME=ID:options` means."""
    from ropewalk.data.reading.hub import open_dataset

    name, rest = _named(text)
    found = open_dataset(rest, field=field)
    return found if name is None else replace(found, name=name, id=found.name)


def _named(text: str) -> tuple[str | None, str]:
    """The name that a user gives a data set, and the rest; options have an equals sign too, behind their colon."""
    name, _, rest = text.partition("=")
    if name and rest and ":" not in name and not Path(text.partition(":")[0]).exists():
        return name, rest
    return None, text


def folders_read(files: Sequence[Any], datasets: Sequence[str]) -> list[Path]:
    """Folders that are read with everything below them: sources, and data sets that are folders here."""
    sets = [Path(_named(text)[1].partition(":")[0]) for text in datasets]
    return [*(source.root for source in files if source.is_folder), *sets]


def model_of(source: str | Path) -> Path:
    """The folder of the model whose tokenizer is meant; of a hub id config and tokenizer are fetched."""
    from ropewalk.hosts import folder

    if Path(source).is_dir():
        return Path(source)
    found = folder.open_checkpoint(source)
    if found.kind == "gguf" or not found.path.is_dir():
        raise SourceError(f"{source} is no folder with a tokenizer; make one of a GGUF file with ropewalk convert")
    return found.path


def _window(model: Path, window: int | str | None) -> int:
    """The old window: as stated, or as the config beside the tokenizer says."""
    if window is not None:
        return parse_length(window)
    if not (model / "config.json").is_file():
        raise InputError(f"{model} has no config.json that says what the model reads; say it with --window, such as 8k")
    from ropewalk.hosts import folder

    return folder.geometry_of(folder.open_checkpoint(model)).window_length


def tokenizer_of(model: Path) -> Any:
    """The tokenizer of a model's folder. Raises `SourceError` where it has none."""
    from ropewalk.hosts.live import load_tokenizer

    try:
        return load_tokenizer(model)
    except SourceError as error:
        raise SourceError(f"{model} has no tokenizer that can be loaded; give the model's complete folder") from error


def chat_template_of(path: str | Path | None) -> str | None:
    """A chat template from a file."""
    from ropewalk.data.documents import read_text

    return None if path is None else read_text(path)
