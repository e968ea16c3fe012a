"""Published runs as files: a run's options under the names of the command line, with the source of their numbers.

A preset is TOML: `source` says where the numbers are from and what was left out, every other key is an option of `tune` with
underscores. `[[runs]]` tables make it a chain: each is a run from the folder of the one before, with options of its own over
those above the tables. `data` is relative to the file. What the command line says wins, in every run. A file of the user's
own is read the same way.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

from ropewalk.core.errors import InputError, near
from ropewalk.tune.settings import Settings

KEYS = (
    "data", "method", "lineage", "window", "curriculum", "steps", "device", "dtype", "merge", "freeze", "prompt_loss",
    "allow_short", "field", *(field.name for field in fields(Settings) if field.name != "stages"),
)  # fmt: skip
"""What a preset may say beside `source` and `runs`."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """The options of one run or of several, and where their numbers are from."""

    name: str
    source: str
    runs: tuple[Mapping[str, Any], ...]


def names() -> list[str]:
    """The presets that come with the package."""
    folder = resources.files("ropewalk.tune") / "presets"
    return sorted(Path(file.name).stem for file in folder.iterdir() if file.name.endswith(".toml"))


def read(given: str) -> Preset:
    """A preset by file or by name. Raises `InputError` where there is none, or it says what is unknown."""
    path = Path(given)
    if path.is_file():
        content, folder = path.read_bytes(), path.parent
    elif given in names():
        content, folder = (resources.files("ropewalk.tune") / "presets" / f"{given}.toml").read_bytes(), None
    else:
        raise InputError(f"there is no preset {given!r}, neither a file nor a name; {near(given, names())}")
    try:
        said = tomllib.loads(content.decode("utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"the preset {given} is not TOML ({error}); write lines such as steps = 400") from error
    source, tables = said.pop("source", ""), said.pop("runs", [{}])
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise InputError(f"the preset {given} has runs that are no tables; write [[runs]] above the lines of each")
    for table in (said, *tables):
        _check(given, table)
    runs = tuple(_placed(over(said, table), folder) for table in tables)
    return Preset(name=path.stem, source=str(source).strip(), runs=runs)


def over(said: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Options with others over them. A curriculum takes the place of steps and window, and they of a curriculum."""
    replaced = {"curriculum"} if {"steps", "window"} & more.keys() else set()
    replaced |= {"steps", "window"} if "curriculum" in more else set()
    return {**{key: value for key, value in said.items() if key not in replaced}, **more}


def _check(given: str, said: Mapping[str, Any]) -> None:
    for key, value in said.items():
        if key not in KEYS:
            raise InputError(f"the preset {given} says {key!r}, which tune does not take; {near(key, (*KEYS, 'runs'))}")
        if isinstance(value, dict):
            raise InputError(f"the preset {given} has a table {key!r}; write plain lines such as steps = 400")


def _placed(run: dict[str, Any], folder: Path | None) -> dict[str, Any]:
    """The run with its data found from the preset's folder; `NAME=PATH` stays named."""
    if folder is None or "data" not in run:
        return run
    given = [run["data"]] if isinstance(run["data"], str) else run["data"]
    return {**run, "data": [_beside(str(one), folder) for one in given]}


def _beside(text: str, folder: Path) -> str:
    name, equals, rest = text.partition("=")
    named = bool(name and rest) and not (folder / text).exists()
    path = str(folder / (rest if named else text))
    return f"{name}{equals}{path}" if named else path


def told() -> str:
    """Every preset with the source of its numbers, as people read it."""
    return "\n\n".join(f"{name}{_several(preset)}\n{preset.source}" for name in names() for preset in [read(name)])


def _several(preset: Preset) -> str:
    return f" ({len(preset.runs)} runs)" if len(preset.runs) > 1 else ""
