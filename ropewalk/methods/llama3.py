"""Llama 3's scaling: NTK-by-parts with the paper's ramp, one turn and four turns for its ends, and no temperature.

Why: Llama 3.1 and 3.2 were trained further with it, so a host that knows one name besides YaRN knows this one. What is
given up: the bounds come from a grid search at s = 8 over 8192 tokens, and no paper argues for them.

Source: apply_scaling in meta-llama/llama-models, for the models of "The Llama 3 Herd of Models", arXiv:2407.21783.
Equation: theta' = (1 - g) theta / s + g theta with g = clip((L/lambda - low) / (high - low), 0, 1).
"""

import dataclasses
from typing import ClassVar

from ropewalk.core.geometry import Geometry, Start
from ropewalk.core.method import require
from ropewalk.core.plan import Frequencies, Native
from ropewalk.methods import ramp
from ropewalk.methods.stretch import Stretch, turned


@dataclasses.dataclass(frozen=True, kw_only=True)
class Llama3(Stretch):
    """Frequencies above `high_freq_factor` turns kept, those below `low_freq_factor` divided by s, a blend between."""

    id: ClassVar[str] = "llama3"
    summary: ClassVar[str] = "Llama 3's scaling: NTK-by-parts between one and four turns, no temperature"
    paper: ClassVar[str] = (
        "Llama 3, arXiv:2407.21783, and llama-models: theta' = (1 - g) theta / s + g theta, "
        "g = clip((L/lambda - low) / (high - low), 0, 1)"
    )

    low_freq_factor: float = 1.0
    """Turns inside the trained length at and below which a frequency is divided by s."""
    high_freq_factor: float = 4.0
    """Turns inside the trained length at and above which a frequency is kept."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.id, "low_freq_factor", self.low_freq_factor, above=0.0)
        require(self.id, "high_freq_factor", self.high_freq_factor, above=self.low_freq_factor)

    def frequencies(self, start: Start, factor: float) -> Frequencies:
        """The blend, float64 [rotary_dim/2]."""
        kept = ramp.by_rotations(start, slow=self.low_freq_factor, fast=self.high_freq_factor)
        return turned(start, ramp.blend(start.inv_freq, factor, kept))

    def native(self, geometry: Geometry, factor: float) -> Native | None:
        """`llama3`."""
        options = {
            "factor": factor,
            "original_length": geometry.start_length,
            "low_freq_factor": self.low_freq_factor,
            "high_freq_factor": self.high_freq_factor,
        }
        return Native(name="llama3", options=options)
