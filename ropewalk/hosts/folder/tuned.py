"""The folder of a tuning run: its config before any weight, and what is written at its end.

At the beginning only configuration and tokenizer are written, as `extend` writes them: the model is built from that config,
so base and factor cannot get lost between the plan and the training. At the end the same files go beside the trained
weights, with the last step of our block marked as tuned; config.json comes last, so that a folder with a config is whole.

An adapter folder holds PEFT's two files and the same config.json, which names the base and its fingerprint under
`ropewalk_base`: PEFT's own format says nothing of positions.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ropewalk.core.errors import HostError, InputError, LengthError, SourceError
from ropewalk.core.geometry import Geometry
from ropewalk.core.plan import Plan
from ropewalk.core.run import full_disk_is_told
from ropewalk.engines.coverage import widest
from ropewalk.engines.transformers import block
from ropewalk.hosts.folder import extended
from ropewalk.hosts.folder.checkpoint import BASE, CONFIG, Checkpoint, geometry_of, open_checkpoint
from ropewalk.hosts.folder.fingerprint import fingerprint
from ropewalk.hosts.staging import staged

STAGE = ".final.stage"


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
    bare = replace(checkpoint, weights=())
    if plan is not None:
        notes = extended.write_extended(bare, plan, out, force=True, geometry=geometry)
        return [note for note in notes if "no weights" not in note]
    with staged(out, force=True, sources=[checkpoint.path]) as stage:
        extended._write_json(stage / CONFIG, checkpoint.config)
        names = [*extended._carried(bare), extended.TOKENIZER]
        for name in names:
            if (checkpoint.path / name).is_file() and name not in checkpoint.weights:
                shutil.copyfile(checkpoint.path / name, extended._parent_made(stage / name))
    return []


def write_end(
    start: Path, out: Path, save: Callable[[Path], None], *, tuning: Mapping[str, Any], dtype: str,
    base: Checkpoint | None = None, source: str = "",
) -> None:  # fmt: skip
    """What was trained, into the run folder `out`: `save` writes weights or an adapter of `base` into a stage.

    `tuning` is told in the block. Raises `MachineError` where the disk is full; what was there stays.
    """
    stage = out / STAGE
    shutil.rmtree(stage, ignore_errors=True)
    config = _marked(json.loads((start / CONFIG).read_text(encoding="utf-8")), tuning)
    if base is not None:
        config[BASE] = {"source": source, "fingerprint": fingerprint(base)}
    else:
        config["dtype"] = dtype
        config.pop("torch_dtype", None)
    try:
        with full_disk_is_told(out / "weights"):
            shutil.copytree(start, stage)
            save(stage)
            extended._write_json(stage / CONFIG, config)
            (out / CONFIG).unlink(missing_ok=True)
            for path in sorted(stage.iterdir(), key=lambda path: path.name == CONFIG):
                _move(path, out / path.name)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _move(path: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    os.replace(path, target)


def _marked(config: dict[str, Any], tuning: Mapping[str, Any]) -> dict[str, Any]:
    """The config with its block's last step marked as tuned; one without a block has no stretch to mark."""
    known = block.find(config)
    if known is None:
        return dict(config)
    *before, last = known["steps"]
    return {**config, block.KEY: {**known, "steps": [*before, {**last, "tuned": True, "tuning": dict(tuning)}]}}


def base_of(adapter: Checkpoint) -> Checkpoint:
    """The base that an adapter folder of ours names, opened. Raises `SourceError` where it is gone or is another one."""
    named = adapter.config.get(BASE)
    if not isinstance(named, Mapping) or not isinstance(named.get("source"), str):
        raise SourceError(f"{adapter.path / CONFIG} names no base under {BASE!r}; train the adapter with ropewalk tune")
    try:
        base = open_checkpoint(named["source"], weights=True)
    except InputError as error:
        raise SourceError(
            f"{adapter.path} is an adapter for {named['source']}, which cannot be opened ({error}); put the base there, or "
            f"change {BASE}.source in its config.json"
        ) from error
    if base.kind != "folder":
        raise SourceError(f"{adapter.path} is an adapter for {named['source']}, which holds no weights; fetch them")
    found = fingerprint(base)
    if found != named.get("fingerprint"):
        raise HostError(
            f"{adapter.path} was trained on a base with fingerprint {named.get('fingerprint')}, and {named['source']} has "
            f"{found}; give the base it was trained on (change {BASE}.source in its config.json)"
        )
    return base


def write_merged(adapter: Checkpoint, out: Path, save: Callable[[Path], None], *, dtype: str, force: bool = False) -> None:
    """An adapter folder's configuration and tokenizer with whole weights, which `save` writes."""
    config = {key: value for key, value in adapter.config.items() if key not in (BASE, "torch_dtype")} | {"dtype": dtype}
    with staged(out, force=force, sources=[adapter.path]) as stage:
        save(stage)
        for path in adapter.path.iterdir():
            carried = path.suffix in extended.CARRIED and path.name not in (*extended.LEFT, "card.json")
            if path.is_file() and (carried or path.name == extended.TOKENIZER):
                shutil.copyfile(path, stage / path.name)
        extended._write_json(stage / CONFIG, config)
