"""A folder of data that was begun: what it was asked, held against what is asked now; and a fresh one.

A source that changed is named with its file, every other difference by its key. What may differ is no part of the question.

Given up: going on with one source of several that is still what it was.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ropewalk.core.errors import OutputError
from ropewalk.core.output import CARD, called
from ropewalk.core.run import full_disk_is_told


def make(folder: Path) -> None:
    """Makes the folder where it is not there. Raises `OutputError`, and `MachineError` where the disk is full."""
    try:
        with full_disk_is_told(folder):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made ({error.strerror}); give another --out") from error


def begun(
    folder: Path, asked: Mapping[str, Any], *, verb: str, may_differ: str = "", later: Sequence[str] = ()
) -> dict[str, Any] | None:
    """The card of a folder that `verb` began with the same question, None for a folder without a card.

    Raises `OutputError` where the question was another one; `may_differ` names what is no part of it, and `later` the keys
    that cards did not always have: they count where the card has them.
    """
    path = folder / CARD
    if not path.is_file():
        return None
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        wrote, was = str(card["verb"]), dict(card["asked"])
        files = {source["name"]: source["files"] for source in was["sources"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path} is not the card of {called(verb)}; give another --out") from error
    if wrote != verb:
        raise OutputError(f"{folder} is the folder of {called(wrote)}; give another --out")
    for source in asked["sources"]:
        change = changed(files.get(source["name"]), source["files"])
        if change:
            raise OutputError(f"{source['name']} is not what {folder} was begun with ({change}); start anew with --force")
    compared = {key: value for key, value in asked.items() if key in was or key not in later}
    differing = _differing(was, json.loads(json.dumps(compared)))
    if differing:
        may = f" ({may_differ} may differ)" if may_differ else ""
        raise OutputError(
            f"{folder} was begun with other {' and '.join(differing)}; repeat the first command with --resume{may}, or "
            "start anew with --force"
        )
    return card


def _differing(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Keys of the answers that differ, settings opened up."""
    flat = [{**{k: v for k, v in each.items() if k != "settings"}, **each.get("settings", {})} for each in (was, now)]
    return sorted(key for key in flat[0].keys() | flat[1].keys() if flat[0].get(key) != flat[1].get(key))


def changed(was: list[dict[str, Any]] | None, now: list[dict[str, Any]]) -> str | None:
    """What is different between two fingerprints of a source, in words."""
    if was is None or was == now:
        return None
    before, after = ({file["file"]: file for file in files} for files in (was, now))
    for name in sorted(before.keys() & after.keys()):
        fields = [each.get("field") for each in (before[name], after[name])]
        if fields[0] != fields[1]:
            said = [f"field {field!r}" if field else "the known field" for field in fields]
            return f"of {name} {said[0]} was read, and now {said[1]} is asked for"
    for word, names in (
        ("gone", before.keys() - after.keys()),
        ("new", after.keys() - before.keys()),
        ("changed", {name for name in before.keys() & after.keys() if before[name] != after[name]}),
    ):
        if names:
            return f"{min(names)} is {word}{f', and {len(names) - 1} more' if len(names) > 1 else ''}"
    return "its files come in another order"
