"""Published recipes as files: a run's options under the names of the command line, with the source of their numbers.

A preset is TOML: `source` says where the numbers are from and what was left out, every other key is an option of `tune` with
underscores. What the command line says wins. A file of the user's own is read the same way.
"""

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from ropewalk.core.errors import InputError, near

KEYS = (
    "data", "length", "method", "lineage", "recipe", "positions", "attention", "window", "curriculum", "steps",
    "learning_rate", "schedule", "warmup_steps", "weight_decay", "beta1", "beta2", "max_grad_norm", "batch_size",
    "accumulate", "seed", "rank", "alpha", "dropout", "group", "pattern", "wrap", "chunks", "checkpoint_every",
    "offload", "save_every", "device", "dtype", "merge", "prompt_loss", "allow_short", "field",
)  # fmt: skip
"""What a preset may say beside `source`."""


def names() -> list[str]:
    """The presets that come with the package."""
    folder = resources.files("ropewalk.tune") / "presets"
    return sorted(Path(file.name).stem for file in folder.iterdir() if file.name.endswith(".toml"))


def read(given: str) -> dict[str, Any]:
    """The options of a preset, by file or by name. Raises `InputError` where there is none, or it says what is unknown."""
    path = Path(given)
    if path.is_file():
        content = path.read_bytes()
    elif given in names():
        content = (resources.files("ropewalk.tune") / "presets" / f"{given}.toml").read_bytes()
    else:
        raise InputError(f"there is no preset {given!r}, neither a file nor a name; {near(given, names())}")
    try:
        said = tomllib.loads(content.decode("utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"the preset {given} is not TOML ({error}); write lines such as steps = 400") from error
    said.pop("source", None)
    for key, value in said.items():
        if key not in KEYS:
            raise InputError(f"the preset {given} says {key!r}, which tune does not take; {near(key, KEYS)}")
        if isinstance(value, dict):
            raise InputError(f"the preset {given} has a table {key!r}; write plain lines such as steps = 400")
    return said
