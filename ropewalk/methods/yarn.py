"""NTK-by-parts and YaRN: keep what turns often, interpolate what never turned once, blend between.

Why: a dimension that made many turns in training has seen every angle and only tells relative positions, so stretching it
costs resolution and buys nothing; one that made less than a turn would meet new angles, so it must be interpolated. Reading
more tokens also flattens attention, and YaRN's temperature sharpens it again: without tuning that is most of its gain.

What is given up: the constants (32 and 1 turns, 0.1 ln s + 1) were fitted on LLaMA models; they are options here. The ramp
of the paper and that of the released code differ, see `ramp`.

Paper: YaRN, arXiv:2309.00071v2, equations 17 to 20 (by parts) and 21 to 22 (temperature).
"""

import dataclasses
import math
from typing import Any, ClassVar, Literal

from ropewalk.core.errors import MethodError
from ropewalk.core.geometry import Geometry, Start, Vector
from ropewalk.core.method import require
from ropewalk.core.plan import Frequencies, Native
from ropewalk.methods import ramp as ramps
from ropewalk.methods.stretch import Stretch, turned

PUBLISHED_TEMPERATURE = 0.1
"""YaRN, arXiv:2309.00071v2, equation 22."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NtkByParts(Stretch):
    """Fast dimensions kept, slow ones interpolated, a ramp between."""

    id: ClassVar[str] = "ntk-by-parts"
    summary: ClassVar[str] = "NTK-by-parts: fast dimensions kept, slow ones interpolated, a ramp between"
    paper: ClassVar[str] = (
        "NTK-by-parts, in YaRN, arXiv:2309.00071v2, equations 17 to 20: theta'_i = (1 - g_i) theta_i / s + g_i theta_i"
    )

    ramp: Literal["index", "rotations"] = "index"
    """What the ramp is linear in: `index`, as in checkpoints and engines, or `rotations`, as in the paper."""
    truncate: bool = True
    """Whether the ends of the `index` ramp are rounded outwards to whole indices; `rotations` has none to round."""
    beta_fast: float = 32.0
    """Turns inside the trained length at and above which a dimension is kept."""
    beta_slow: float = 1.0
    """Turns inside the trained length at and below which a dimension is interpolated fully."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.id, "beta_slow", self.beta_slow, above=0.0)
        require(self.id, "beta_fast", self.beta_fast, above=self.beta_slow)

    def blended(self, start: Start, factor: float) -> Vector:
        """The frequencies without any temperature, float64 [rotary_dim/2]."""
        if self.ramp == "rotations":
            kept = ramps.by_rotations(start, slow=self.beta_slow, fast=self.beta_fast)
        else:
            kept = ramps.by_index(start, slow=self.beta_slow, fast=self.beta_fast, truncate=self.truncate)
        return ramps.blend(start.inv_freq, factor, kept)

    def frequencies(self, start: Start, factor: float) -> Frequencies:
        """The blend, float64 [rotary_dim/2], and no temperature."""
        return turned(start, self.blended(start, factor))

    def native(self, geometry: Geometry, factor: float) -> Native | None:
        """`yarn` with an attention factor of 1, or `llama3` for the ramp of the paper, which is the same blend."""
        if self.ramp == "rotations":
            return self.native_rotations(geometry, factor)
        return Native(name="yarn", options=self.native_index(geometry, factor, attention_factor=1.0, logit_scale=1.0))

    def native_rotations(self, geometry: Geometry, factor: float) -> Native:
        """Llama 3's blend with our betas for its bounds."""
        options = {
            "factor": factor,
            "original_length": geometry.start_length,
            "low_freq_factor": self.beta_slow,
            "high_freq_factor": self.beta_fast,
        }
        return Native(name="llama3", options=options)

    def native_index(
        self, geometry: Geometry, factor: float, *, attention_factor: float, logit_scale: float
    ) -> dict[str, Any]:
        """What a host needs to know to spell the `index` ramp."""
        return {
            "factor": factor,
            "original_length": geometry.start_length,
            "beta_fast": self.beta_fast,
            "beta_slow": self.beta_slow,
            "truncate": self.truncate,
            "attention_factor": attention_factor,
            "logit_scale": logit_scale,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Yarn(NtkByParts):
    """NTK-by-parts with a temperature on the attention logits."""

    id: ClassVar[str] = "yarn"
    summary: ClassVar[str] = "YaRN: NTK-by-parts with a temperature on the attention logits"
    paper: ClassVar[str] = "YaRN, arXiv:2309.00071v2, equations 17 to 22: logits times m^2, m = sqrt(1/t) = 0.1 ln s + 1"

    temperature: float = PUBLISHED_TEMPERATURE
    """k in m = k ln s + 1: 0 for no temperature; the paper fitted 0.1 on LLaMA models."""
    attention_factor: float | None = None
    """m itself, in place of k ln s + 1."""
    temperature_on: Literal["auto", "rotated", "logits"] = "auto"
    """Where m goes: on cos and sin (`rotated`: m each, rotated dimensions only), squared on the whole q.k (`logits`), or
    where the model's family expects it (`auto`)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.id, "temperature", self.temperature, above=0.0, inclusive=True)
        if self.attention_factor is None:
            return
        require(self.id, "attention_factor", self.attention_factor, above=0.0)
        if self.temperature != PUBLISHED_TEMPERATURE:
            raise MethodError(
                f"yarn:attention_factor={self.attention_factor:g} leaves temperature={self.temperature:g} unused; "
                "give one of the two"
            )

    def magnitude(self, factor: float) -> float:
        """m, by which cos and sin are multiplied: 1 at a factor of 1 or less, unless `attention_factor` says it."""
        if self.attention_factor is not None:
            return self.attention_factor
        return self.temperature * math.log(factor) + 1.0 if factor > 1.0 else 1.0

    def strengths(self, start: Start, factor: float) -> tuple[float, float]:
        """What goes on cos and sin, and what goes on the whole q.k."""
        on = start.temperature_on if self.temperature_on == "auto" else self.temperature_on
        m = self.magnitude(factor)
        return (m, 1.0) if on == "rotated" else (1.0, m * m)

    def frequencies(self, start: Start, factor: float) -> Frequencies:
        """The blend, float64 [rotary_dim/2], and the temperature."""
        attention_factor, logit_scale = self.strengths(start, factor)
        return turned(start, self.blended(start, factor), attention_factor=attention_factor, logit_scale=logit_scale)

    def native(self, geometry: Geometry, factor: float) -> Native | None:
        """`yarn`; for the ramp of the paper only without a temperature, since no native name has both."""
        strengths = {self.strengths(geometry.start(group), factor) for group in geometry.extended_groups}
        if len(strengths) != 1:
            return None
        attention_factor, logit_scale = strengths.pop()
        if self.ramp == "rotations":
            plain = attention_factor == 1.0 and logit_scale == 1.0
            return self.native_rotations(geometry, factor) if plain else None
        options = self.native_index(geometry, factor, attention_factor=attention_factor, logit_scale=logit_scale)
        return Native(name="yarn", options=options)
