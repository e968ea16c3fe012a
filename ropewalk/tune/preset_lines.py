"""The lines of a preset: which keys there are, and how the value of each is written.

TOML knows types, so a value of another one was not meant. What is wrong is told with what to write in its place.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ropewalk.core.errors import InputError, near
from ropewalk.core.other_names import other_name
from ropewalk.tune.settings import Settings

KEYS = (
    "data", "method", "lineage", "window", "curriculum", "steps", "device", "dtype", "merge", "freeze", "prompt_loss",
    "allow_short", "field", "short_share", "keep_short", "special_tokens", "chat_template", "max_broken",
    *(field.name for field in fields(Settings) if field.name != "stages"),
)  # fmt: skip
"""What a preset may say beside `source` and `runs`."""
TEXT, LENGTH, SWITCH = "a text in quotes", 'a number of tokens or a text such as "16k"', "true or false"
WHOLE, NUMBER = "a whole number", "a number"
FORMS: dict[str, str] = {
    **{field.name: WHOLE if field.type is int else TEXT for field in fields(Settings)},
    **{field.name: NUMBER for field in fields(Settings) if field.type in (float, int | float)},
    **dict.fromkeys(("length", "window"), LENGTH), **dict.fromkeys(("steps", "max_broken"), WHOLE),
    **dict.fromkeys(("short_share", "keep_short"), NUMBER),
    **dict.fromkeys(("offload", "merge", "freeze", "prompt_loss", "allow_short", "special_tokens"), SWITCH),
    **dict.fromkeys(("method", "lineage", "curriculum", "device", "dtype", "field", "chat_template"), TEXT),
    "data": "a path in quotes, or a list of them",
}  # fmt: skip
"""How the value of each key is written."""
EXAMPLES = {TEXT: '"..."', LENGTH: '"16k"', SWITCH: "true", WHOLE: "8", NUMBER: "0.1"}
"""A value of each form, for one of which nothing can be made."""
OF_A_COMMAND = {
    "out": "DIR", "validate": "FILE", "validate_lengths": "LENGTHS", "validate_every": "N", "report_to": "NAMES",
    "push_to_hub": "REPO", "preset": "FILE", "resume": "", "force": "", "json": "", "longest": "", "memory": "SIZE",
}  # fmt: skip
"""What one command says and no file, since it is not of the training; and how it is said there."""


def check(given: str, said: Mapping[str, Any]) -> None:
    """Raises `InputError` for the first line of the preset `given` that cannot be meant."""
    for key, value in said.items():
        if key in OF_A_COMMAND:
            option = f"--{key.replace('_', '-')} {OF_A_COMMAND[key]}".strip()
            raise InputError(f"the preset {given} says {key!r}, which no file says; say it on the command line, {option}")
        if key not in KEYS:
            meant = other_name(key, (*KEYS, *OF_A_COMMAND)) or near(key, (*KEYS, "runs"))
            raise InputError(f"the preset {given} says {key!r}, which tune does not take; {meant}")
        if isinstance(value, dict):
            raise InputError(f"the preset {given} has a table {key!r}; write plain lines such as steps = 400")
        if not _is(FORMS[key], value):
            raise InputError(
                f"the preset {given} is wrong: {key} is {FORMS[key]}, got {_kind(value)}; write {key} = {_meant(key, value)}"
            )


def _kind(value: Any) -> str:
    """What a value of TOML is, with the value."""
    kinds = {bool: SWITCH, str: "text", int: WHOLE, float: NUMBER, list: "a list"}
    return f"{kinds.get(type(value), 'a date or a time')} ({value!r})"


def _meant(key: str, value: Any) -> str:
    """A value as it was most likely meant, as TOML writes it; an example where nothing can be made of it."""
    form = FORMS[key]
    if form == TEXT and isinstance(value, int | float) and not isinstance(value, bool):
        return f'"{value}"'
    if form == SWITCH and str(value).lower() in ("true", "false"):
        return str(value).lower()
    if form in (WHOLE, NUMBER) and isinstance(value, str):
        try:
            said = tomllib.loads(f"value = {value.strip()}")["value"]
        except (ValueError, KeyError):
            said = None
        if _is(form, said):
            return value.strip()
    if form == WHOLE and isinstance(value, float) and value.is_integer():
        return str(int(value))
    return EXAMPLES.get(form, '"books"')


def _is(form: str, value: Any) -> bool:
    """Whether a value is of a form of `FORMS`."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if form == TEXT:
        return isinstance(value, str)
    if form == LENGTH:
        return whole or isinstance(value, str)
    if form == SWITCH:
        return isinstance(value, bool)
    if form == WHOLE:
        return whole
    if form == NUMBER:
        return whole or isinstance(value, float)
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(one, str) for one in value))
