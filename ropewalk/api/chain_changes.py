"""A resumed chain whose later runs are asked for otherwise: allowed for runs that have not begun, refused for the others.

What a finished run answered cannot change, and its hours are not lost: the sentence that refuses names the last finished
folder, which is a source as any other. A run that has not begun has answered nothing, so its options may still change; the
card takes the new ones, and says so. A lower rate after a fault is another matter, see `ropewalk.tune.lowered`.

Given up: other data for a later run. Its rows were made before the first run began, and are held to their files.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from ropewalk.core.errors import OutputError
from ropewalk.core.record import Card
from ropewalk.core.run import card_of, write_card

LINKS = "chain"


def settle_changes(final: Path, card: Card) -> Card:
    """The card of a resumed chain, the one on disk brought up to it where only runs that have not begun differ.

    Raises `OutputError` where a run that has begun is asked for otherwise.
    """
    old = card_of(final)
    if old is None or old.status == "done" or old.question == card.question or "runs" not in old.config:
        return card
    was, now = old.question, card.question
    runs = was["config"]["runs"], now["config"]["runs"]
    if was["source"] != now["source"] or was["documents"] != now["documents"] or len(runs[0]) != len(runs[1]):
        return card
    changed = [number for number, pair in enumerate(zip(*runs, strict=True), 1) if pair[0] != pair[1]]
    for number in changed:
        if _begun(final, number, len(runs[0])):
            raise OutputError(_refused(final, number, _differing(runs[0][number - 1], runs[1][number - 1])))
    if not changed:
        return card
    _swept(final, changed, len(runs[0]))
    words = [_told(number, _differing(runs[0][number - 1], runs[1][number - 1])) for number in changed]
    findings = [*(one for one in old.findings if one["field"] == "chain"), *words]
    ours = replace(card, findings=[*card.findings, *findings])
    taken = replace(ours, started=old.started, files=old.files, links=old.links, status=old.status)
    write_card(final, taken)
    return ours


def finished_links(final: Path) -> list[int]:
    """The numbers of the runs before the last that are done."""
    found = [int(path.name) for path in (final / LINKS).glob("[0-9]*") if _status(path) == "done"]
    return sorted(found)


def _begun(final: Path, number: int, count: int) -> bool:
    """Whether a run has a state or a result."""
    place = _place(final, number, count)
    return any((place / "state").glob("step-*")) or (number < count and _status(place) == "done")


def _swept(final: Path, changed: list[int], count: int) -> None:
    """Takes away what runs without a state wrote for the old options."""
    for number in changed:
        place = _place(final, number, count)
        shutil.rmtree(place if number < count else place / "state", ignore_errors=True)


def _place(final: Path, number: int, count: int) -> Path:
    return final / LINKS / str(number) if number < count else final


def _refused(final: Path, number: int, differing: str) -> str:
    done = [one for one in finished_links(final) if one < number]
    instead = (
        f"or go on from {final / LINKS / str(done[-1])}, which is finished, with the later runs and a new --out"
        if done
        else "or give another --out"
    )
    return (
        f"run {number} of {final} has begun, and is asked for otherwise (it differs in {differing}); repeat the first "
        f"command with --resume, {instead}"
    )


def _told(number: int, differing: str) -> dict[str, str]:
    problem = f"run {number} was asked for otherwise before it began (in {differing})"
    return {"field": "chain", "severity": "note", "problem": problem, "mend": ""}


def _differing(was: dict[str, Any], now: dict[str, Any]) -> str:
    return ", ".join(sorted(key for key in was.keys() | now.keys() if was.get(key) != now.get(key)))


def _status(folder: Path) -> str:
    card = card_of(folder)
    return "" if card is None else card.status
