"""Writes a mended copy of a folder: the same weights, config.json and the tokenizer's length without their traps.

What is mended is decided in `engines.mending`; here is how it is written: staged and renamed, weights as hard links where
the file system allows, the other files copied. The copy computes in stock transformers what the source computes.

Given up: draft models beside the model, and code files, are not carried.
"""

from pathlib import Path

from ropewalk.core.errors import UnsupportedError
from ropewalk.engines.mending import Mended, mend
from ropewalk.hosts.folder.checkpoint import CONFIG, Checkpoint
from ropewalk.hosts.folder.facts import gather, tokenizer_config
from ropewalk.hosts.folder.files import TOKENIZER, copy_carried, place, write_json
from ropewalk.hosts.staging import check_out, staged


def write_mended(checkpoint: Checkpoint, out: str | Path, *, force: bool = False) -> Mended:
    """Writes the mended copy of a folder to `out`; what was changed, and what was left for its owner to decide.

    Raises `UnsupportedError` for what is no folder, `OutputError` for an output that exists, `SourceError` and
    `UnsupportedError` for a config that cannot be read, `MachineError` where the disk is full; then nothing is written.
    """
    if checkpoint.kind not in ("folder", "config"):
        raise UnsupportedError(
            f"{checkpoint.path} is a {checkpoint.kind}, and --fix mends folders with a config.json; give the folder"
        )
    check_out(out, force=force, sources=[checkpoint.path])
    found = mend(
        checkpoint.config,
        tokenizer_config=tokenizer_config(checkpoint.path),
        facts=gather(checkpoint.path, checkpoint.weights),
    )
    with staged(out, force=force, sources=[checkpoint.path]) as stage:
        for name in checkpoint.weights:
            place(checkpoint.path / name, stage / name)
        copy_carried(checkpoint, stage)
        write_json(stage / CONFIG, found.config)
        if found.tokenizer_config is not None:
            write_json(stage / TOKENIZER, found.tokenizer_config)
    return found
