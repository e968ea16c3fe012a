"""Position interpolation: squeeze all positions into the trained range.

Why: no angle is ever seen that was not trained. What is given up: resolution, since neighbouring tokens come s times
closer in every dimension, also in the fast ones that tell neighbours apart; without tuning that costs likelihood at every
length.

Paper: Chen et al., arXiv:2306.15595, section 2.3: f'(x, m) = f(x, m L / L'); the same as dividing every frequency by
s = L'/L.
"""

import dataclasses
from typing import ClassVar

from ropewalk.core.geometry import Geometry, Start
from ropewalk.core.plan import Frequencies, Native
from ropewalk.methods.stretch import Stretch, turned


@dataclasses.dataclass(frozen=True, kw_only=True)
class PositionInterpolation(Stretch):
    """Every frequency divided by s."""

    id: ClassVar[str] = "pi"
    summary: ClassVar[str] = "position interpolation: every frequency divided by the stretch"
    paper: ClassVar[str] = "Position Interpolation, arXiv:2306.15595, section 2.3: theta'_i = theta_i / s"

    def frequencies(self, start: Start, factor: float) -> Frequencies:
        """inv_freq / factor, float64 [rotary_dim/2]."""
        return turned(start, start.inv_freq / factor)

    def native(self, geometry: Geometry, factor: float) -> Native | None:
        """`linear`."""
        return Native(name="linear", options={"factor": factor})
