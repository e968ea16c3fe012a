"""Rows that were tokenized for a run whose folder is not there yet: gone on with after a kill, taken away after a refusal.

They lie beside the run folder, as `.OUT.data`, until the run begins. A command that was killed there leaves them. The same
one goes on with them; one whose tokens would be others begins anew. Both are said. A command that is refused takes its own
away where less than a shard of each source is lost by it, as `ropewalk data` does; more stays, and where is said.

Given up: two commands at once for one folder.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ropewalk.core.errors import OutputError, RopewalkError, SourceError
from ropewalk.core.output import FIRST_STAGE, run_verb
from ropewalk.core.progress import Progress


def settle_left(place: Path, progress: Progress, *, num_runs: int | None = None) -> None:
    """Of what an earlier command left there only what this one may go on with: the rows of one run, or of the `num_runs` of
    a chain. Raises `OutputError` where something else lies there."""
    if not place.is_dir():
        return
    numbered = [one for one in place.iterdir() if one.name.isdecimal() and _is_ours(one)]
    if place.is_symlink() or not (_is_ours(place) or numbered):
        raise OutputError(
            f"{place} is where rows are made before their run begins, and holds something else; move it away, or give "
            "another --out"
        )
    # What lies between the runs of a chain and is none of them is somebody else's.
    if num_runs is None:
        kept = [place] if run_verb(place) == "data" else []
        others = [] if kept else [place] if _is_ours(place) else numbered
    else:
        kept = [one for number in range(num_runs) if run_verb(one := place / str(number + 1)) == "data"]
        others = [one for one in (place.iterdir() if _is_ours(place) else numbered) if one not in kept]
    for one in others:
        shutil.rmtree(one) if one.is_dir() else one.unlink()
    if place.is_dir() and not any(place.iterdir()):
        place.rmdir()
    if kept:
        progress.say(f"{place} has what an earlier command tokenized; what is asked alike is not tokenized again")
    elif others:
        progress.say(f"{place}, which an earlier command left, was of other runs and is removed")


def _is_ours(place: Path) -> bool:
    """Whether `ropewalk data` made it, or only just began to."""
    return place.is_dir() and (run_verb(place) == "data" or {one.name for one in place.iterdir()} <= {FIRST_STAGE})


def gone_on(place: Path, make: Callable[[bool], object], progress: Progress) -> None:
    """Makes the rows at `place`: from what is there, or anew where that is of another question or broken. `make` is told
    whether to go on."""
    from ropewalk.data.shards import Documents, read_shards
    from ropewalk.data.stream import SHARDS

    if run_verb(place) == "data":
        try:
            make(True)
            Documents(place / SHARDS, read_shards(place / SHARDS)).check()
        except (OutputError, SourceError) as error:
            if str(place) not in str(error):
                # Of the sources, or of the model: what is tokenized may be right.
                raise
            progress.say(f"tokenizing anew: {str(error).partition(';')[0]}")
            shutil.rmtree(place)
        else:
            return
    make(False)


def take_away(place: Path, progress: Progress) -> None:
    """Removes what was tokenized for a refused run where it is less than a shard of each source; more stays, named."""
    from ropewalk.data.shards import read_shards
    from ropewalk.data.stream import SHARDS

    try:
        shards = [shard for folder in (place, *place.glob("[1-9]*")) for shard in read_shards(folder / SHARDS)]
    except SourceError:
        shards = []
    if all(shard.last for shard in shards):
        shutil.rmtree(place, ignore_errors=True)
    else:
        progress.say(f"{place} keeps what was tokenized: with the same --out it is not tokenized again")


@contextmanager
def told_as(place: Path, names: str) -> Iterator[None]:
    """An error about rows is told of the data that the user gave, and not of the folder that they were made in; one about
    that folder's own files is told as it is."""
    try:
        yield
    except SourceError:
        raise
    except RopewalkError as error:
        error.args = (str(error).replace(str(place), names),)
        raise


def names_of(given: Any, options: Any) -> str:
    """What the user gave as data, in words."""
    paths = [given] if isinstance(given, str | Path) else list(given or ())
    return ", ".join(map(str, [*paths, *options.get("datasets", ())]))
