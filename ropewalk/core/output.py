"""Where a result may be written, and what `--force` may take away: checked before any work.

`--force` removes only what a verb of the same kind wrote. A run folder says by its card which verb that was; a checkpoint
folder carries a mark (`ropewalk.hosts.mark`). What is read never lies inside what is removed, and what goes is named before
it goes.

Given up: two processes that write one folder, and a folder that changes between the last look at it and its removal.
"""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from ropewalk.core.errors import OutputError
from ropewalk.core.plurals import counted
from ropewalk.core.progress import Progress

CARD = "card.json"
FIRST_STAGE = ".card.json.part"
"""What is in a run folder before anything else is."""
SHOWN = 8
"""Names that are shown of a folder that goes."""
CALLED = {"make": "data --writer"}
"""Verbs of cards that a user knows by another name."""


def check_out(out: str | Path, *, force: bool = False, resume: bool = False, verb: str | None = None) -> Path:
    """The run folder, checked before any work and without making anything.

    Raises `OutputError` where it exists and neither word was said, where both were, or where it is no run folder. With
    `force`, which removes it, it has to be one of `verb` where that is given.
    """
    check_named(out)
    path = Path(out)
    if force and resume:
        raise OutputError("--force and --resume contradict each other; say one of them")
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path} is a file, expected a folder to write into; give another --out")
    # A run that was killed while it wrote its very first file leaves that file's stage alone: as good as nothing.
    if path.is_dir() and any(inside.name != FIRST_STAGE for inside in path.iterdir()):
        _check_run(path, force=force, resume=resume, verb=verb)
    check_parent(path)
    return path


def _check_run(path: Path, *, force: bool, resume: bool, verb: str | None) -> None:
    """Raises `OutputError` where a folder with something in it may not be gone on with, or not be removed."""
    if not (force or resume):
        raise OutputError(f"{path} exists and is not empty; say --resume to go on, --force to start anew, or another --out")
    if not (path / CARD).is_file():
        raise OutputError(f"{path} is not a run folder (it has no {CARD}); give another --out")
    if force and path.is_symlink():
        raise OutputError(f"{path} is a link, and --force removes no folder through one; give the folder itself")
    if force and verb is not None and (was := run_verb(path)) != verb:
        raise OutputError(
            f"{path} is the folder of {called(was)}, and --force removes only that of {called(verb)}; give another --out, "
            "or remove it yourself"
        )


def called(verb: str | None) -> str:
    """A run of a verb, in words."""
    return "something else" if verb is None else f"a {CALLED.get(verb, verb)} run"


def run_verb(path: Path) -> str | None:
    """Which verb wrote a run folder, None where its card does not say."""
    try:
        said = json.loads((path / CARD).read_text(encoding="utf-8"))["verb"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return said if isinstance(said, str) else None


def check_named(out: str | Path) -> None:
    """Raises `OutputError` for an output folder without a name."""
    if not str(out).strip():
        raise OutputError("the output folder has no name; give --out DIR")


def check_parent(out: str | Path) -> None:
    """Raises `OutputError` where the nearest folder around `out` cannot be written to."""
    parent = next((folder for folder in Path(out).absolute().parents if os.path.lexists(folder)), None)
    if parent is None or not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"{out} cannot be made: {parent} is not a folder that can be written to; give another --out")


def check_kept(out: str | Path, read: Iterable[str | Path]) -> None:
    """Raises `OutputError` where something that is read lies inside the output folder, which --force would remove.

    What is no path here, such as a hub id, is not lost with any folder.
    """
    final = _real(out)
    for path in read:
        if os.path.lexists(path) and _real(path).is_relative_to(final):
            raise OutputError(f"the output folder {out} holds {path}, which is read; give another --out")


def check_outside(out: str | Path, folders: Iterable[str | Path]) -> None:
    """Raises `OutputError` where the output folder lies inside one that is read whole: going on, a run would read itself."""
    final = _real(out)
    for folder in folders:
        if os.path.isdir(folder) and final.is_relative_to(_real(folder)):
            raise OutputError(
                f"the output folder {out} lies inside {folder}, which is read with everything below it; give another --out, "
                "such as one beside it"
            )


def check_apart(out: str | Path, sources: Iterable[str | Path]) -> None:
    """Raises `OutputError` where what is written lies inside a source, or around it."""
    final = _real(out)
    for source in sources:
        real = _real(source)
        if real.is_relative_to(final) or final.is_relative_to(real):
            raise OutputError(f"output folder {out} and source {source} lie inside one another; give another --out")


def _real(path: str | Path) -> Path:
    return Path(os.path.realpath(path))


def removed_by_force(path: Path, *, called: Path | None = None) -> str | None:
    """What --force takes away with a folder or a file, in words; None where nothing is there.

    `called` is the name that the user knows it by, where it was moved aside meanwhile.
    """
    name = called or path
    if path.is_file():
        return f"--force removes {name} of {_megabytes([path])}"
    inside = sorted(path.iterdir()) if path.is_dir() else []
    if not inside:
        return None
    files = [one for one in path.rglob("*") if one.is_file() and not one.is_symlink()]
    names = [ascii(one.name)[1:-1] + ("/" if one.is_dir() else "") for one in inside]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    size = f"{counted(len(files), 'file')} of {_megabytes(files)}"
    return f"--force removes {name} with {size}: {', '.join(names[:SHOWN])}{more}"


def say_removed(path: Path, progress: Progress | None, *, called: Path | None = None) -> None:
    """Says what --force takes away, on stderr unless `progress` goes elsewhere; to be called right before it goes."""
    line = removed_by_force(path, called=called)
    if line is not None:
        (progress or Progress()).say(line)


def say_beginning(out: str | Path, progress: Progress | None, *also: Path) -> None:
    """Says where `--resume` finds no run to go on with, nor anything in `also`: the name may be another than was meant."""
    if not any(os.path.lexists(path) for path in (Path(out) / CARD, *also)):
        (progress or Progress()).say(f"nothing to resume in {out}; beginning")


def remove(path: Path, progress: Progress | None) -> None:
    """Takes away a run folder that `check_out` let `--force` have, and says first what goes."""
    if path.is_dir():
        say_removed(path, progress)
        shutil.rmtree(path)


def _megabytes(files: Iterable[Path]) -> str:
    return f"{sum(path.stat().st_size for path in files) / 1e6:,.1f} MB"
