"""Folders of task files that a user hands in for lm-eval: read before lm-eval does, and refused where they would run code.

lm-eval's task files are YAML with programs in them. A `!function` imports any Python that the file names, and a metric that
lm-eval does not know is looked for as a script and run. People get such folders from one another, so both are refused
here, and whoever trusts such a file has lm-eval itself. Templates (Jinja) are programs too; they run in a sandbox
(`harness.py`). lm-eval's own task files may do all of this: their code is installed.

Given up: tasks with `process_docs` or other functions of the user's own. `unsafe_code`, by which a task says that answers
are executed, is refused everywhere by never confirming it.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ropewalk.core.errors import InputError, SourceError

LOADERS = ("json", "csv", "parquet", "arrow", "text")
"""Ways to read data files by name that run nothing; `pandas`, for one, reads pickles."""


class Code:
    """What stands in the place of a `!function`."""

    def __init__(self, name: str) -> None:
        self.name = name


def read_folder(path: str | Path) -> str:
    """SHA-256 over the task files of a folder, every one checked.

    Raises `SourceError` where it is no folder or holds no task file, `InputError` where a file would run code.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder; give the folder that holds the task files (*.yaml)")
    files = sorted(file for file in folder.rglob("*.yaml") if file.is_file())
    if not files:
        raise SourceError(f"{folder} holds no task file (*.yaml); give the folder that holds them")
    digest = hashlib.sha256()
    seen: set[Path] = set()
    for file in files:
        digest.update(f"{file.relative_to(folder)}\n".encode(errors="surrogateescape"))
        for content in _with_includes(file.resolve(), seen):
            digest.update(content)
    return digest.hexdigest()


def _with_includes(file: Path, seen: set[Path]) -> Iterator[bytes]:
    """The bytes of a task file and of what it includes, checked; each file once."""
    if file in seen or _is_installed(file):
        return
    seen.add(file)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise SourceError(f"{file} cannot be read ({error.strerror}); mend what includes it") from error
    task = _parsed(file, content)
    _check(file, task)
    yield content
    included = task.get("include", []) if isinstance(task, dict) else []
    for name in included if isinstance(included, list) else [included]:
        yield from _with_includes((file.parent / str(name)).resolve(), seen)


def _is_installed(file: Path) -> bool:
    """Whether a file is of lm-eval itself."""
    import lm_eval

    return Path(lm_eval.__file__).parent.resolve() in file.parents


def _parsed(file: Path, content: bytes) -> Any:
    """The YAML of a file with `Code` for each `!function`. Nothing is imported."""
    import yaml

    # A class of its own, since constructors are registered on the class.
    loader: Any = type("Loader", (yaml.SafeLoader,), {})
    loader.add_constructor("!function", lambda _, node: Code(str(node.value)))
    try:
        return yaml.load(content, Loader=loader)
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file} is no task file that can be read ({reason}); mend it or take it out") from error


def _check(file: Path, content: Any) -> None:
    """Raises `InputError` for whatever in a task file would run code."""
    from lm_eval.api import metrics, registry

    assert metrics is not None  # importing it fills the registry
    for key, value in _walk(content):
        if isinstance(value, Code):
            raise InputError(
                f"{file} names Python code (!function {value.name}), which ropewalk does not run from a folder that is "
                "handed in; write the task with templates alone"
            )
        if key == "hf_evaluate" and value:
            raise InputError(f"{file} asks for a metric that is a script (hf_evaluate); take one of lm-eval's own")
        if key == "metric" and str(value) not in registry.metric_registry:
            raise InputError(
                f"{file} has the metric {value!r}, which lm-eval would look for as a script and run; take one of its own"
            )
        if key == "dataset_path" and not _is_plain_data(str(value)):
            raise InputError(
                f"{file} reads its data as {value!r}, expected one of {', '.join(LOADERS)} or the OWNER/NAME of a data set"
            )


def _is_plain_data(path: str) -> bool:
    """Whether a `dataset_path` is a reader that runs nothing, or the name of a data set."""
    owner, slash, name = path.partition("/")
    return path in LOADERS or bool(slash and owner.strip(".~") and name and "/" not in name and not name.endswith(".py"))


def _walk(content: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value with the key it stands under."""
    yield key, content
    if isinstance(content, dict):
        for name, value in content.items():
            yield from _walk(value, str(name))
    elif isinstance(content, list):
        for value in content:
            yield from _walk(value, key)
