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
which reading everything is better than cropping. SAFE goes from length to length and ends at the first that fails, so each
at 2.5% keeps 2.5% for all. USE picks one of many, so its lengths are tested together by Holm (1979), at 2.5% one-sided.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ropewalk.core.errors import InputError
from ropewalk.measure.shares import Share, ratio, wilson
from ropewalk.measure.statistics import student, upper_tail

THRESHOLD = 0.85
RULER_THRESHOLD = 0.856
"""Llama-2-7B-chat's mean score at 4k, which RULER takes for every model."""
SAFE_MARGIN = 0.05
"""Nats per token by which reading everything may be worse than cropping and still be called safe."""
ONE_SIDED = 0.025
"""Of no gain anywhere, how often a USE length is certified at most."""
MANY = 1000
"""Clusters at which Student's t is the normal distribution."""


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


def effective_length(
    scores: Mapping[int, Share], base: Share, *, guess: float = 0.0, control: Share | None = None
) -> EffectiveLength:
    """The effective length of one family from its shares by length, against the untouched model's short share `base`.

    `guess` is what a guesser gets right by the task's rule, `control` what was found without any text.

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
    refused = _refusal(base, guess, control)
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


def _refusal(base: Share, guess: float, control: Share | None) -> str | None:
    score = f"the untouched model's short score is {base.value:.2f} [{base.low:.2f}, {base.high:.2f}]"
    if _at(base, guess):
        return f"{score}, not above a guess ({guess:.2f}): the task is not solved even at short length"
    if ratio(base, base)[0] < THRESHOLD:
        needed = needed_n(base.value)
        return (
            f"an effective number of {base.effective_n:.0f} answers cannot certify {THRESHOLD:.0%} of a short score of "
            f"{base.value:.2f}, even where nothing is lost; it takes about {needed}"
        )
    if control is not None and _at(base, control.high):
        return (
            f"{score}, not above what is found without the text ({control.value:.2f}, perhaps {control.high:.2f}): "
            "guessed or known, not read"
        )
    return None


def _at(base: Share, guess: float) -> bool:
    """Whether a short score is not told apart from a guess."""
    error = math.sqrt(max(base.value * (1 - base.value), 1e-12) / base.effective_n)
    return base.low <= guess or base.value < guess + 3 * error


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


def reach(
    gains: Mapping[int, tuple[float | None, float | None]], *, num_clusters: Mapping[int, int] | None = None,
    margin: float = SAFE_MARGIN,
) -> Reach:  # fmt: skip
    """SAFE and USE from the interval (low, high) of the paired gain over cropping, nats per token, by context length.

    `num_clusters` is what each interval's t rests on; many where nothing is said. A length without an interval certifies
    nothing, and ends SAFE.
    """
    lengths = sorted(gains)
    safe = _last(lengths, {n: (low := gains[n][0]) is not None and low >= -margin for n in lengths})
    chances = {
        n: _chance(low, high, (num_clusters or {}).get(n, MANY))
        for n, (low, high) in gains.items()
        if low is not None and high is not None
    }
    return Reach(safe=safe, use=max(_holm(chances), default=None))


def _chance(low: float, high: float, num_clusters: int) -> float:
    """How likely so large a gain is where there is none, from its interval at 95%."""
    middle, half = (low + high) / 2, (high - low) / 2
    if half == 0.0:
        return 0.0 if middle > 0.0 else 1.0
    return upper_tail(middle / half * student(num_clusters), num_clusters)


def _holm(chances: Mapping[int, float]) -> list[int]:
    """Lengths whose gain is above zero, tested together: the likeliest first, until one fails."""
    found: list[int] = []
    for length, chance in sorted(chances.items(), key=lambda item: item[1]):
        if chance > ONE_SIDED / (len(chances) - len(found)):
            break
        found.append(length)
    return found
