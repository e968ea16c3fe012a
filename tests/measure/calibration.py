"""Stub models with planted recall: answers drawn from a known curve, clustered by haystack."""

from dataclasses import dataclass

import numpy as np

from ropewalk.measure.effective import THRESHOLD, EffectiveLength, effective_length
from ropewalk.measure.shares import Share, correlation, share

LENGTHS = (1024, 1536, 2048, 3072, 4096, 6144, 8192)
CURVES = {
    "flat": (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
    "gentle": (1.0, 0.99, 0.98, 0.97, 0.96, 0.95, 0.94),
    "just below": (1.0, 1.0, 0.98, 0.84, 0.84, 0.84, 0.84),
    "dip": (1.0, 1.0, 0.80, 1.0, 1.0, 1.0, 1.0),
    "cliff": (1.0, 1.0, 1.0, 1.0, 0.3, 0.05, 0.0),
    "slope": (1.0, 0.96, 0.92, 0.88, 0.84, 0.80, 0.76),
}
"""Planted s(L) / s0 at each of `LENGTHS`."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """How much a simulated run asks."""

    base: float = 0.97
    num_haystacks: int = 24
    num_questions: int = 11
    rho: float = 0.2


def draw(rng, mean, design):
    """A cell: per haystack its 0/1 answers, beta-binomial with the planted mean and correlation."""
    mean = min(1.0, mean)
    if mean in (0.0, 1.0) or design.rho == 0.0:
        levels = np.full(design.num_haystacks, mean)
    else:
        strength = 1.0 / design.rho - 1.0
        levels = rng.beta(mean * strength, (1 - mean) * strength, design.num_haystacks)
    return (rng.random((design.num_haystacks, design.num_questions)) < levels[:, None]).astype(float)


def simulate(rng, curve, design) -> tuple[EffectiveLength, dict[int, Share], Share]:
    """One run: the untouched model's short cell, and the method's cell at every length."""
    cells = [draw(rng, design.base * part, design) for part in curve]
    base_cell = draw(rng, design.base, design)
    rho = correlation([*cells])
    base = share(base_cell, rho=correlation([base_cell]))
    shares = {length: share(cell, rho=rho) for length, cell in zip(LENGTHS, cells, strict=True)}
    return effective_length(shares, base), shares, base


def planted(curve) -> int | None:
    """The true effective length of a curve."""
    last = None
    for length, part in zip(LENGTHS, curve, strict=True):
        if part < THRESHOLD:
            break
        last = length
    return last
