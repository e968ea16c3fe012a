"""Verbs that need neither torch nor transformers: methods, geometry, plan."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ropewalk.core.errors import InputError, MethodError
from ropewalk.core.geometry import Geometry, Lineage
from ropewalk.core.method import Method, find
from ropewalk.core.method import methods as known_methods
from ropewalk.core.plan import Plan, parse_length

Source = str | Path | Mapping[str, Any] | Geometry | Any


def methods() -> dict[str, type[Method]]:
    """All known methods, id to class. Raises `MethodError` where one of another package does not load."""
    return dict(known_methods())


def geometry(source: Source, *, lineage: Lineage | None = None) -> Geometry:
    """What a source says of positions.

    `source` is a checkpoint folder, a folder with only config.json, a GGUF file, a hub id, a config dict, or an object with
    `to_dict()` such as a transformers config. `lineage` overrides what the source says of its stretch.

    Raises `SourceError`, `UnsupportedError`.
    """
    found = _read(source)
    return found if lineage is None else found.with_lineage(lineage)


def _read(source: Source) -> Geometry:
    from ropewalk.engines import transformers
    from ropewalk.hosts import folder

    if isinstance(source, Geometry):
        return source
    if isinstance(source, str | Path):
        return folder.geometry_of(folder.open_checkpoint(source))
    if isinstance(source, Mapping):
        return transformers.read(source)
    if hasattr(source, "config") and hasattr(source.config, "to_dict"):
        return transformers.read(source.config.to_dict())
    if hasattr(source, "to_dict"):
        return transformers.read(source.to_dict())
    raise InputError(f"a source is a path, a hub id, a config or a model, got {type(source).__name__}")


def plan(source: Source, method: str | Method, *, length: int | str, lineage: Lineage | None = None, **options: Any) -> Plan:
    """The plan of `method` (an id, with options after a colon or as keywords) for `length` tokens.

    A model that was trained at its stretch is planned from where it stands. `tune` makes a longer plan of the method that a
    model was tuned by from its origin, as papers do; `lineage="runtime"` gives that plan here.

    Raises `SourceError`, `UnsupportedError`, `MethodError`, `LengthError`.
    """
    if not isinstance(method, str | Method):
        raise MethodError(f"a method is an id such as yarn, or a Method, got {type(method).__name__}")
    made = method if isinstance(method, Method) else find(method, options)
    return made.plan(geometry(source, lineage=lineage), parse_length(length))
