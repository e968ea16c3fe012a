"""LongRoPE: each dimension divided by a number of its own, found by search; one list for short texts, one for long.

Why: no formula finds as good a stretch as a search over the model itself. What is given up: the search is not here, so the
lists are given; the tokens at the start that the paper leaves unscaled (n-hat) are left out, as in released checkpoints;
and, as in the released code and transformers, one attention factor serves both lists, so a short text pays for the long.

A plan has two regimes: the short list up to the length of the start, the long list beyond it.

Paper: LongRoPE, arXiv:2402.13753: theta'_i = theta_i / lambda_i; attention factor sqrt(1 + ln s / ln L) from
microsoft/LongRoPE.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from ropewalk.core.errors import MethodError
from ropewalk.core.geometry import Geometry, Start
from ropewalk.core.method import Method, require
from ropewalk.core.plan import Frequencies, Kind, Native, Plan, Regime
from ropewalk.methods.stretch import turned

LISTS = ("short_factor", "long_factor")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LongRope(Method):
    """A divisor for each dimension, switched at the length of the start."""

    id: ClassVar[str] = "longrope"
    summary: ClassVar[str] = "LongRoPE with given lists: a divisor for each dimension, one list short and one long"
    paper: ClassVar[str] = "LongRoPE, arXiv:2402.13753: theta'_i = theta_i / lambda_i"
    kind: ClassVar[Kind] = "switched"

    short_factor: tuple[float, ...] = ()
    """Divisors for texts up to the length of the start, rotary_dim/2 numbers joined by `|`."""
    long_factor: tuple[float, ...] = ()
    """Divisors for longer texts, rotary_dim/2 numbers joined by `|`."""
    file: str | None = None
    """A JSON file with both lists under their names; it is read once, and the plan keeps the lists alone."""
    attention_factor: float | None = None
    """What cos and sin are multiplied by, in both regimes; where nothing is said, sqrt(1 + ln s / ln L)."""

    def __post_init__(self) -> None:
        if self.file is not None:
            self._read(Path(self.file))
        if not self.short_factor or not self.long_factor:
            raise MethodError(
                "longrope needs the lists short_factor and long_factor, which are found by search and have no formula; "
                "give both as numbers joined by '|', or longrope:file=LISTS.json"
            )
        for key in LISTS:
            if not all(math.isfinite(x) and x > 0.0 for x in getattr(self, key)):
                raise MethodError(f"longrope:{key} holds positive numbers, got {list(getattr(self, key))}")
        if self.attention_factor is not None:
            require(self.id, "attention_factor", self.attention_factor, above=0.0)

    def _read(self, path: Path) -> None:
        if self.short_factor or self.long_factor:
            raise MethodError(f"longrope got the lists and the file {path}; give one of the two")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise MethodError(
                f"longrope:file={path} cannot be read as JSON ({error}); give a file with both lists"
            ) from error
        for key in LISTS:
            numbers = content.get(key) if isinstance(content, dict) else None
            if not isinstance(numbers, list) or not all(type(x) in (int, float) for x in numbers):
                raise MethodError(f'longrope:file={path} has no list of numbers "{key}"; expected {" and ".join(LISTS)}')
            object.__setattr__(self, key, tuple(float(x) for x in numbers))
        object.__setattr__(self, "file", None)

    def divided(self, start: Start, factor: float, key: str) -> Frequencies:
        """The word of one regime. Raises `MethodError` where the list does not fit the model."""
        divisors = np.asarray(getattr(self, key), dtype=np.float64)
        if divisors.size != start.rotary_dim // 2:
            raise MethodError(
                f"longrope:{key} has {divisors.size} numbers and this model needs {start.rotary_dim // 2} (half of its "
                f"rotary_dim {start.rotary_dim}); give a list that was searched for this model"
            )
        return turned(start, start.inv_freq / divisors, attention_factor=self.magnitude(start, factor))

    def magnitude(self, start: Start, factor: float) -> float:
        """What cos and sin are multiplied by."""
        if self.attention_factor is not None:
            return self.attention_factor
        if factor <= 1.0:
            return 1.0
        # ln 1 = 0: a model of one token has no length to compare with.
        return math.sqrt(1.0 + math.log(factor) / math.log(max(start.length, 2)))

    def frequencies(self, start: Start, factor: float) -> Frequencies:
        """The long regime's word, float64 [rotary_dim/2]."""
        return self.divided(start, factor, "long_factor")

    def make_plan(
        self,
        geometry: Geometry,
        length: int,
        factor: float,
        words: Mapping[str, Frequencies | None],
        *,
        native: Native | None = None,
        regimes: tuple[Regime, ...] = (),
    ) -> Plan:
        """Adds the regimes: one that never ends for the identity, else the short list's and, in `words`, the long one's."""
        regimes = (Regime(longest=None, groups=dict(words)),)
        if length > geometry.trained_length:
            short = dict(words)
            for group in geometry.extended_groups:
                short[group.label] = self.divided(geometry.start(group), factor, "short_factor")
            regimes = (Regime(longest=geometry.start_length, groups=short), *regimes)
        return super().make_plan(geometry, length, factor, words, native=native, regimes=regimes)

    def native(self, geometry: Geometry, factor: float) -> Native | None:
        """`longrope`."""
        starts = [geometry.start(group) for group in geometry.extended_groups]
        options = {
            "factor": factor,
            "original_length": geometry.start_length,
            "short_factor": list(self.short_factor),
            "long_factor": list(self.long_factor),
            "attention_factor": self.magnitude(starts[0], factor),
        }
        return Native(name="longrope", options=options)
