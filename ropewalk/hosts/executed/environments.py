"""Where the engines are: each in an environment of its own, made by `make engines`, or in the one we run in.

`ROPEWALK_ENGINES` names the folder of environments, else `.engines` below the working directory. An environment is
`NAME-HASH` with a stamp `.installed`; without one, an engine that the running Python can import is taken.
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


def python_of(engine: str) -> Path | None:
    """The Python that can run an engine (one of `PACKAGES`, or `OLDEST`); None if there is none.

    Raises `InputError` for an engine that has no probe.
    """
    if engine not in PACKAGES and engine != OLDEST:
        raise InputError(
            f"{engine!r} is no engine that can be executed; expected one of {', '.join(PACKAGES)}: {near(engine, PACKAGES)}"
        )
    home = Path(os.environ.get("ROPEWALK_ENGINES", ".engines"))
    stamps = sorted(home.glob(f"{FOLDERS.get(engine, engine)}-*/.installed"), key=lambda path: path.stat().st_mtime)
    if stamps:
        # Not resolved: the link is what makes it the environment's Python and not the system's.
        return stamps[-1].parent.absolute() / "bin" / "python"
    package = PACKAGES.get(engine)
    return Path(sys.executable) if package and find_spec(package) is not None else None
