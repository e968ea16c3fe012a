"""What `tune` reads rows from: a folder that `ropewalk data` made, files that are prepared first, or streams in Python."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ropewalk.api.data import data as prepare
from ropewalk.core.errors import InputError
from ropewalk.core.geometry import Geometry
from ropewalk.core.progress import Progress
from ropewalk.core.run import full_disk_is_told

FOLDER = "data"
"""Where a run folder keeps the rows of the files that it was given."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Streams of rows, one for each stage, and where they lie meanwhile."""

    streams: list[Any]
    documents: list[dict[str, Any]]
    """What the card says of the data: another fingerprint is another question."""
    apart: bool = False
    """Whether each document has rows of its own."""
    beside: Path | None = None
    """Prepared beside the run folder, which does not exist yet; None where nothing is to be moved."""

    def moved(self, out: Path, settings: Any) -> "Rows":
        """The same rows inside the run folder, once that is there."""
        if self.beside is None:
            return self
        final = out / FOLDER
        with full_disk_is_told(final):
            self.beside.rename(final)
        return replace(self, streams=_opened(final, settings, self.apart), beside=None)

    def removed(self) -> None:
        """Takes away what was prepared for a run that is refused."""
        if self.beside is not None:
            shutil.rmtree(self.beside, ignore_errors=True)


def rows_of(
    given: Any, source: Path, settings: Any, geometry: Geometry, *, out: Path, options: Mapping[str, Any], resume: bool,
    progress: Progress, apart: bool = False, before: Any = None,
) -> Rows:  # fmt: skip
    """The rows of a run, `apart` with one document in each; `before` is what earlier runs of its chain have read.

    Raises `InputError` and its kin for whatever is wrong with the data, before the run folder is made.

    Files are prepared beside `out` and moved into it by `Rows.moved`; a resumed run looks whether they are what they were.
    """
    if callable(given) or is_prepared(given):
        return streams_of(given, source, settings, options=options, progress=progress, apart=apart, before=before)
    inside, beside = out / FOLDER, out.parent / f".{out.name}.{FOLDER}"
    place = inside if resume and inside.is_dir() else beside
    if not resume:
        shutil.rmtree(beside, ignore_errors=True)
    prepared(given, source, settings, geometry, place, options=options, resume=resume and place.is_dir(), progress=progress)
    streams = _opened(place, settings, apart)
    told = _told(streams[0], place)
    return Rows(streams=streams, documents=told, apart=apart, beside=None if place == inside else beside)


def is_prepared(given: Any) -> bool:
    """Whether the data are one folder that `ropewalk data` made."""
    paths = _paths(given)
    return len(paths) == 1 and (Path(paths[0]) / "kept.npy").is_file()


def streams_of(
    given: Any, source: Path, settings: Any, *, options: Mapping[str, Any], progress: Progress, apart: bool = False,
    before: Any = None,
) -> Rows:  # fmt: skip
    """The rows of a callable, or of a folder that `ropewalk data` made."""
    if callable(given):
        from ropewalk.tune import batches

        return Rows(streams=batches.given(given, settings, apart=apart, before=before), documents=[], apart=apart)
    folder = Path(_paths(given)[0])
    if options:
        raise InputError(
            f"{folder} is prepared already, and {', '.join(sorted(options))} would change nothing in it; leave that "
            "out, or prepare the data anew with ropewalk data"
        )
    streams = _opened(folder, settings, apart, before)
    _same_tokenizer(folder, source, progress)
    return Rows(streams=streams, documents=_told(streams[0], folder), apart=apart)


def rows_made(given: Any, settings: Any, out: Path, *, apart: bool = False) -> Sequence[Any]:
    """The rows of a run that another process has begun."""
    if callable(given):
        from ropewalk.tune import batches

        return [*batches.given(given, settings, apart=apart)]
    return _opened(Path(_paths(given)[0]) if is_prepared(given) else out / FOLDER, settings, apart)


def prepared(
    given: Any, source: Path, settings: Any, geometry: Geometry, place: Path, *, options: Mapping[str, Any], resume: bool,
    progress: Progress,
) -> None:  # fmt: skip
    """Files as a folder of rows at `place`, the tokenizer `source`'s."""
    paths = _paths(given)
    if not paths and not options.get("datasets"):
        raise InputError("there is nothing to train on; give --data with files, folders, or a folder of ropewalk data")
    longest = max(stage.window for stage in settings.stages)
    # Rows within the old window are meant where positions are spread over more, or nothing is stretched.
    short = settings.positions != "full" or longest <= geometry.window_length
    chosen = {"allow_short": short, "window": geometry.window_length, "seed": settings.seed, **options}
    prepare(paths, tokenizer=source, length=longest, out=place, resume=resume, progress=progress, **chosen)


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
