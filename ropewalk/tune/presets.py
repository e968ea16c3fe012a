"""Published runs as files: a run's options under the names of the command line, with the source of their numbers.

A preset is TOML: `source` says where the numbers are from and what was left out, every other key is an option of `tune` with
underscores. `[[runs]]` tables make it a chain: each is a run from the folder of the one before, with options of its own over
those above the tables. `data` and `chat_template` are relative to the file. What the command line says wins, in every run;
with other steps a preset's warm-up keeps its share of them. A file of the user's own is read the same way.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from ropewalk.core.errors import InputError, near
from ropewalk.core.plan import parse_length
from ropewalk.tune.preset_lines import check


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
        check(given, table)
    runs = tuple(_placed(over(said, table), folder) for table in tables)
    return Preset(name=path.stem, source=str(source).strip(), runs=runs)


def over(said: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Options with others over them. A curriculum takes the place of steps and window, and they of a curriculum."""
    replaced = {"curriculum"} if {"steps", "window"} & more.keys() else set()
    replaced |= {"steps", "window"} if "curriculum" in more else set()
    return {**{key: value for key, value in said.items() if key not in replaced}, **more}


def warmed(run: Mapping[str, Any], said: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """A run with what is `said` over it, and a line where a preset's warm-up was fitted to other steps."""
    options = over(run, said)
    _check_rows(run, said, options)
    before, after, warmup = _steps(run), _steps(options), run.get("warmup_steps", 0)
    if not (before and after and warmup) or before == after or "warmup_steps" in said:
        return options, None
    scaled = round(warmup * after / before)
    words = f"the preset warms up for {warmup} of {before} steps, so this run of {after} does for {scaled}"
    return {**options, "warmup_steps": scaled}, f"{words}; --warmup-steps says otherwise"


def _check_rows(run: Mapping[str, Any], said: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Raises `InputError` where a length is `said` that a preset's rows pass: nobody on the command line named those."""
    if "length" not in said or {"window", "curriculum"} & said.keys():
        return
    stages = str(run["curriculum"]).split(",") if "curriculum" in options else []
    rows = [stage.partition(":")[0] for stage in stages] or ([run["window"]] if "window" in run else [])
    longest, length = max(map(parse_length, rows), default=0), parse_length(said["length"])
    if longest > length:
        way = f"--curriculum, such as {said['length']}:100" if stages else f"--window, such as --window {said['length']}"
        raise InputError(
            f"the preset's rows have {longest} tokens, more than the --length of {length} that is asked for; give {way}, or "
            f"a --length of at least {longest}"
        )


def _steps(run: Mapping[str, Any]) -> int:
    """The steps that options say; 0 where they do not, or say what is refused later."""
    curriculum = run.get("curriculum")
    if curriculum is None:
        return int(run.get("steps", 0))
    parts = [part.rpartition(":")[2].strip() for part in str(curriculum).split(",")]
    return sum(int(part) for part in parts) if all(part.isdecimal() for part in parts) else 0


def _placed(run: dict[str, Any], folder: Path | None) -> dict[str, Any]:
    """The run with its files found from the preset's folder; `NAME=PATH` stays named."""
    if folder is None:
        return run
    if "chat_template" in run:
        run = {**run, "chat_template": str(folder / run["chat_template"])}
    if "data" not in run:
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
    return "\n\n".join(f"{name}{several(preset)}\n{preset.source}" for name in names() for preset in [read(name)])


def several(preset: Preset) -> str:
    """How many runs a preset has, where it has more than one; to stand behind its name."""
    return f" ({len(preset.runs)} runs)" if len(preset.runs) > 1 else ""
