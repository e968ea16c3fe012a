"""What the methods of one strength share: the option `factor`, and the word they end in.

A method of one strength takes a single number s, by default the length asked over the length of the start. Fixing s by an
option makes the plan the same at every length, which is what a checkpoint carries.
"""

import dataclasses

from ropewalk.core.geometry import Start, Vector
from ropewalk.core.method import Method, require
from ropewalk.core.plan import Frequencies


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stretch(Method):
    """Base of the methods that stretch by one factor."""

    factor: float | None = None
    """The stretch s >= 1, whatever the length; where nothing is said, the length asked over the length of the start."""

    def __post_init__(self) -> None:
        if self.factor is not None:
            require(self.id, "factor", self.factor, above=1.0, inclusive=True)


def turned(start: Start, inv_freq: Vector, *, attention_factor: float = 1.0, logit_scale: float = 1.0) -> Frequencies:
    """The word for `inv_freq`, with its temperature multiplied onto the one that `start` has on already."""
    return Frequencies(
        inv_freq=inv_freq,
        attention_factor=start.attention_factor * attention_factor,
        logit_scale=start.logit_scale * logit_scale,
    )
