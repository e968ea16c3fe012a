"""A fingerprint of weights, so that an adapter is not put on another base than it was trained on.

Names, dtypes and shapes are not enough: two fine-tunes of one model share them all. So three samples of each tensor's bytes
are hashed too, which takes milliseconds for gigabytes. Tensors are taken by name, however they are spread over files.

Given up: noticing a change that touches none of the samples.
"""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any, BinaryIO

from ropewalk.hosts.folder.checkpoint import Checkpoint

SAMPLE_BYTES = 256
"""At the beginning, the middle and the end of each tensor."""


def fingerprint(checkpoint: Checkpoint) -> str:
    """32 hex digits over names, dtypes, shapes and samples of all tensors of a folder."""
    lines = []
    for name in checkpoint.weights:
        if name.endswith(".safetensors"):
            lines += _tensors(checkpoint.path / name)
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:32]


def _tensors(path: Path) -> list[str]:
    """One line for each tensor of a file whose header was checked when the checkpoint was opened."""
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(size))
        return [
            f"{name} {tensor['dtype']} {tensor['shape']} {_sample(file, 8 + size, *tensor['data_offsets'])}"
            for name, tensor in header.items()
            if name != "__metadata__"
        ]


def _sample(file: BinaryIO, start: int, begin: int, stop: int) -> str:
    digest = hashlib.sha256()
    for place in (begin, max(begin, (begin + stop - SAMPLE_BYTES) // 2), max(begin, stop - SAMPLE_BYTES)):
        file.seek(start + place)
        digest.update(file.read(min(SAMPLE_BYTES, stop - place)))
    return digest.hexdigest()[:16]
