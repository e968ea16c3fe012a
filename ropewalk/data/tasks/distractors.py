"""What stands beside a needle: others that nobody asks for, and what its value is ranked among.

Some tasks mean nothing with one needle: whoever finds the odd sentence has the answer without having understood it. They
plant others of the same form beside it, away from the depths that are asked.
"""

from collections.abc import Sequence
from uuid import UUID

import numpy as np

NUM_PLACES = 64
"""Depths to choose from."""
APART = 1 / 40
"""Between two needles, as a share of the context, where there is room for it."""


def spare_depths(rng: np.random.Generator, depths: Sequence[float], num: int) -> tuple[float, ...]:
    """`num` depths, away from `depths` and from one another as long as that can be done."""
    chosen: list[float] = []
    for place in rng.permutation(NUM_PLACES):
        depth = (float(place) + 0.5) / NUM_PLACES
        if len(chosen) < num and all(abs(depth - other) > APART for other in (*depths, *chosen)):
            chosen.append(depth)
    while len(chosen) < num:
        chosen.append(float(rng.random()))
    return tuple(chosen)


def rivals(rng: np.random.Generator, true: str, others: Sequence[str], num: int) -> list[str]:
    """At most `num` different strings of `others` that the true one is ranked among."""
    known = sorted(set(others) - {true})
    return [known[i] for i in rng.permutation(len(known))[:num]]


def uuid(rng: np.random.Generator) -> str:
    """A random UUID; the same on every machine."""
    return str(UUID(bytes=rng.bytes(16), version=4))
