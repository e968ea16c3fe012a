"""Shares of right answers with intervals that know that the answers of one haystack are not independent.

k questions to one haystack share its text, its needles and the model's mood for it, so n answers are worth fewer. With
intra-cluster correlation rho and m answers per haystack they are worth n / (1 + (m - 1) rho) (Kish 1965). rho is the ANOVA
estimate (Donner and Koval 1980), pooled over all cells of a task and a method, because one cell has too few haystacks to
tell; below ten haystacks it is not taken below 0.1. The interval is Wilson's (1927) on the effective n: it never has zero
width, which a bootstrap on a cell that is all right or all wrong does.

Scores between 0 and 1 (shares of references found) go through the same interval: their variance is at most that of a 0/1
answer of the same mean, so it is wide enough.

A paired difference has Agresti and Min's interval (Statistics in Medicine 24 (2005) 729, "Wald+2", N = 2) on its own
effective n, for the same reason: where every haystack differs alike, t over haystacks has no width at all. Where t over
haystacks is the wider one its end stands, so that few haystacks that disagree are not made to agree.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ropewalk.measure.statistics import MIN_CLUSTERS, student

Z = 1.959963984540054
"""97.5% point of the normal distribution."""
POCOCK = 2.361
"""Critical value of each of four equally spaced looks that keep 5% together (Pocock 1977)."""
FLOOR = 0.1
"""Least intra-cluster correlation below `FEW` haystacks."""
FEW = 10


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share with its interval."""

    value: float
    n: int
    """Answers."""
    num_clusters: int
    """Haystacks."""
    effective_n: float
    low: float
    high: float
    correlation: float


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A paired difference of two shares with its interval."""

    value: float
    stderr: float | None
    """Over haystacks; None below two."""
    low: float | None
    """None below `MIN_CLUSTERS` haystacks."""
    high: float | None
    effective_n: float


def wilson(share: float, n: float, z: float = Z) -> tuple[float, float]:
    """Wilson's interval for a `share` of `n` (which may be an effective, fractional number) at critical value `z`."""
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(max(0.0, share * (1 - share)) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # At the ends the formula gives 0 and 1 but for rounding.
    return (0.0 if share <= 0 else centre - half), (1.0 if share >= 1 else centre + half)


def correlation(cells: Sequence[Sequence[Sequence[float]]]) -> float:
    """Intra-cluster correlation pooled over cells; a cell is a list of haystacks, each a list of scores. In 0..1.

    Sums of squares between and within haystacks are added up over the cells, so that cells of different difficulty share
    one estimate. With one answer per haystack, or nothing that varies, there is no correlation to speak of: 0.
    """
    between = within = 0.0
    df_between = df_within = 0
    size_sum = 0.0
    for cell in cells:
        groups = [np.asarray(group, dtype=np.float64) for group in cell if len(group)]
        num = sum(g.size for g in groups)
        if len(groups) < 2 or num <= len(groups):
            continue
        mean = sum(float(g.sum()) for g in groups) / num
        between += sum(g.size * (float(g.mean()) - mean) ** 2 for g in groups)
        within += sum(float(np.square(g - g.mean()).sum()) for g in groups)
        df_between += len(groups) - 1
        df_within += num - len(groups)
        size_sum += num - sum(g.size**2 for g in groups) / num
    if not df_between or not df_within:
        return 0.0
    size = size_sum / df_between
    ms_between, ms_within = between / df_between, within / df_within
    total = ms_between + (size - 1) * ms_within
    return min(1.0, max(0.0, (ms_between - ms_within) / total)) if total > 0 else 0.0


def share(haystacks: Sequence[Sequence[float]], *, rho: float, z: float = Z) -> Share:
    """The share of a cell, given as its haystacks' scores, with Wilson's interval on the effective n.

    `rho` is the pooled correlation; below `FEW` haystacks it is raised to `FLOOR`.
    """
    sizes = [len(group) for group in haystacks if len(group)]
    num = sum(sizes)
    assert num, "a share needs at least one answer"
    rho = floored(rho, len(sizes))
    effective = effective_number(sizes, rho)
    value = sum(sum(group) for group in haystacks) / num
    low, high = wilson(value, effective, z)
    return Share(value=value, n=num, num_clusters=len(sizes), effective_n=effective, low=low, high=high, correlation=rho)


def floored(rho: float, num_haystacks: int) -> float:
    """The correlation that is taken: with few haystacks no less than `FLOOR`, as they cannot tell."""
    return max(rho, FLOOR) if num_haystacks < FEW else rho


def effective_number(sizes: Sequence[int], rho: float) -> float:
    """What the answers of haystacks of these sizes are worth at correlation `rho`."""
    # Unequal haystacks: the mean number of companions, an answer as the unit.
    companions = sum(size * size for size in sizes) / sum(sizes) - 1.0
    return sum(sizes) / (1.0 + companions * rho)


def ratio(top: Share, bottom: Share) -> tuple[float, float]:
    """Interval of top / bottom, both estimated, by recovering variances from their own intervals (Donner and Zou 2012).

    With a bottom that is 1 for sure it is `top`'s own interval. (0, inf) where the bottom may be 0.
    """
    if bottom.low <= 0.0 or bottom.value <= 0.0:
        return 0.0, math.inf
    product = top.value * bottom.value
    low = _side(product, top.low * bottom.high, (2 * top.value - top.low) * (2 * bottom.value - bottom.high))
    high = _side(product, top.high * bottom.low, (2 * top.value - top.high) * (2 * bottom.value - bottom.low))
    under = bottom.high * (2 * bottom.value - bottom.high)
    over = bottom.low * (2 * bottom.value - bottom.low)
    lowest = (product - low) / under if under > 0 else 0.0
    return max(0.0, lowest), (product + high) / over if over > 0 else math.inf


def _side(product: float, limits: float, mirrored: float) -> float:
    return math.sqrt(max(0.0, product * product - limits * mirrored))


def paired(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> tuple[float, float | None]:
    """Mean of first - second on the same questions, and its standard error over haystacks (None below two)."""
    sums = np.array([sum(a) - sum(b) for a, b in zip(first, second, strict=True)], dtype=np.float64)
    sizes = np.array([len(a) for a in first], dtype=np.float64)
    value = float(sums.sum() / sizes.sum())
    if sums.size < 2:
        return value, None
    residuals = (sums - value * sizes) / sizes.mean()
    return value, float(np.sqrt(np.square(residuals).sum() / (sums.size * (sums.size - 1))))


def difference(
    first: Sequence[Sequence[float]], second: Sequence[Sequence[float]], *, rho: float, z: float = Z
) -> Difference:
    """first - second on the same questions, haystack by haystack; `rho` is the correlation of the differences."""
    value, stderr = paired(first, second)
    sizes = [len(group) for group in first if len(group)]
    effective = effective_number(sizes, floored(rho, len(sizes)))
    if stderr is None or len(sizes) < MIN_CLUSTERS:
        return Difference(value=value, stderr=stderr, low=None, high=None, effective_n=effective)
    square = sum((a - b) ** 2 for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True)) / sum(sizes)
    critical = max(z, student(len(sizes)))
    low, high = agresti_min(value, square, effective, critical)
    return Difference(
        value=value, stderr=stderr, effective_n=effective, low=max(-1.0, min(low, value - critical * stderr)),
        high=min(1.0, max(high, value + critical * stderr)),
    )  # fmt: skip


def agresti_min(mean: float, square: float, n: float, z: float = Z) -> tuple[float, float]:
    """Interval of a paired difference from mean and mean square over `n` pairs: half a pair more in each of four cells."""
    centre = mean * n / (n + 2)
    spread = math.sqrt(max(0.0, (square * n + 1.0) / (n + 2) - centre * centre) / (n + 2))
    return centre - z * spread, centre + z * spread
