"""What `tune` reads rows from: a folder that `ropewalk data` made, files that are prepared first, or streams in Python."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ropewalk.api.data import data as prepare
from ropewalk.core.errors import InputError, OutputError, TextError
from ropewalk.core.geometry import Geometry
from ropewalk.core.output import check_kept
from ropewalk.core.progress import Progress
from ropewalk.core.run import full_disk_is_told

FOLDER = "data"
"""Where a run folder keeps the rows of the files that it was given."""


@dataclass(frozen=True, kw_only=True)
class RunData:
    """Streams of rows, one for each stage, and where they lie meanwhile."""

    streams: list[Any]
    documents: list[dict[str, Any]]
    """What the card says of the data: another fingerprint is another question."""
    apart: bool = False
    """Whether each document has rows of its own."""
    folder: Path | None = None
    """Where they lie as documents; None for rows given in Python."""
    beside: Path | None = None
    """Prepared beside the run folder, which does not exist yet; None where nothing is to be moved."""

    def moved(self, out: Path, settings: Any) -> "RunData":
        """The same rows inside the run folder, once that is there."""
        if self.beside is None:
            return self
        final = out / FOLDER
        with full_disk_is_told(final):
            self.beside.rename(final)
        return replace(self, streams=_opened(final, settings, self.apart), folder=final, beside=None)

    def removed(self) -> None:
        """Takes away what was prepared for a run that is refused."""
        if self.beside is not None:
            shutil.rmtree(self.beside, ignore_errors=True)


def rows_of(
    given: Any, source: Path, settings: Any, geometry: Geometry, *, out: Path, options: Mapping[str, Any], resume: bool,
    progress: Progress, apart: bool = False, before: Any = None,
) -> RunData:  # fmt: skip
    """The rows of a run, `apart` with one document in each; `before` is what earlier runs of its chain have read.

    Raises `InputError` and its kin for whatever is wrong with the data, before the run folder is made.

    Files are prepared beside `out`, and `RunData.moved` puts them there; a resumed run looks whether they are as they were.
    """
    if callable(given) or is_prepared(given):
        return streams_of(given, source, settings, geometry, options=options, progress=progress, apart=apart, before=before)
    inside, beside = out / FOLDER, out.parent / f".{out.name}.{FOLDER}"
    place = inside if resume and inside.is_dir() else beside
    if not resume:
        shutil.rmtree(beside, ignore_errors=True)
    prepared(given, source, settings, geometry, place, options=options, resume=resume and place.is_dir(), progress=progress)
    streams = _opened(place, settings, apart)
    if resume:
        _check_bytes(streams)
    told = _told(streams[0], place)
    return RunData(streams=streams, documents=told, apart=apart, folder=place, beside=None if place == inside else beside)


def check_kept_data(out: str | Path, given: Any, options: Mapping[str, Any]) -> None:
    """Raises `OutputError` where the data lie inside the run folder that is to be written, or it inside them."""
    texts = [str(path) for path in _paths(given)]
    places = [Path(part) for text in texts for part in (text, text.partition("=")[2]) if part and Path(part).exists()]
    check_kept(out, [*places, *filter(None, [options.get("chat_template")])])
    around = [path for path in places if Path(out).resolve().is_relative_to(path.resolve())]
    if around:
        raise OutputError(f"the output folder {out} lies inside {around[0]}, which is read; give another --out")


def is_prepared(given: Any) -> bool:
    """Whether the data are one folder that `ropewalk data` made."""
    paths = _paths(given)
    return len(paths) == 1 and (Path(paths[0]) / "kept.npy").is_file()


def streams_of(
    given: Any, source: Path, settings: Any, geometry: Geometry, *, options: Mapping[str, Any], progress: Progress,
    apart: bool = False, before: Any = None,
) -> RunData:  # fmt: skip
    """The rows of a callable, or of a folder that `ropewalk data` made.

    Raises `SourceError` for a folder whose tokens are not what was written, `TextError` where too few of them lie beyond
    the old window in the run's rows, and `InputError` for options that such a folder has answered otherwise.
    """
    if callable(given):
        from ropewalk.tune import batches

        return RunData(streams=batches.given(given, settings, apart=apart, before=before), documents=[], apart=apart)
    folder = Path(_paths(given)[0])
    from ropewalk.data.stream import read_card

    card = read_card(folder)
    for line in passed_over(folder, card, options):
        progress.say(line)
    streams = _opened(folder, settings, apart, before)
    _check_bytes(streams)
    _check_beyond(streams, settings, geometry, card["settings"], folder, allowed=bool(options.get("allow_short")))
    _same_tokenizer(folder, source, progress)
    return RunData(streams=streams, documents=_told(streams[0], folder), apart=apart, folder=folder)


def rows_told(streams: Sequence[Any], settings: Any, folder: Path | None) -> list[str]:
    """What a person wants to know of the rows before the first step: what was left out, and how often each comes."""
    from ropewalk.api import data_words
    from ropewalk.data.stream import read_card

    about = [] if folder is None else data_words.taken(read_card(folder), folder)
    return about + data_words.rows(streams, settings, num_processes=int(os.environ.get("WORLD_SIZE", "1")))


def rows_made(given: Any, settings: Any, out: Path, *, apart: bool = False) -> Sequence[Any]:
    """The rows of a run that another process has begun."""
    if callable(given):
        from ropewalk.tune import batches

        return [*batches.given(given, settings, apart=apart)]
    return _opened(Path(_paths(given)[0]) if is_prepared(given) else out / FOLDER, settings, apart)


def prepared(
    given: Any, source: Path, settings: Any, geometry: Geometry, place: Path, *, options: Mapping[str, Any], resume: bool,
    progress: Progress, chain: bool = False,
) -> None:  # fmt: skip
    """Files as a folder of rows at `place`, the tokenizer `source`'s; `chain` where the run is one of several."""
    paths = _paths(given)
    if not paths and not options.get("datasets"):
        raise InputError("there is nothing to train on; give --data with files, folders, or a folder of ropewalk data")
    longest = max(stage.window for stage in settings.stages)
    # Rows within the old window are meant where positions are spread over more, or nothing is stretched.
    short = settings.positions != "full" or longest <= geometry.window_length
    chosen = {"allow_short": short, "window": geometry.window_length, "seed": settings.seed, **options}
    if chain and chosen.get("prompt_loss") and not has_prompts(paths, chosen):
        # What is said for a chain is said to all of its runs, and the first may read texts.
        progress.say("prompt_loss does nothing to the texts of this run, of which every token is learned")
        chosen["prompt_loss"] = False
    prepare(paths, tokenizer=source, length=longest, out=place, resume=resume, progress=progress, **chosen)


def has_prompts(paths: Sequence[Any], options: Mapping[str, Any]) -> bool:
    """Whether files have conversations; of data sets of the hub, which are asked for when they are read, it may be."""
    from ropewalk.data.reading.files import open_files

    files = (open_files(str(path), field=options.get("field"), include=options.get("include", ())) for path in paths)
    return bool(options.get("datasets")) or any(source.has_prompts() for source in files)


def passed_over(folder: Path, card: Mapping[str, Any], options: Mapping[str, Any]) -> list[str]:
    """What to say of options that a prepared folder has answered already, most likely a preset's.

    Raises `InputError` for those that ask for something else than it holds. `allow_short` is of the run and no such one.
    """
    held = {"prompt_loss": bool(card.get("prompt_loss")), "field": card.get("field")}
    # A folder with prompts was asked for; that they are not learned is what everybody gets who does not ask.
    other = [key for key, value in options.items() if key != "allow_short" and value and value != held.get(key)]
    if other == ["prompt_loss"]:
        raise InputError(
            f"{folder} is prepared already, and without prompt_loss; leave --prompt-loss out, or a preset's line "
            "prompt_loss, or prepare conversations anew with ropewalk data --prompt-loss"
        )
    if other:
        raise InputError(
            f"{folder} is prepared already, and not with {', '.join(f'{key} {options[key]}' for key in sorted(other))}; "
            "leave that out, or prepare the data anew with ropewalk data"
        )
    if held["prompt_loss"] and options.get("prompt_loss") is False:
        return [f"{folder} was prepared with prompt_loss, so the prompts of its conversations are learned too"]
    return []


def _check_bytes(streams: Sequence[Any]) -> None:
    """Raises `SourceError` where tokens are not those that were written: hours would go into rows that nobody made."""
    streams[0].documents.check()


def _check_beyond(
    streams: Sequence[Any], settings: Any, geometry: Geometry, made: Mapping[str, Any], folder: Path, *, allowed: bool
) -> None:
    """Raises `TextError` where too few tokens of the run's longest rows lie beyond the old window.

    The folder may have been made for shorter rows, which nothing was asked of.
    """
    longest, window = max(stage.window for stage in settings.stages), geometry.window_length
    if settings.positions != "full" or longest <= window or allowed or made["allow_short"]:
        return
    share = next(stream for stream in streams if stream.length == longest).share_beyond(window)
    if share < made["min_beyond"]:
        raise TextError(
            f"{share:.1%} of the tokens in {folder} lie beyond the old window of {window} in rows of {longest}, expected at "
            f"least {made['min_beyond']:.0%}; prepare longer documents, or say --allow-short"
        )


def _paths(given: Any) -> list[Any]:
    if callable(given):
        return []
    return [given] if isinstance(given, str | Path) else list(given)


def _opened(folder: Path, settings: Any, apart: bool, before: Any = None) -> list[Any]:
    from ropewalk.tune import batches

    return [*batches.opened(folder, settings, apart=apart, before=before)]


def _told(stream: Any, folder: Path) -> list[dict[str, Any]]:
    from ropewalk.data.stream import read_card

    name = ", ".join(source["name"] for source in read_card(folder)["asked"]["sources"])
    return [{"name": name, "num_tokens": int(stream.documents.lengths.sum()), "sha256": stream.fingerprint}]


def _same_tokenizer(folder: Path, source: Path, progress: Progress) -> None:
    """Says so where the rows were tokenized otherwise than the source would: a template of one's own is no mistake."""
    from itertools import product

    from ropewalk.data.stream import read_card
    from ropewalk.data.tokens import Encoder
    from ropewalk.hosts.live import load_tokenizer

    tokenizer = load_tokenizer(source)
    ways = product((False, True), (False, True))
    known = {Encoder(tokenizer=tokenizer, prompt_loss=prompt, end=end).fingerprint() for prompt, end in ways}
    if read_card(folder)["asked"]["tokenizer"] not in known:
        progress.say(f"{folder} was tokenized with another tokenizer or chat template than that of {source}")
