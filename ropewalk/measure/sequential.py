"""A test that ends a cell when its interval is clear of the threshold.

Four equally spaced looks at the haystacks of one task, method and length; each look uses Pocock's critical value, so
that the four together keep 5%. A cell stops when the interval of s(L) / s0 lies wholly above or wholly below 0.85. What
was given up: the intervals of stopped *and* unstopped cells are Pocock's, a fifth wider than usual, and the share of a
cell that stopped early is a little too extreme; its row says both.
"""

import math
from collections.abc import Iterable
from typing import Any

from ropewalk.measure.effective import THRESHOLD
from ropewalk.measure.settings import ALONE, MULTIKEY, MapSettings
from ropewalk.measure.shares import POCOCK, correlation, ratio, share

NUM_LOOKS = 4


class Stop:
    """What is decided already. Only modes with a haystack per length can stop one."""

    def __init__(self, settings: MapSettings, samples: Iterable[dict[str, Any]]) -> None:
        self.settings = settings
        self.scores: dict[tuple[str, str, str, int], dict[int, list[float]]] = {}
        self.looks = {math.ceil(settings.num_haystacks * look / NUM_LOOKS) for look in range(1, NUM_LOOKS + 1)}
        self.known: dict[tuple[Any, ...], bool] = {}
        self.add(samples)

    def add(self, samples: Iterable[dict[str, Any]]) -> None:
        """Takes the samples of finished cells in."""
        for s in samples:
            place = (s["task"], s["protocol"], s["method"], s["asked_length"])
            self.scores.setdefault(place, {}).setdefault(s["haystack"], []).append(float(s["found"]))

    def decided(self, cell: Any) -> bool:
        """Whether the haystacks before this cell's settle the matter. The untouched model at short length never stops."""
        if not self.settings.stop_early or cell.protocol not in (MULTIKEY, ALONE):
            return False
        shortest = self.settings.lengths[0]
        if cell.label in (self.settings.untouched, self.settings.base) and cell.length == shortest:
            return False
        place = (cell.task, cell.protocol, cell.label, cell.length)
        base = self.scores.get((cell.task, cell.protocol, self.settings.base, shortest))
        return any(self._clear(place, base, look) for look in sorted(self.looks) if look <= cell.index and base is not None)

    def _clear(self, place: tuple[str, str, str, int], base: dict[int, list[float]], look: int) -> bool:
        """Whether the interval after `look` haystacks is clear of the threshold."""
        if (place, look) not in self.known:
            seen = [scores for index, scores in sorted(self.scores.get(place, {}).items()) if index < look]
            if len(seen) < look:
                # Asked before its turn: it may be settled later.
                return False
            self.known[place, look] = self._outside(seen, list(base.values()))
        return self.known[place, look]

    @staticmethod
    def _outside(seen: list[list[float]], base: list[list[float]]) -> bool:
        rho = correlation([seen, base])
        low, high = ratio(share(seen, rho=rho, z=POCOCK), share(base, rho=rho, z=POCOCK))
        return low >= THRESHOLD or high < THRESHOLD
