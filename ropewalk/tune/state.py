"""What a killed run goes on from: one folder for each saved step, in safetensors and JSON, whole or not there.

    state/step-000050/parameters.safetensors   parameters that train
                      optimizer.safetensors    the optimizer's tensors
                      generators.safetensors   states of torch's generators, of each process
                      state.json               everything else: groups of the optimizer, schedule, step, fault watch
                      trainer_state.json       what Trainer and its callbacks know of their progress
    state/fault.json                           where the watch stopped the run, see `ropewalk.tune.faults`

A folder is written under another name, flushed, and renamed; older ones go when it is there, and one that is there already
is never touched. So a kill at any point, or a full disk, leaves the last whole state. A state before a fault leaves the one
before it, from which another rate can go on. Trainer's own checkpoint is not used: parts of it are pickles, and opening one
runs it.

Given up: optimizers whose state is not tensors and numbers; they are refused by name at the first save.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ropewalk.core.errors import MachineError, SourceError, UnsupportedError
from ropewalk.core.run import full_disk_is_told

STEP = "step-"
DONE = "state.json"
SCHEMA_VERSION = 2


def latest(folder: Path, *, but: Path | None = None) -> Path | None:
    """The newest whole state below `folder`, one excepted; None where there is none."""
    found = [path for path in folder.glob(f"{STEP}*") if path.is_dir() and (path / DONE).is_file() and path != but]
    return max(found, key=lambda path: path.name, default=None)


def place(folder: Path, step: int) -> Path:
    """Where the state of a step stands."""
    return folder / f"{STEP}{step:09d}"


def save(
    folder: Path, step: int, *, model: nn.Module, optimizer: Any, scheduler: Any, watch: Mapping[str, Any],
    trainer: Mapping[str, Any], generators: Mapping[str, Tensor], processes: int, rate: float, finished: bool,
    keep: bool = False,
) -> Path:  # fmt: skip
    """Writes the state at `step`, then removes older ones, unless they are to be kept; a whole state of this step that is
    there stays as it is. `rate` is the learning rate that was asked for.

    Raises `MachineError` where the disk is full: nothing is lost.
    """
    final = place(folder, step)
    if (final / DONE).is_file():
        return final
    tensors, rest = flat(optimizer.state_dict())
    content = {
        "schema_version": SCHEMA_VERSION,
        "step": step,
        "finished": finished,
        "processes": processes,
        "learning_rate": rate,
        "optimizer": rest,
        "scheduler": None if scheduler is None else scheduler.state_dict(),
        "watch": dict(watch),
    }
    texts = {"trainer_state.json": _json(dict(trainer)), DONE: _json(content)}
    parts = {"parameters": trained(model), "optimizer": tensors, "generators": generators}
    with full_disk_is_told(final):
        _put(final, {f"{name}.safetensors": part for name, part in parts.items()}, texts)
    if not keep:
        for old in folder.glob(f"{STEP}*"):
            if old != final:
                shutil.rmtree(old, ignore_errors=True)
    return final


def _put(final: Path, parts: Mapping[str, Mapping[str, Tensor]], texts: Mapping[str, str]) -> None:
    """A folder with these files, whole or not there."""
    folder, stage = final.parent, final.parent / f".{final.name}.stage"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir()
        for name, part in parts.items():
            _write(stage / name, part)
        for name, text in texts.items():
            _write_text(stage / name, text)
        stage.rename(final)
        _flush(folder)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise


def load_parameters(path: Path, model: nn.Module) -> None:
    """Puts the parameters of a state into a model, in place, so that ties stay. Raises `SourceError` for another model's."""
    saved, ours = _read(path / "parameters.safetensors"), trained(model)
    if saved.keys() != ours.keys() or any(saved[name].shape != ours[name].shape for name in ours):
        raise SourceError(f"{path} holds the state of another model or recipe; repeat the first command with --resume")
    with torch.no_grad():
        for name, parameter in ours.items():
            parameter.copy_(saved[name])


def load_rest(path: Path, *, optimizer: Any, scheduler: Any, rate: float) -> None:
    """Puts the optimizer's and the schedule's state back; another `rate` than the state's scales the schedule."""
    content = read(path)
    optimizer.load_state_dict(unflat(_read(path / "optimizer.safetensors"), content["optimizer"]))
    if scheduler is None or content["scheduler"] is None:
        return
    share = rate / content["learning_rate"]
    if share != 1.0:
        scaled = {key: [value * share for value in content["scheduler"][key]] for key in ("base_lrs", "_last_lr")}
        content["scheduler"] |= scaled
        for group in optimizer.param_groups:
            group["lr"], group["initial_lr"] = group["lr"] * share, group["initial_lr"] * share
    scheduler.load_state_dict(content["scheduler"])


def load_generators(path: Path, process: int) -> None:
    """Puts torch's generators of a process back."""
    saved = _read(path / "generators.safetensors")
    torch.set_rng_state(saved[f"{process}/cpu"])
    if f"{process}/cuda" in saved and torch.cuda.is_available():
        torch.cuda.set_rng_state(saved[f"{process}/cuda"])


def read(path: Path) -> dict[str, Any]:
    """The content of state.json. Raises `SourceError` where it cannot be read."""
    try:
        content: dict[str, Any] = json.loads((path / DONE).read_text(encoding="utf-8"))
        if content["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema version {content['schema_version']!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{path} cannot be read as a saved state ({error}); start anew with --force") from error
    return content


def trained(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that train, by name, tied ones once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def generators() -> dict[str, Tensor]:
    """The states of this process's generators, by device."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def flat(content: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state as tensors by `parameter/name`, and all that is no tensor in JSON types."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for index, fields in content["state"].items():
        plain[str(index)] = {}
        for name, value in fields.items():
            if isinstance(value, Tensor):
                tensors[f"{index}/{name}"] = value
            else:
                plain[str(index)][name] = value
    return tensors, {"state": plain, "param_groups": content["param_groups"]}


def unflat(tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> dict[str, Any]:
    """Back from `flat`."""
    state: dict[int, dict[str, Any]] = {int(index): dict(fields) for index, fields in rest["state"].items()}
    for key, value in tensors.items():
        index, _, name = key.partition("/")
        state[int(index)][name] = value
    return {"state": state, "param_groups": rest["param_groups"]}


def _json(content: dict[str, Any]) -> str:
    try:
        return json.dumps(content, allow_nan=True)
    except TypeError as error:
        raise UnsupportedError(
            f"the state of this optimizer or schedule is more than tensors and numbers ({error}); use AdamW"
        ) from error


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    try:
        save_file({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}, path)
    except Exception as error:
        # safetensors writes in Rust and tells the system's number in words alone.
        if "os error 28" in str(error) or "os error 122" in str(error):
            raise MachineError(
                f"the disk is full while writing {path.name}; free some space and run again with --resume"
            ) from error
        raise
    _flush(path)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    _flush(path)


def _flush(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk itself."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except Exception as error:
        raise SourceError(f"{path} cannot be read ({error}); the state is damaged, so start anew with --force") from error
    return tensors
