"""A resumed run at a lower learning rate: the one setting that may change, and only after a fault.

What a fault stopped comes to the same fault when it is resumed. So where the watch stopped a run, a lower rate is no other
question: the card takes it, and keeps under `lowered` from which step on and why. Every later `--resume` says the new rate.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from ropewalk.core.record import Card
from ropewalk.core.run import write_atomic
from ropewalk.tune import state
from ropewalk.tune.faults import before, noted

LOWERED = "lowered"
"""Of a card's configuration: the changes of the rate, oldest first."""


def settle(out: Path, card: Card) -> Card:
    """The card of a resumed run with what is known of its rates; the card on disk takes a rate that is lowered now.

    Anything else that differs is left for `Run.open` to refuse.
    """
    old = _card(out)
    if old is None:
        return card
    history: list[dict[str, Any]] = list(old.config.get(LOWERED, []))
    was, now = old.config.get("learning_rate"), card.config.get("learning_rate")
    fault = noted(out / "state")
    lower = isinstance(was, float) and isinstance(now, float) and now < was
    if lower and fault is not None and old.status != "done":
        sound = before(out / "state")
        step = 0 if sound is None else state.read(sound)["step"]
        told = {"step": step, "from": was, "to": now, "fault": fault["fault"], "stopped_after": fault["step"]}
        changed = replace(old, config={**old.config, "learning_rate": now, LOWERED: [*history, told]})
        ours = replace(card, config={**card.config, LOWERED: [*history, told]})
        if changed.question == ours.question:
            write_atomic(out / "card.json", (json.dumps(changed.to_dict(), indent=1) + "\n").encode())
            return ours
    return replace(card, config={**card.config, LOWERED: history}) if history else card


def _card(out: Path) -> Card | None:
    try:
        return Card.from_dict(json.loads((out / "card.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
