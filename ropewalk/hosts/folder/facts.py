"""What a folder holds beside config.json that positions hang on: the tokenizer's length, stored buffers, draft models.

Headers of safetensors files and small JSON files only; never a weight.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ropewalk.core.errors import SourceError
from ropewalk.engines.findings import Facts
from ropewalk.hosts.folder.checkpoint import CONFIG, read_json
from ropewalk.hosts.folder.files import TOKENIZER
from ropewalk.hosts.folder.weights import dtypes

BUFFER = "inv_freq"
MOST_FOLDERS = 64
"""Subfolders that are looked into; a checkpoint has a handful."""


def tokenizer_config(folder: Path) -> dict[str, Any] | None:
    """The tokenizer's config, or None where there is none. Raises `SourceError` where it is broken."""
    return read_json(folder / TOKENIZER) if (folder / TOKENIZER).is_file() else None


def gather(folder: Path, weights: Sequence[str]) -> Facts:
    """The facts of a folder whose weight files were checked."""
    tensors: dict[str, str] = {}
    for name in weights:
        if name.endswith(".safetensors"):
            tensors |= {key: dtype for key, dtype in dtypes(folder / name).items() if key.endswith(BUFFER)}
    return Facts(tensors=tensors, drafts=_configs_below(folder))


def _configs_below(folder: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    for path in inside[:MOST_FOLDERS]:
        try:
            if (path / CONFIG).is_file():
                found[path.name] = read_json(path / CONFIG)
        except SourceError:
            # A broken file beside the checkpoint is not the checkpoint's.
            continue
    return found
