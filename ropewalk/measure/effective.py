"""How far a model really reads, as one number that is certified or refused.

**Effective length** of one task family: the largest length L of a fixed grid such that at *every* grid length up to L the
lower 95% bound of s(L') / s0 is at least 0.85. s0 is the *untouched* model's score at short length: measured against its
own, a method that ruins short retrieval would gain by it. The bound is of the ratio, since s0 is an estimate too. It is
censored at the grid's end ("at least"), and refused where it cannot be had: s0 at guess level, or too few answers (with
everything right it takes 22). The upper end of its interval is the largest L up to which no upper bound is below 0.85.

Beside it stands RULER's rule (arXiv:2404.06654, section 4): an absolute threshold on the point estimate. The factor 0.85 is
NoLiMa's (arXiv:2502.05167); theirs is on point estimates of one model against itself.

**SAFE** and **USE** are the likelihood's lengths, on the same target tokens as the cropping baseline: SAFE the largest
length up to which reading everything is nowhere worse than cropping by more than a stated margin, USE the largest length at
which reading everything is better than cropping.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ropewalk.core.errors import InputError
from ropewalk.measure.shares import Share, ratio, wilson

THRESHOLD = 0.85
RULER_THRESHOLD = 0.856
"""Llama-2-7B-chat's mean score at 4k, which RULER takes for every model."""
SAFE_MARGIN = 0.05
"""Nats per token by which reading everything may be worse than cropping and still be called safe."""


@dataclass(frozen=True, kw_only=True)
class EffectiveLength:
    """The number, or why there is none. Lengths are tokens."""

    value: int | None
    """None where it is refused, or where not even the shortest length is certified."""
    low: int | None
    """The same as `value`: what is certified is the lower end."""
    high: int | None
    """The largest tested length that is not ruled out."""
    censored: bool
    """Whether `value` is the longest length that was tested: "at least"."""
    point: int | None
    """The rule on point estimates, without any interval."""
    ruler: int | None
    """RULER's rule: the largest length whose score passes its absolute threshold."""
    base: Share
    refused: str | None
    """Why there is no number."""


def grid(shortest: int, longest: int) -> tuple[int, ...]:
    """Lengths 2^k and 3 * 2^(k-1) from `shortest` to `longest`, both included where they are on it."""
    found = {n for k in range(1, 40) for n in (2**k, 3 * 2 ** (k - 1)) if shortest <= n <= longest}
    return tuple(sorted(found))


def on_grid(length: int) -> bool:
    """Whether a length is of the form 2^k or 3 * 2^(k-1)."""
    return length in grid(length, length)


def effective_length(scores: Mapping[int, Share], base: Share, *, guess: float = 0.0) -> EffectiveLength:
    """The effective length of one family from its shares by length, against the untouched model's short share `base`.

    Raises `InputError` where a length is not on the grid, or one between the shortest and the longest is missing: whoever
    tests fewer lengths would game the number.
    """
    lengths = sorted(scores)
    missing = sorted(set(grid(lengths[0], lengths[-1])) - set(lengths))
    if missing or not all(on_grid(length) for length in lengths):
        off = missing or [length for length in lengths if not on_grid(length)]
        raise InputError(
            f"an effective length needs every length of the grid 2^k, 3*2^(k-1) from {lengths[0]} to {lengths[-1]}, "
            f"and none beside it; got a gap or an odd length at {off[0]}"
        )
    refused = _refusal(base, guess)
    bounds = {length: ratio(scores[length], base) for length in lengths}
    value = _last(lengths, {n: bounds[n][0] >= THRESHOLD for n in lengths}) if refused is None else None
    return EffectiveLength(
        value=value,
        low=value,
        high=_last(lengths, {n: bounds[n][1] >= THRESHOLD for n in lengths}) if refused is None else None,
        censored=value == lengths[-1],
        point=_last(lengths, {n: scores[n].value >= THRESHOLD * base.value for n in lengths}),
        ruler=max((n for n in lengths if scores[n].value > RULER_THRESHOLD), default=None),
        base=base,
        refused=refused,
    )


def _refusal(base: Share, guess: float) -> str | None:
    error = math.sqrt(max(base.value * (1 - base.value), 1e-12) / base.effective_n)
    if base.low <= guess or base.value < guess + 3 * error:
        return (
            f"the untouched model's short score is {base.value:.2f} [{base.low:.2f}, {base.high:.2f}], "
            f"not above a guess ({guess:.2f}): the task is not solved even at short length"
        )
    if ratio(base, base)[0] < THRESHOLD:
        needed = needed_n(base.value)
        return (
            f"an effective number of {base.effective_n:.0f} answers cannot certify {THRESHOLD:.0%} of a short score of "
            f"{base.value:.2f}, even where nothing is lost; it takes about {needed}"
        )
    return None


def needed_n(value: float, longest: int = 1_000_000) -> int | None:
    """The least effective n at which an unchanged share `value` is certified; 22 for 1."""
    low, high = 1, longest
    if not _certifies(value, high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _certifies(value, middle) else (middle + 1, high)
    return low


def _certifies(value: float, n: int) -> bool:
    ends = wilson(value, n)
    same = Share(value=value, n=n, num_clusters=n, effective_n=n, low=ends[0], high=ends[1], correlation=0.0)
    return ratio(same, same)[0] >= THRESHOLD


def _last(lengths: Sequence[int], passes: Mapping[int, bool]) -> int | None:
    """The last length before the first that does not pass."""
    last = None
    for length in lengths:
        if not passes[length]:
            break
        last = length
    return last


@dataclass(frozen=True, kw_only=True)
class Reach:
    """SAFE and USE lengths, tokens; None where nothing is certified."""

    safe: int | None
    use: int | None


def reach(gains: Mapping[int, tuple[float | None, float | None]], *, margin: float = SAFE_MARGIN) -> Reach:
    """SAFE and USE from the interval (low, high) of the paired gain over cropping, nats per token, by context length.

    A length without an interval certifies nothing, and ends SAFE.
    """
    lengths = sorted(gains)
    safe = _last(lengths, {n: (low := gains[n][0]) is not None and low >= -margin for n in lengths})
    use = max((n for n in lengths if (low := gains[n][0]) is not None and low > 0.0), default=None)
    return Reach(safe=safe, use=use)
