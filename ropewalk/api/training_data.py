"""What `tune` reads rows from: a folder that `ropewalk data` made, files that are prepared first, or streams in Python."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ropewalk.api.data import folders_read, prepare
from ropewalk.api.training_left import gone_on, names_of, settle_left, take_away, told_as
from ropewalk.api.training_options import check_options, has_prompts, passed_over
from ropewalk.api.training_tokens import check_folder, check_own
from ropewalk.core.errors import InputError, RopewalkError, TextError
from ropewalk.core.output import check_kept, check_outside, run_verb
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


def beside(out: Path) -> Path:
    """Where the rows of a run lie as long as its folder is not there."""
    return out.parent / f".{out.name}.{FOLDER}"


def rows_of(
    given: Any, source: Path, settings: Any, old_window: int, *, out: Path, options: Mapping[str, Any], resume: bool,
    progress: Progress, apart: bool = False, before: Any = None,
) -> RunData:  # fmt: skip
    """The rows of a run, `apart` with one document in each; `before` is what earlier runs of its chain have read.

    Raises `InputError` and its kin for whatever is wrong with the data, before the run folder is made.

    Files are prepared beside `out`, from what an earlier command left there, and `RunData.moved` puts them into it; a
    resumed run looks whether they are as they were.
    """
    check_options(given, options)
    if callable(given) or is_prepared(given):
        return streams_of(
            given, source, settings, old_window, options=options, progress=progress, apart=apart, before=before
        )
    inside, outside = out / FOLDER, beside(out)
    place = inside if resume and inside.is_dir() else outside
    if not resume:
        settle_left(outside, progress)
    goes_on = resume and place.is_dir()
    try:
        prepared(given, source, settings, old_window, place, options=options, resume=goes_on, progress=progress)
        with told_as(outside, names_of(given, options)):
            streams = _opened(place, settings, apart)
        if resume:
            _check_bytes(streams)
    except RopewalkError as error:
        if error.exit_code == 2 and not goes_on:
            take_away(outside, progress)
        raise
    told = _told(streams[0], place)
    return RunData(streams=streams, documents=told, apart=apart, folder=place, beside=None if place == inside else outside)


def check_kept_data(out: str | Path, given: Any, options: Mapping[str, Any]) -> None:
    """Raises `OutputError` where the data lie inside the run folder that is to be written, or it inside them."""
    texts = [str(path) for path in _paths(given)]
    places = [Path(part) for text in texts for part in (text, text.partition("=")[2]) if part and Path(part).exists()]
    places += folders_read([], options.get("datasets", ()))
    check_kept(out, [*places, *filter(None, [options.get("chat_template")])])
    check_outside(out, places)


def is_prepared(given: Any) -> bool:
    """Whether the data are one folder that `ropewalk data` made."""
    paths = _paths(given)
    return len(paths) == 1 and (Path(paths[0]) / "kept.npy").is_file()


def streams_of(
    given: Any, source: Path, settings: Any, old_window: int, *, options: Mapping[str, Any], progress: Progress,
    apart: bool = False, before: Any = None,
) -> RunData:  # fmt: skip
    """The rows of a callable, or of a folder that `ropewalk data` made; of a run of a chain where `before` is said.

    Raises `SourceError` for a folder whose tokens are not what was written, `TextError` where too few of them lie beyond
    the old window in the run's rows, and `InputError` for options that such a folder has answered otherwise and for tokens
    that are not the source's.
    """
    if callable(given):
        from ropewalk.tune import batches

        return RunData(streams=batches.given(given, settings, apart=apart, before=before), documents=[], apart=apart)
    folder = Path(_paths(given)[0])
    from ropewalk.data.stream import read_card

    card = read_card(folder)
    streams = _opened(folder, settings, apart, before)
    _check_bytes(streams)
    only_texts = all("learned" not in shard.sha256 for shard in streams[0].documents.shards)
    lines = passed_over(folder, card, options, only_texts=only_texts, chain=before is not None)
    _check_beyond(streams, settings, old_window, card["settings"], folder, allowed=bool(options.get("allow_short")))
    for line in filter(None, [*lines, check_folder(folder, streams[0].documents, source)]):
        progress.say(line)
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
    given: Any, source: Path, settings: Any, old_window: int, place: Path, *, options: Mapping[str, Any], resume: bool,
    progress: Progress, chain: bool = False,
) -> None:  # fmt: skip
    """Files as a folder of rows at `place`, the tokenizer `source`'s; `chain` where the run is one of several, of which all
    have the old window of the first. Without `resume` another question than that of rows that are there is no error."""
    paths = _paths(given)
    if not paths and not options.get("datasets"):
        raise InputError("there is nothing to train on; give --data with files, folders, or a folder of ropewalk data")
    _check_one(paths)
    longest = max(stage.window for stage in settings.stages)
    # Rows within the old window are meant where positions are spread over more, or nothing is stretched.
    short = settings.positions != "full" or longest <= old_window
    chosen = {"allow_short": short, "window": old_window, "seed": settings.seed, **options}
    if chain and chosen.get("prompt_loss") and not has_prompts(paths, chosen):
        # What is said for a chain is said to all of its runs, and the first may read texts.
        progress.say("prompt_loss does nothing to the texts of this run, of which every token is learned")
        chosen["prompt_loss"] = False

    def make(goes_on: bool) -> None:
        prepare(paths, tokenizer=source, length=longest, out=place, resume=goes_on, progress=progress, **chosen)

    if resume:
        make(True)
    else:
        gone_on(place, make, progress)
    try:
        check_own(place, source)
    except InputError:
        if not resume:
            shutil.rmtree(place, ignore_errors=True)
        raise


def _check_one(paths: Sequence[Any]) -> None:
    """Raises `InputError` where a folder of rows stands beside others: `is_prepared` takes one, alone."""
    from ropewalk.data.reading.files import place_of

    # One that is not finished is refused by the reading, with its mend.
    made = [place for path in paths if (place := place_of(str(path))).is_dir() and run_verb(place) == "data"]
    if made and len(paths) > 1:
        raise InputError(
            f"tune reads one folder that ropewalk data made, alone, and {made[0]} is given beside {len(paths) - 1} more; "
            "give one of them, or prepare all their sources together with ropewalk data"
        )


def _check_bytes(streams: Sequence[Any]) -> None:
    """Raises `SourceError` where tokens are not those that were written: hours would go into rows that nobody made."""
    streams[0].documents.check()


def _check_beyond(
    streams: Sequence[Any], settings: Any, old_window: int, made: Mapping[str, Any], folder: Path, *, allowed: bool
) -> None:
    """Raises `TextError` where too few tokens of the run's longest rows lie beyond the old window.

    The folder may have been made for shorter rows, which nothing was asked of.
    """
    longest = max(stage.window for stage in settings.stages)
    if settings.positions != "full" or longest <= old_window or allowed or made["allow_short"]:
        return
    share = next(stream for stream in streams if stream.length == longest).share_beyond(old_window)
    if share < made["min_beyond"]:
        raise TextError(
            f"{share:.1%} of the tokens in {folder} lie beyond the old window of {old_window} in rows of {longest}, "
            f"expected at least {made['min_beyond']:.0%}; prepare longer documents, or say --allow-short"
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
