"""One way to tune a tiny model, with small settings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from streams import Counting

from ropewalk.core.record import Card

Tune = Callable[..., Card]
SETTINGS: dict[str, Any] = {
    "length": 256, "window": 48, "method": "yarn", "steps": 5, "recipe": "full", "learning_rate": 1e-2, "accumulate": 2,
    "save_every": 2, "device": "cpu", "dtype": "float32",
}  # fmt: skip


def tuning(source: Path) -> Tune:
    """`tune` of `source` with small settings; the output folder comes first."""
    from ropewalk.api.tuning import tune

    def small(out: Path, *, data: Any = Counting, start: Path = source, **changes: Any) -> Card:
        return tune(start, data, out=out, **{**SETTINGS, **changes})

    return small
