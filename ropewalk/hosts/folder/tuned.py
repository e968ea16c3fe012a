"""The folder of a tuning run: its config before any weight, and what is written at its end.

At the beginning only configuration and tokenizer are written, as `extend` writes them: the model is built from that config,
so base and factor cannot get lost between the plan and the training. At the end the same files go beside the trained
weights, with the last step of our block marked as tuned. The config comes last, of an adapter PEFT's: so a folder with a
config is whole. What an adapter folder holds besides is in `adapter`.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ropewalk.core.errors import LengthError
from ropewalk.core.geometry import Geometry
from ropewalk.core.plan import Plan
from ropewalk.core.run import full_disk_is_told
from ropewalk.engines.coverage import widest
from ropewalk.engines.transformers import block
from ropewalk.hosts.folder import adapter, extended
from ropewalk.hosts.folder.checkpoint import ADAPTER, BASE, CONFIG, Checkpoint, geometry_of, read_json
from ropewalk.hosts.folder.files import copy_carried, write_json
from ropewalk.hosts.mark import take_mark
from ropewalk.hosts.staging import staged

STAGE = ".final.stage"
LAST = (CONFIG, ADAPTER)
"""Files that are put in place after all others."""


def check_start(checkpoint: Checkpoint, plan: Plan | None, *, length: int, geometry: Geometry | None = None) -> None:
    """Raises what `write_start` would, before anything is made."""
    if plan is not None:
        widest(checkpoint.config, plan, geometry=geometry)
        return
    declared = geometry_of(checkpoint).declared_length
    if length > declared:
        raise LengthError(
            f"without a method the source is trained as it is, which reads {declared} tokens, and the length is {length}; "
            "give --method, such as yarn"
        )


def write_start(
    checkpoint: Checkpoint, plan: Plan | None, out: Path, *, length: int, geometry: Geometry | None = None
) -> list[str]:
    """Configuration and tokenizer with `plan` on, into `out`; without a plan what the source carries, unchanged.

    Returns notes for the user. Raises `HostError` for a plan that a config cannot say, `LengthError` for a length that the
    source does not read without a plan.
    """
    check_start(checkpoint, plan, length=length, geometry=geometry)
    if plan is not None:
        notes = extended.write_extended(replace(checkpoint, weights=()), plan, out, force=True, geometry=geometry)
        take_mark(out)
        return [note for note in notes if "no weights" not in note]
    with staged(out, force=True, sources=[checkpoint.path]) as stage:
        write_json(stage / CONFIG, checkpoint.config)
        copy_carried(checkpoint, stage, tokenizer=True)
    take_mark(out)
    return []


def write_end(
    start: Path, out: Path, save: Callable[[Path], None], *, tuning: Mapping[str, Any], dtype: str,
    base: Checkpoint | None = None,
) -> list[str]:  # fmt: skip
    """What was trained, into the run folder `out`: `save` writes weights or an adapter of `base` into a stage.

    `tuning` is told in the block. Returns notes for the user. Raises `MachineError` where the disk is full; what was there
    stays.
    """
    stage = out / STAGE
    shutil.rmtree(stage, ignore_errors=True)
    config = block.marked(read_json(start / CONFIG), tuning)
    notes: list[str] = []
    try:
        with full_disk_is_told(out / "weights"):
            stage.mkdir()
            if base is not None:
                notes = adapter.write_adapter(start, stage, out, save, base=base, tuning=tuning)
            else:
                _write_full(start, stage, save, config, dtype)
            for name in LAST:
                (out / name).unlink(missing_ok=True)
            _readable(stage, like=start / CONFIG)
            for path in sorted(stage.iterdir(), key=lambda path: path.name in LAST):
                _move(path, out / path.name)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return notes


def _write_full(start: Path, stage: Path, save: Callable[[Path], None], config: dict[str, Any], dtype: str) -> None:
    save(stage)
    # Over what `save` wrote of configuration, which has the old lengths in it.
    shutil.copytree(start, stage, dirs_exist_ok=True)
    for name in (BASE, "torch_dtype"):
        config.pop(name, None)
    write_json(stage / CONFIG, {**config, "dtype": dtype})


def _readable(stage: Path, *, like: Path) -> None:
    """safetensors writes files that their owner alone can read; a server is often another user."""
    for path in stage.glob("*.safetensors"):
        path.chmod(like.stat().st_mode)


def _move(path: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    os.replace(path, target)


def write_merged(source: Checkpoint, out: Path, save: Callable[[Path], None], *, dtype: str, force: bool = False) -> None:
    """An adapter folder's configuration and tokenizer with whole weights, which `save` writes."""
    with staged(out, force=force, sources=[source.path]) as stage:
        adapter.write_merged(source, stage, save, dtype=dtype)
        _readable(stage, like=stage / CONFIG)
