"""Ramps: which share of each frequency is kept and which is interpolated.

NTK-by-parts, YaRN and Llama 3 all blend theta and theta / s; they differ in the ramp between the dimensions that are kept
and those that are interpolated. Two ramps are in use under one name:

- `by_rotations`, the paper's (YaRN, arXiv:2309.00071v2, equations 17 and 18): linear in the turns a dimension makes inside
  the trained length. It needs a vector and a length, so it works on any vector. Llama 3's is this one.
- `by_index`, that of the released checkpoints and of the engines: linear in the index of the dimension, between the two
  indices where the turns are beta_fast and beta_slow. On a geometric vector those follow from the base; on any other
  (a model trained at its stretch) they are read off the vector itself, which is the same thing where both exist.

They agree only at their ends: for Llama 2 at s = 16 the frequencies differ by up to a factor of three.
"""

import math

import numpy as np

from ropewalk.core.errors import MethodError
from ropewalk.core.geometry import Start, Vector, rotations


def by_rotations(start: Start, *, slow: float, fast: float) -> Vector:
    """Share of each frequency that is kept: 0 at and below `slow` turns, 1 at and above `fast`; float64 [rotary_dim/2]."""
    return np.clip((rotations(start.inv_freq, start.length) - slow) / (fast - slow), 0.0, 1.0)


def by_index(start: Start, *, slow: float, fast: float, truncate: bool) -> Vector:
    """Share of each frequency that is kept, as checkpoints and engines compute it; float64 [rotary_dim/2].

    Raises `MethodError` for a base of 1 or less, where no index can be found from a number of turns.
    """
    if start.nominal_base <= 1.0:
        raise MethodError(f"ramp=index needs a base above 1, got {start.nominal_base:g}; use ramp=rotations")
    low, high = correction_range(start, slow=slow, fast=fast, truncate=truncate)
    # A range of no width would divide by zero; every implementation widens it by the same thousandth.
    if low == high:
        high += 0.001
    index = np.arange(start.rotary_dim // 2, dtype=np.float64)
    return 1.0 - np.clip((index - low) / (high - low), 0.0, 1.0)


def correction_range(start: Start, *, slow: float, fast: float, truncate: bool) -> tuple[float, float]:
    """The indices between which the ramp of `by_index` falls.

    Below 202 trained tokens (2 pi 32) no dimension turns 32 times and the lower end is pinned to 0. The upper end is
    clamped at rotary_dim - 1, although indices end at rotary_dim/2 - 1. Checkpoints were trained with both, so they are
    kept: a long trained length leaves the slowest dimensions partly uninterpolated here as it does there.
    """
    index_of = _index_by_base if start.base is not None else _index_by_vector
    low, high = index_of(start, fast), index_of(start, slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    return max(low, 0.0), min(high, start.rotary_dim - 1.0)


def _index_by_base(start: Start, turns: float) -> float:
    length_of_turn = start.length / (turns * 2.0 * math.pi)
    return start.rotary_dim * math.log(length_of_turn) / (2.0 * math.log(start.nominal_base))


def _index_by_vector(start: Start, turns: float) -> float:
    """Where the vector's own turns pass `turns`: linear in the logarithm between indices, as a geometric vector is.

    The last crossing counts, and the end slopes carry on beyond the ends.
    """
    heights = np.log(np.maximum(rotations(start.inv_freq, start.length), 1e-300)) - math.log(turns)
    if heights.size < 2:
        return 0.0
    above = np.flatnonzero(heights > 0.0)
    left = int(min(above[-1], heights.size - 2)) if above.size else 0
    slope = float(heights[left] - heights[left + 1])
    return left + float(heights[left]) / slope if slope > 0.0 else float(left)


def blend(inv_freq: Vector, factor: float, kept: Vector) -> Vector:
    """`kept` parts of `inv_freq` and the rest of `inv_freq / factor`; float64 [rotary_dim/2]."""
    return inv_freq / factor * (1.0 - kept) + inv_freq * kept
