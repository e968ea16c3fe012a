"""ABF, adjusted base frequency: a larger base, and nothing else.

Why: Llama 2 Long found that raising the base from 10,000 to 500,000 was the one change to RoPE that continued training
needed. What is given up: their 500,000 was chosen for one model and came without a formula, so without `base` we compute
one by the critical base of Liu et al., "Scaling Laws of RoPE-based Extrapolation", arXiv:2310.05209: the dimension that
makes just one turn inside the trained length L must make just one turn inside L', which gives

    ln b' / ln b = ln(L' / 2 pi) / ln(L / 2 pi).

We take that rule because it starts from the model's own base, is the identity at L' = L, and has no constant to fit. It
asks for more than `ntk` (Llama 2 at s = 8: 192 thousand beside 83) and less than Meta's choice.

Paper: Xiong et al., "Effective Long-Context Scaling of Foundation Models", arXiv:2309.16039. The current vector
is multiplied by (b'/b)^(-2i/d), so a vector that is not geometric keeps what else was done to it.
"""

import dataclasses
import math
from typing import ClassVar

import numpy as np

from ropewalk.core.errors import MethodError
from ropewalk.core.geometry import Geometry, Start
from ropewalk.core.method import Method, require
from ropewalk.core.plan import Frequencies, Native
from ropewalk.methods.stretch import turned

ONE_TURN = 2.0 * math.pi
"""Tokens in which the fastest dimension turns once: the rule is undefined for a model trained on fewer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdjustedBase(Method):
    """Another base, given or computed from the length."""

    id: ClassVar[str] = "abf"
    summary: ClassVar[str] = "adjusted base frequency: a larger base, given or from the critical dimension"
    paper: ClassVar[str] = (
        "ABF, arXiv:2309.16039: theta'_i = b'^(-2i/d); without a base, "
        "ln b' / ln b = ln(L'/2 pi) / ln(L/2 pi), arXiv:2310.05209"
    )

    base: float | None = None
    """b', above 1, whatever the length; where nothing is said, the critical base for the length."""

    def __post_init__(self) -> None:
        if self.base is not None:
            require(self.id, "base", self.base, above=1.0)

    @property
    def fixes_strength(self) -> bool:
        """Whether the base is given, so that it holds at short lengths too."""
        return self.base is not None

    def strength(self, geometry: Geometry, length: int) -> float:
        """The length over that of the start; at least 1, since a given base is no shrinking."""
        return max(1.0, length / geometry.start_length)

    def new_base(self, start: Start, factor: float) -> float:
        """b' for one group. Raises `MethodError` for a model trained on fewer tokens than one turn takes."""
        if self.base is not None:
            return self.base
        if start.length <= ONE_TURN:
            raise MethodError(
                f"abf computes a base only for models trained on at least 7 tokens, got {start.length}; say abf:base=..."
            )
        growth = math.log(start.length * factor / ONE_TURN) / math.log(start.length / ONE_TURN)
        return float(start.nominal_base**growth)

    def frequencies(self, start: Start, factor: float) -> Frequencies:
        """inv_freq (b'/b)^(-2i/d), float64 [rotary_dim/2]."""
        index = np.arange(start.rotary_dim // 2, dtype=np.float64)
        growth = self.new_base(start, factor) / start.nominal_base
        return turned(start, start.inv_freq * growth ** (-2.0 * index / start.rotary_dim))

    def native(self, geometry: Geometry, factor: float) -> Native | None:
        """`default` with another base, where one base serves all extended groups."""
        bases = {self.new_base(geometry.start(group), factor) for group in geometry.extended_groups}
        return Native(name="default", options={"base": bases.pop()}) if len(bases) == 1 else None
