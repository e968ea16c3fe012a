"""Adapter folders: PEFT's two files, the tokenizer, and in `base/` the checkpoint that the adapter was trained on, planned.

    DIR/adapter_config.json, adapter_model.safetensors     PEFT's; `base_model_name_or_path` is DIR/base
        tokenizer...
        base/config.json, tokenizer...                     as `extend` writes them, with the plan
             model.safetensors                             hard links to the source's weights; links where the disk differs

PEFT's format says nothing of positions: whoever loads an adapter loads the base it names, as that is. So the adapter names a
base that has the plan, and stock `AutoPeftModelForCausalLM` and `AutoModelForCausalLM` get it. There is no config.json in
DIR itself: transformers (auto_factory, `maybe_load_adapters`) follows an adapter to its base only where none is.

PEFT takes the name as a path from the working directory, so it is written whole, and stock loading finds the base where DIR
was written. Our own loading looks into `DIR/base` first, wherever DIR is now, and then where the source was.

Given up: copying the weights where a file system makes no links at all; then `base/` has none and `load` takes the source's.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ropewalk.core.errors import HostError, InputError, SourceError
from ropewalk.core.geometry import Finding
from ropewalk.engines import adapters
from ropewalk.hosts.folder.checkpoint import ADAPTER, BASE, CONFIG, PLANNED, Checkpoint, open_checkpoint, read_json
from ropewalk.hosts.folder.files import GENERATION, NO_LINK, copy_carried, place_shared, write_json
from ropewalk.hosts.folder.fingerprint import fingerprint

NAMED = "base_model_name_or_path"


def name_base(start: Path, base: Checkpoint, source: str) -> None:
    """Writes into a run's planned config which weights it is for; the next time, compares.

    Raises `HostError` where a run that goes on is given other weights than it began on.
    """
    config, found = read_json(start / CONFIG), fingerprint(base)
    named = config.get(BASE)
    if not isinstance(named, Mapping) or "tuning" in named:
        told = {"source": source, "fingerprint": found, "revision": _revision(base)}
        write_json(start / CONFIG, {**config, BASE: told})
    elif named["fingerprint"] != found:
        raise HostError(
            f"the run began on weights with fingerprint {named['fingerprint']}, and {source} now has {found}; put back "
            "what it began on, or start anew with --force"
        )


def _revision(base: Checkpoint) -> str | None:
    """The commit on the hub that the base is, as its cache names the folder; None for a folder of this machine."""
    return base.path.name if base.path.parent.name == "snapshots" else None


def write_adapter(
    start: Path, stage: Path, out: Path, save: Callable[[Path], None], *, base: Checkpoint, tuning: Mapping[str, Any]
) -> list[str]:
    """Everything of the adapter folder `out`, into `stage`; `start` was named by `name_base`. Returns notes for the user."""
    save(stage)
    planned = stage / PLANNED
    shutil.copytree(start, planned)
    config = read_json(start / CONFIG)
    write_json(planned / CONFIG, {**config, BASE: {**config[BASE], "tuning": dict(tuning)}})
    ways = {_placed(base.path / name, planned / name) for name in base.weights}
    for path in start.iterdir():
        if path.name not in (CONFIG, GENERATION):
            (shutil.copytree if path.is_dir() else shutil.copyfile)(path, stage / path.name)
    adapter = read_json(stage / ADAPTER)
    write_json(stage / ADAPTER, {**adapter, NAMED: str(out.resolve() / PLANNED)})
    return _notes(out, base, ways)


def _placed(source: Path, target: Path) -> Literal["link", "reflink", "path", "none"]:
    """Puts a weight file of the base at `target`: a hard link, else shared blocks, else a link to its path."""
    real = os.path.realpath(source)
    shared = place_shared(real, target)
    if shared is not None:
        return shared
    target.unlink(missing_ok=True)
    try:
        target.symlink_to(real)
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
        return "none"
    return "path"


def _notes(out: Path, base: Checkpoint, ways: set[Literal["link", "reflink", "path", "none"]]) -> list[str]:
    if "none" in ways:
        return [
            f"{out / PLANNED} has no weights, since no links can be made there: ropewalk reads those of {base.path}, "
            "and others cannot load the adapter; copy them there, or write whole weights with --merge"
        ]
    if "path" in ways:
        return [f"the weights in {out / PLANNED} are links to {base.path}, which has to stay"]
    if "link" in ways:
        return [f"the weights in {out / PLANNED} are hard links to the source's and take no room; change neither in place"]
    return []


def base_of(adapter: Checkpoint) -> Checkpoint:
    """The base of an adapter folder of ours, opened: `base/` where it has weights, else the source it came from.

    Raises `SourceError` where it is gone, `HostError` where it is another one.
    """
    named = adapter.config.get(BASE)
    if not isinstance(named, Mapping) or not isinstance(named.get("source"), str):
        raise SourceError(f"{adapter.path} names no base under {BASE!r}; train the adapter with ropewalk tune")
    revision = named.get("revision")
    base = _opened(adapter, named["source"], revision if isinstance(revision, str) else None)
    found = fingerprint(base)
    if found != named.get("fingerprint"):
        raise HostError(
            f"{adapter.path} was trained on a base with fingerprint {named.get('fingerprint')}, and {base.path} has "
            f"{found}; put the weights of the base it was trained on into {adapter.path / PLANNED}"
        )
    return base


def _opened(adapter: Checkpoint, source: str, revision: str | None) -> Checkpoint:
    inside = adapter.path / PLANNED
    weights = list(inside.glob("*.safetensors"))
    # A link may lead anywhere, so it is never followed: the source is opened by its own name.
    if weights and not any(path.is_symlink() for path in weights):
        return open_checkpoint(inside)
    try:
        # The hub's newest commit may be another model by now.
        base = open_checkpoint(source, weights=True, revision=revision)
    except InputError as error:
        raise SourceError(
            f"{adapter.path} is an adapter for {source}, which cannot be opened ({error}); put its weights into {inside}"
        ) from error
    if base.kind != "folder":
        raise SourceError(f"{adapter.path} is an adapter for {source}, which holds no weights; put them into {inside}")
    return base


def findings(adapter: Checkpoint) -> list[Finding]:
    """What others would miss of an adapter of ours: its base with the plan, or parts that they do not add."""
    config = read_json(adapter.path / ADAPTER)
    named = config.get(NAMED)
    planned = adapter.path.resolve() / PLANNED
    merge = f"or write whole weights with ropewalk tune {adapter.path} --merge --out NEW"
    try:
        same = isinstance(named, str) and Path(named).resolve() == planned
    except (OSError, ValueError, RuntimeError):
        same = False
    found = adapters.findings(config)
    if not same:
        problem = f"{ADAPTER} names the base {named!r}: PEFT and stock transformers load that, and not {planned}"
        found.append(
            Finding(field=NAMED, severity="error", problem=problem, mend=f"write {str(planned)!r} there, {merge}")
        )  # fmt: skip
    if not any(path.exists() for path in planned.glob("*.safetensors")):
        problem = f"{planned} holds no weights, so no engine but ropewalk finds them"
        mend = f"put the weights of {adapter.config[BASE].get('source')} there, {merge}"
        found.append(Finding(field=PLANNED, severity="error", problem=problem, mend=mend))
    return found


def check_mergeable(adapter: Checkpoint) -> None:
    """Raises `InputError` where an adapter folder of ours cannot become whole weights."""
    if read_json(adapter.path / ADAPTER).get("peft_type") == adapters.PREFIX:
        raise InputError(
            f"{adapter.path} holds a trained prefix, and a prefix is no weights of a model; ropewalk and PEFT read it"
        )


def write_merged(adapter: Checkpoint, stage: Path, save: Callable[[Path], None], *, dtype: str) -> None:
    """An adapter folder's configuration and tokenizer with whole weights, which `save` writes, into `stage`."""
    config = {key: value for key, value in adapter.config.items() if key not in (BASE, "torch_dtype")} | {"dtype": dtype}
    save(stage)
    copy_carried(replace(adapter, path=adapter.home, weights=()), stage, tokenizer=True)
    write_json(stage / CONFIG, config)
