"""Where the engines are: in the environment we run in, or each in one of its own.

An engine that the running Python can import is taken first: who installed both together meant that one. Then an environment
below `ROPEWALK_ENGINES`, or without that variable below `.engines` of the working directory: `NAME-HASH` with a stamp
`.installed`, as `make engines` makes it, or `NAME`, as a user makes it with `python -m venv`.

Given up: engines behind a server that runs already, whose options nobody here would know.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from ropewalk.core.errors import InputError, near

PACKAGES = {"transformers": "transformers", "vllm": "vllm", "llama.cpp": "xllamacpp"}
"""Engine to the package that holds it; those with a probe."""
FOLDERS = {"transformers": "transformers-newest", "vllm": "vllm", "llama.cpp": "llamacpp"}
"""Engine to the name of its environment."""
OLDEST = "transformers-oldest"
"""The environment of the oldest supported transformers."""
_INSTALLS = {
    "transformers": "torch transformers safetensors",
    "vllm": "vllm",
    "llama.cpp": "xllamacpp numpy",
    OLDEST: "torch transformers==5.16.1 safetensors",
}
"""Engine to what pip installs into an environment of its own."""


def python_of(engine: str) -> Path | None:
    """The Python that can run an engine (one of `PACKAGES`, or `OLDEST`); None if there is none.

    Raises `InputError` for an engine that has no probe.
    """
    if engine not in PACKAGES and engine != OLDEST:
        raise InputError(
            f"{engine!r} is no engine that can be executed; expected one of {', '.join(PACKAGES)}: {near(engine, PACKAGES)}"
        )
    if engine in PACKAGES and _importable(PACKAGES[engine]):
        return Path(sys.executable)
    name = FOLDERS.get(engine, engine)
    stamps = sorted(_home().glob(f"{name}-*/.installed"), key=lambda path: path.stat().st_mtime)
    # Not resolved: the link is what makes it the environment's Python and not the system's.
    pythons = [stamp.parent.absolute() / "bin" / "python" for stamp in reversed(stamps)]
    plain = _home().absolute() / name / "bin" / "python"
    return next(iter([*pythons, *([plain] if plain.exists() else [])]), None)


def missing(engine: str) -> str:
    """What to say of an engine that is not installed: where it was looked for, and the commands that install it."""
    place = _home() / FOLDERS.get(engine, engine)
    package = PACKAGES.get(engine)
    looked = f"this Python does not import {package} and " if package else ""
    return (
        f"{engine} is not installed here: {looked}there is no environment {place}; run python -m venv {place} and "
        f"{place}/bin/pip install {_INSTALLS[engine]}, or make engines in a checkout of ropewalk"
    )


def _home() -> Path:
    return Path(os.environ.get("ROPEWALK_ENGINES") or ".engines")


def _importable(package: str) -> bool:
    """Whether it is a package and not just a folder of that name on the way, such as a clone in the working directory."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None
