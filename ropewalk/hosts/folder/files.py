"""Files of a checkpoint folder on their way to another one: what goes along with the weights, and how each is put there.

Weights are hard links where the file system allows, else shared blocks, else copies: whatever reads a plan needs another
config and not another gigabyte. What a model is used with beside them is small and copied.

Given up: code files and pickles are not carried, nor what tells of a run and not of the model.
"""

import errno
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ropewalk.hosts.folder.checkpoint import CONFIG, Checkpoint

TOKENIZER, GENERATION = "tokenizer_config.json", "generation_config.json"
CARRIED = (".json", ".jinja", ".txt", ".model", ".tiktoken")
"""Endings of files beside the weights that a model is used with: tokenizer, generation config, chat template, processor."""
CARRIED_NAMES = ("LICENSE", "NOTICE", "USE_POLICY")
LEFT = (CONFIG, TOKENIZER, "trainer_state.json", "training_args.json", "adapter_config.json", "card.json")
"""Files that are written anew, or that tell of a run and not of the model."""
TEMPLATES = "additional_chat_templates"
NO_LINK = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors by which a file system says that it makes no hard links here."""
FICLONE = 0x40049409
"""Linux: make a file share the blocks of another one (ioctl_ficlone(2))."""
Placed = Literal["link", "reflink", "copy"]
"""How a weight file came to its new place."""


def carried(checkpoint: Checkpoint) -> list[str]:
    """Files that are copied as they are, relative to the folder."""
    names = [
        file.name
        for file in checkpoint.path.iterdir()
        if file.is_file()
        and not file.name.startswith(".")
        and not file.name.endswith(".index.json")
        and (file.suffix in CARRIED or file.name.startswith(CARRIED_NAMES))
        and file.name not in (*LEFT, *checkpoint.weights)
    ]
    templates = checkpoint.path / TEMPLATES
    inner = [f"{TEMPLATES}/{file.name}" for file in templates.glob("*.jinja")] if templates.is_dir() else []
    return sorted(names + inner)


def copy_carried(checkpoint: Checkpoint, stage: Path, *, tokenizer: bool = False) -> None:
    """Puts copies of the carried files into `stage`, and of the tokenizer's config where it stays as it is."""
    own = [TOKENIZER] if tokenizer and (checkpoint.path / TOKENIZER).is_file() else []
    for name in (*carried(checkpoint), *own):
        target = stage / name
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(checkpoint.path / name, target)


def place(source: Path, target: Path, *, copy: bool = False) -> Placed:
    """Puts a weight file at `target`: a hard link, else shared blocks, else a copy; which of them it became."""
    # A hub cache holds links: the file itself is what must not vanish.
    real = os.path.realpath(source)
    shared = None if copy else place_shared(real, target)
    if shared is None:
        shutil.copyfile(real, target)
        return "copy"
    return shared


def place_shared(source: str, target: Path) -> Literal["link", "reflink"] | None:
    """Puts a file at `target` without taking room: a hard link, else shared blocks; None where the file system has neither.

    `target` may then be there, empty.
    """
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
    else:
        return "link"
    return "reflink" if share_blocks(source, target) else None


def share_blocks(source: str, target: Path) -> bool:
    """Lets two files share their blocks until one is written to (Btrfs, XFS); whether the file system could."""
    if sys.platform != "linux":
        return False
    import fcntl

    with open(source, "rb") as read, target.open("wb") as write:
        try:
            fcntl.ioctl(write.fileno(), FICLONE, read.fileno())
        except OSError:
            return False
    return True


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON as people read it."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    try:
        path.write_text(text, encoding="utf-8")
    except UnicodeEncodeError:
        # Half of a surrogate pair, which JSON can escape and UTF-8 cannot say.
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
