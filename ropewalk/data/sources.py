"""What a user hands in for tasks: question sets, conversations, wordings. Read as data, never run."""

import json
from pathlib import Path
from typing import Any

from ropewalk.core.errors import InputError
from ropewalk.data.documents import read_text

KINDS = ("questions", "conversations", "templates")


def read_source(kind: str, path: str | Path) -> Any:
    """The records of a JSON or JSON-lines file; for `templates` the wordings.

    Raises `InputError` where the file is neither, `TextError` where it cannot be read.
    """
    if kind not in KINDS:
        raise InputError(f"unknown kind {kind!r} of file for tasks; known are {', '.join(KINDS)}")
    if kind == "templates":
        from ropewalk.data.tasks.templates import lm_eval_wordings, read_wordings

        return lm_eval_wordings() if str(path) == "lm-eval" else read_wordings(Path(path))
    return read_records(path)


def read_records(path: str | Path) -> list[dict[str, Any]]:
    """The records of a JSON list, of an object's one list, or of JSON lines."""
    text = read_text(path)
    try:
        found = json.loads(text)
    except ValueError:
        found = _lines(text, path)
    if isinstance(found, dict):
        lists = [value for value in found.values() if isinstance(value, list)]
        found = lists[0] if len(lists) == 1 else [found]
    if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
        raise InputError(f"{path} holds no list of records; expected a JSON list of objects, or one object a line")
    return found


def _lines(text: str, path: str | Path) -> list[Any]:
    records = []
    # Not splitlines, which also ends a line at what JSON allows inside its strings (U+2028).
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                records.append(json.loads(line))
            except ValueError as error:
                raise InputError(f"{path} is neither JSON nor JSON lines (line {number}: {error})") from error
    return records
