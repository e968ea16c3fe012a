"""A test that ends a cell when its interval is clear of the threshold.

Four equally spaced looks at the haystacks of one task, method and length; each look uses Pocock's critical value, so
that the four together keep 5%. A cell stops when the interval of s(L) / s0 lies wholly above or wholly below 0.85.

The row of a stopped cell takes its correlation from all lengths, and may have a wider interval than the one it stopped on.
So a look takes the largest of what is known by then: of the cell, of the cells before it, and of s0's, and no less than 0.2.
It is known from shorter lengths alone, which are complete by then, so that a resumed run stops where an unbroken one does.

What was given up: the intervals of stopped *and* unstopped cells are Pocock's, a fifth wider than usual; a cell that stopped
early has fewer answers, and its share is a little too extreme. Of the stopped cells 3% to 8% are not clear of the threshold
in their rows, and a length is lost by it: `tests/measure/test_sequential.py` measures that.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from ropewalk.measure.effective import THRESHOLD
from ropewalk.measure.settings import ALONE, MULTIKEY, MapSettings
from ropewalk.measure.shares import FLOOR, POCOCK, correlation, ratio, share

NUM_LOOKS = 4
LEAST = 2 * FLOOR
"""Least correlation at a look. Without it one stopped cell in seven is not clear in its row: later cells raise it."""
Scores = list[list[float]]
"""Of one cell, by haystack."""


class Stop:
    """What is decided already. Only modes with a haystack per length can stop one."""

    def __init__(self, settings: MapSettings, samples: Iterable[dict[str, Any]]) -> None:
        self.settings = settings
        self.scores: dict[tuple[str, str, str], dict[int, dict[int, list[float]]]] = {}
        self.looks = {math.ceil(settings.num_haystacks * look / NUM_LOOKS) for look in range(1, NUM_LOOKS + 1)}
        self.known: dict[tuple[Any, ...], bool] = {}
        self.add(samples)

    def add(self, samples: Iterable[dict[str, Any]]) -> None:
        """Takes the samples of finished cells in."""
        for s in samples:
            lengths = self.scores.setdefault((s["task"], s["protocol"], s["method"]), {})
            lengths.setdefault(s["asked_length"], {}).setdefault(s["haystack"], []).append(float(s["found"]))

    def decided(self, cell: Any) -> bool:
        """Whether the haystacks before this cell's settle the matter. The untouched model at short length never stops."""
        if not self.settings.stop_early or cell.protocol not in (MULTIKEY, ALONE):
            return False
        shortest = self.settings.lengths_of(cell.task)[0]
        if cell.label in (self.settings.untouched, self.settings.base) and cell.length == shortest:
            return False
        place = (cell.task, cell.protocol, cell.label)
        bases = self._before((cell.task, cell.protocol, self.settings.base), max(cell.length, shortest + 1))
        if not bases:
            return False
        return any(self._clear(place, cell.length, bases, look) for look in sorted(self.looks) if look <= cell.index)

    def _before(self, place: tuple[str, str, str], length: int) -> list[Scores]:
        """The cells of a task and method below a length, the shortest first; they are complete when that length is asked."""
        found = self.scores.get(place, {})
        return [list(found[n].values()) for n in sorted(found) if n < length]

    def _clear(self, place: tuple[str, str, str], length: int, bases: Sequence[Scores], look: int) -> bool:
        """Whether the interval after `look` haystacks is clear of the threshold."""
        if (place, length, look) not in self.known:
            cell = self.scores.get(place, {}).get(length, {})
            seen = [scores for index, scores in sorted(cell.items()) if index < look]
            if len(seen) < look:
                # Asked before its turn: it may be settled later.
                return False
            self.known[place, length, look] = outside(seen, self._before(place, length), bases)
        return self.known[place, length, look]


def outside(seen: Scores, before: Sequence[Scores], bases: Sequence[Scores]) -> bool:
    """Whether a cell is clear of the threshold; `before` are the shorter cells, `bases` the untouched model's, s0 first."""
    rho = max(LEAST, correlation([seen]), correlation([*before, seen]), correlation(bases))
    low, high = ratio(share(seen, rho=rho, z=POCOCK), share(bases[0], rho=rho, z=POCOCK))
    return low >= THRESHOLD or high < THRESHOLD
