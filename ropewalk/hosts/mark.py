"""The mark that a checkpoint folder was written here and is nobody's work since: `.ropewalk.json`.

It lists every file that was written, by size and time of change. Under `--force` a folder is replaced only where nothing
was put in or changed since: not a run folder, not a model of somebody's own, nor one that was extended here and then tuned
in place or got a quantised file beside it. The block in config.json cannot say that: stock transformers carries it along
when a model that was tuned elsewhere is saved.

A file that has other names too (a hard link, as weights are) is not lost with this one, so its change stands in nobody's
way.

Given up: a folder that was copied without its times, or downloaded, is nobody's; its owner removes it.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from ropewalk.core.errors import OutputError
from ropewalk.core.output import CARD, called, run_verb

NAME = ".ropewalk.json"
SCHEMA_VERSION = 1
RULE = "--force replaces only what extend, convert, verify --fix or tune --merge wrote, as they left it"
OUT = "give another --out, or remove it yourself"


def leave_mark(folder: Path) -> None:
    """Lists what is in a folder that is written whole."""
    files = {name: _state(path) for name, path in _files(folder)}
    content = {"schema_version": SCHEMA_VERSION, "files": files}
    (folder / NAME).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def take_mark(folder: Path) -> None:
    """Takes the mark off what becomes a part of a larger folder."""
    (folder / NAME).unlink(missing_ok=True)


def check_ours(folder: Path) -> None:
    """Raises `OutputError` unless everything in a folder is as it was written here; an empty one is nobody's loss."""
    there = dict(_files(folder))
    if not there and not (folder / NAME).exists():
        return
    if CARD in there:
        raise OutputError(f"{folder} is the folder of {called(run_verb(folder))}, and {RULE}; {OUT}")
    known = _marked(folder)
    if known is None:
        what = "holds a model" if {"config.json", "adapter_config.json"} & there.keys() else "holds files"
        raise OutputError(f"{folder} {what} without a mark of ropewalk ({NAME}), and {RULE}; {OUT}")
    foreign = sorted(there.keys() - known.keys())
    if foreign:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise OutputError(f"{folder} holds {foreign[0]!r}{more}, put there since, and {RULE}; {OUT}")
    for name, path in there.items():
        if path.lstat().st_nlink == 1 and _state(path) != known[name]:
            raise OutputError(f"{name!r} in {folder} is not what was written there, and {RULE}; {OUT}")


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Name and path of everything in a folder that can be lost: files and links, but for the mark."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name != NAME and (path.is_symlink() or not path.is_dir()):
            yield name, path


def _state(path: Path) -> list[int]:
    found = path.lstat()
    return [found.st_size, found.st_mtime_ns]


def _marked(folder: Path) -> dict[str, list[int]] | None:
    """The files that the mark names; None where there is no mark that can be read."""
    try:
        content = json.loads((folder / NAME).read_text(encoding="utf-8"))
        return {name: [int(number) for number in state] for name, state in content["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
