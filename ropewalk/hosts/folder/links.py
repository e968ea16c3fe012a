"""Where the links of a folder lead: into the folder itself, or into the blobs of the hub cache that it is a snapshot of.

A checkpoint folder that somebody else packed may hold a link to any file that its reader may read; following it would
copy that file into the output, or hard-link it, under an innocent name. The hub's own cache is a folder of links
(`snapshots/REVISION/x` to `../../blobs/y`), so those are followed, and no others.

Given up: weights that were moved to another disk with a link left behind. Such a folder is named; its owner can give the
place itself.
"""

import os
from pathlib import Path

from ropewalk.core.errors import SourceError

WEIGHTS = (".safetensors", ".safetensors.index.json")
MOST_ENTRIES = 100_000
"""Entries of the largest folder that is looked through."""


def check_links(folder: Path, *, unread: Path | None = None) -> None:
    """Raises `SourceError` at the first link in `folder`, or one level below it, that leads outside.

    Weight files in `unread` may be links to anywhere: the caller promises not to follow them.
    """
    home = Path(os.path.realpath(folder))
    allowed = [home]
    if home.parent.name == "snapshots":
        allowed.append(Path(os.path.realpath(home.parent.parent / "blobs")))
    for entry in _entries(folder):
        if not entry.is_symlink() or (entry.parent == unread and entry.name.endswith(WEIGHTS)):
            continue
        target = Path(os.path.realpath(entry))
        if not any(target.is_relative_to(place) for place in allowed):
            raise SourceError(
                f"{entry} is a link that leads outside the checkpoint, to {target}; expected one inside the folder or "
                "inside its hub cache; put the file itself there"
            )


def _entries(folder: Path) -> list[Path]:
    found: list[Path] = []
    for entry in sorted(folder.iterdir()):
        found.append(entry)
        if entry.is_dir() and not entry.is_symlink():
            found += sorted(entry.iterdir())
        if len(found) > MOST_ENTRIES:
            raise SourceError(f"{folder} has more than {MOST_ENTRIES} entries, which is too much for a checkpoint")
    return found
