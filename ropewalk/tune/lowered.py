"""A resumed run at a lower learning rate: the one setting that may change, and only after a fault.

What a fault stopped comes to the same fault when it is resumed. So where the watch stopped a run, a lower rate is no other
question: the card takes it, and keeps under `lowered` from which step on and why. Every later `--resume` says the new rate.
In a chain that holds for the run that was stopped, and the others keep theirs.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ropewalk.core.record import Card
from ropewalk.core.run import card_of, write_card
from ropewalk.tune import state
from ropewalk.tune.faults import before, noted

LOWERED = "lowered"
"""Of a card's configuration: the changes of the rate, oldest first."""
RATE = "learning_rate"


def settle(out: Path, card: Card, runs: Sequence[Path] = ()) -> Card:
    """The card of a resumed run with what is known of its rates; the card on disk takes a rate that is lowered now.

    `runs` are the folders of a chain's runs. Anything else that differs is left for `Run.open` to refuse.
    """
    old = card_of(out)
    if old is None:
        return card
    history: list[dict[str, Any]] = list(old.config.get(LOWERED, []))
    ours = replace(card, config={**card.config, LOWERED: history}) if history else card
    config, told = _lowered(old.config, card.config, [out, *runs])
    if not told or old.status == "done":
        return ours
    changed = replace(old, config={**config, LOWERED: [*history, *told]})
    ours = replace(card, config={**card.config, LOWERED: [*history, *told]})
    if changed.question == ours.question:
        write_card(out, changed)
    return ours


def _lowered(
    old: dict[str, Any], new: dict[str, Any], places: Sequence[Path]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The old configuration with every rate that may be the new one, and what is told of that."""
    config, told = copy.deepcopy(old), []
    pairs = zip([config, *config.get("runs", [])], [new, *new.get("runs", [])], places, strict=False)
    for number, (was, now, place) in enumerate(pairs):
        fault = noted(place / "state")
        if fault is None or not now[RATE] < was[RATE]:
            continue
        sound = before(place / "state")
        step = 0 if sound is None else state.read(sound)["step"]
        if number or "runs" not in config:
            words = {"from": was[RATE], "to": now[RATE], "fault": fault["fault"], "stopped_after": fault["step"]}
            told.append({**({"run": number} if number else {}), "step": step, **words})
        was[RATE] = now[RATE]
    return config, told
