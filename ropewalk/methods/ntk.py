"""NTK-aware scaling and its two refinements: each frequency divided by a power of s that grows with its index.

Why: read RoPE as a number written in base beta = b^(2/d), whose last digits are the fast dimensions. Interpolation
squeezes every digit; enlarging the base leaves the fast digits nearly alone and puts the stretch on the slow ones.

| id | divisor of theta_i, i = 0..d/2-1 | fastest | slowest |
| --- | --- | --- | --- |
| `ntk` | s^(2i/(d-2)) | 1 | s |
| `ntk-fixed` | s^(2(i+1)/d) | s^(2/d) | s |
| `ntk-mixed` | exp(a (i+1)^c), a = ln s / (d/2)^c | s^((2/d)^c) | s |

All three are written as divisors of the current vector, so they hold for partial rotary, llama3-scaled and any other
vector; on a geometric one `ntk` is the same as the base b s^(d/(d-2)). What is given up: the middle dimensions are
stretched by less than s, so those among them that never turned once in training see new angles before s times L.

Sources: bloc97, "NTK-Aware Scaled RoPE" (June 2023), printed in YaRN, arXiv:2309.00071v2, equations 14 to 16; Su Jianlin,
kexue.fm/archives/9706, on NTK-RoPE-fixed and NTK-RoPE-mixed.
"""

import dataclasses
import math
from typing import ClassVar

import numpy as np

from ropewalk.core.errors import MethodError
from ropewalk.core.geometry import Geometry, Start
from ropewalk.core.method import require
from ropewalk.core.plan import Frequencies, Native
from ropewalk.methods.stretch import Stretch, turned


@dataclasses.dataclass(frozen=True, kw_only=True)
class NtkAware(Stretch):
    """The base enlarged so that the slowest dimension is interpolated fully and the fastest not at all."""

    id: ClassVar[str] = "ntk"
    summary: ClassVar[str] = "NTK-aware: a larger base, the fastest dimension kept and the slowest interpolated"
    paper: ClassVar[str] = "NTK-aware scaling, in YaRN, arXiv:2309.00071v2, equations 14 to 16: b' = b s^(d/(d-2))"

    def frequencies(self, start: Start, factor: float) -> Frequencies:
        """inv_freq s^(-2i/(d-2)), float64 [rotary_dim/2]. Raises `MethodError` for a rotary_dim below 4."""
        if start.rotary_dim < 4:
            raise MethodError(
                f"ntk needs a rotary_dim of at least 4, since it keeps one dimension and interpolates another, "
                f"got {start.rotary_dim}; use pi"
            )
        index = np.arange(start.rotary_dim // 2, dtype=np.float64)
        return turned(start, start.inv_freq * factor ** (-2.0 * index / (start.rotary_dim - 2)))

    def native(self, geometry: Geometry, factor: float) -> Native | None:
        """`default` with a larger base, where one base serves all extended groups."""
        starts = [geometry.start(group) for group in geometry.extended_groups]
        bases = {s.nominal_base * factor ** (s.rotary_dim / (s.rotary_dim - 2)) for s in starts}
        return Native(name="default", options={"base": bases.pop()}) if len(bases) == 1 else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class NtkFixed(Stretch):
    """Su's correction: every digit of the code grows by the same lambda = s^(2/d), the last one included."""

    id: ClassVar[str] = "ntk-fixed"
    summary: ClassVar[str] = "Su's NTK-RoPE-fixed: every digit of the code grows by the same amount"
    paper: ClassVar[str] = "Su, kexue.fm/archives/9706: theta'_m = theta_m / lambda^m, lambda = s^(2/d), m = 1..d/2"

    def frequencies(self, start: Start, factor: float) -> Frequencies:
        """inv_freq s^(-2(i+1)/d), float64 [rotary_dim/2]."""
        digit = np.arange(1, start.rotary_dim // 2 + 1, dtype=np.float64)
        return turned(start, start.inv_freq * factor ** (-2.0 * digit / start.rotary_dim))

    def native(self, geometry: Geometry, factor: float) -> Native | None:
        """`linear` by lambda on the base b s: lambda^(i+1) = lambda s^(2i/d)."""
        starts = [geometry.start(group) for group in geometry.extended_groups]
        spellings = {(s.nominal_base * factor, factor ** (2.0 / s.rotary_dim)) for s in starts}
        if len(spellings) != 1:
            return None
        base, divisor = spellings.pop()
        return Native(name="linear", options={"factor": divisor, "base": base})


@dataclasses.dataclass(frozen=True, kw_only=True)
class NtkMixed(Stretch):
    """Su's mixed radix: every digit of the code grows by an amount of its own, more for the slow ones."""

    id: ClassVar[str] = "ntk-mixed"
    summary: ClassVar[str] = "Su's NTK-RoPE-mixed: a mixed radix between position interpolation and ntk-fixed"
    paper: ClassVar[str] = (
        "Su, kexue.fm/archives/9706: theta'_m = theta_m exp(-a m^c), a (d/2)^c = ln s, m = 1..d/2; c = 0.625 advised there"
    )

    exponent: float = 0.625
    """c: 0 is position interpolation, 1 is `ntk-fixed`; Su's patch for Llama 2 uses 0.75."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.id, "exponent", self.exponent, above=0.0, inclusive=True)

    def frequencies(self, start: Start, factor: float) -> Frequencies:
        """inv_freq exp(-a m^c), float64 [rotary_dim/2]."""
        num_digits = start.rotary_dim // 2
        share = (np.arange(1, num_digits + 1, dtype=np.float64) / num_digits) ** self.exponent
        return turned(start, start.inv_freq * np.exp(-math.log(factor) * share))
