"""What of each source is learned from: target shares, and how much of it is short.

A document is *short* if it fits into the old window (or into a row, where rows are shorter): it cannot teach to read beyond
it, but without short ones the model forgets what it could do inside. By default at most 40% of the tokens are short: the
proportion that ProLong found best (arXiv:2410.02660); the domains stay as they are, long documents are preferred inside each
(arXiv:2402.10171). Where shares are stated, they come first, and a source of which less is taken gives of its long and its
short documents in proportion, up to that limit. The limit is for learning to read further: where short documents are what is
meant, the caller says another one.

Nothing is repeated: a target is met by leaving documents out, chosen by the seed, and what is left out is counted. Of the
last long document that is taken only the beginning may be.

Given up: repeating a small source until its share is met. Say a smaller share, or hand in more of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ropewalk.core.errors import InputError, near

SHORT_SHARE = 0.4
Amounts = NDArray[np.float64]
"""[num_sources, 2] tokens: long, short."""


@dataclass(frozen=True, kw_only=True)
class Mix:
    """How much of what is wanted."""

    shares: Mapping[str, float] = field(default_factory=dict)
    """Source to its share of the tokens, in any unit; none: as the sources are."""
    short_share: float | None = None
    """Largest share of the tokens in short documents; not said: 0.4, what stated shares need, or no limit at all."""
    keep_short: float | None = None
    """Probability with which a short document is kept, in place of a share."""

    def __post_init__(self) -> None:
        for name in ("short_share", "keep_short"):
            value = getattr(self, name)
            if value is not None and not 0.0 <= value <= 1.0:
                raise InputError(f"--{name.replace('_', '-')} lies between 0 and 1, got {value}")
        if self.short_share is not None and self.keep_short is not None:
            raise InputError("--short-share and --keep-short contradict each other; say one of them")
        wrong = [name for name, share in self.shares.items() if not 0.0 <= share < float("inf")]
        if wrong or (self.shares and not sum(self.shares.values())):
            raise InputError(f"the shares of --mix are numbers of at least 0 and not all 0; got {dict(self.shares)}")

    def most_short(self, limit: float) -> float:
        """The largest share of the tokens in short documents; `limit` where nothing is said of it."""
        if self.keep_short is not None:
            return 1.0
        return limit if self.short_share is None else self.short_share

    def vector(self, names: Sequence[str]) -> NDArray[np.float64] | None:
        """The shares of the named sources, adding up to 1. Raises `InputError` for a name too many or too few."""
        if not self.shares:
            return None
        for name in self.shares:
            if name not in names:
                raise InputError(f"--mix names {name!r}, which is no source; {near(name, names, options=False)}")
        missing = [name for name in names if name not in self.shares]
        if missing:
            raise InputError(f"--mix says nothing of {', '.join(missing)}; give every source a share, 0 to leave it out")
        wanted = np.asarray([self.shares[name] for name in names], dtype=np.float64)
        return np.asarray(wanted / wanted.sum())


def choose(
    lengths: NDArray[np.int64], sources: NDArray[np.int64], names: Sequence[str], *, short: int, mix: Mix, seed: int,
    limit: float = SHORT_SHARE,
) -> NDArray[np.int64]:  # fmt: skip
    """How many tokens of each document are kept, from its beginning: all, some, or 0. Short is at most `short` tokens.

    `limit` is the largest share of short ones where the mix says none.
    """
    is_short = lengths <= short
    there = np.ones(lengths.size, dtype=np.bool_)
    if mix.keep_short is not None:
        there = ~is_short | (np.random.default_rng([seed, 1]).random(lengths.size) < mix.keep_short)
    pools = [[np.flatnonzero(there & (sources == i) & (is_short == c)) for c in (False, True)] for i in range(len(names))]
    have = np.asarray([[lengths[pool].sum() for pool in pair] for pair in pools], dtype=np.float64).reshape(-1, 2)
    want = targets(have, mix, names, limit)
    kept = np.zeros_like(lengths)
    for i, pair in enumerate(pools):
        for c, pool in enumerate(pair):
            order = np.random.default_rng([seed, 2, i, c]).permutation(pool)
            _take(kept, lengths, order, int(want[i, c] + 0.5), cut_above=0 if c else short)
    return kept


def _take(kept: NDArray[np.int64], lengths: NDArray[np.int64], order: NDArray[np.int64], want: int, cut_above: int) -> None:
    """Whole documents in order while they fit; where `cut_above` is said, the beginning of the next if it is longer."""
    ends = np.cumsum(lengths[order])
    whole = int(np.searchsorted(ends, want, side="right"))
    kept[order[:whole]] = lengths[order[:whole]]
    rest = want - (int(ends[whole - 1]) if whole else 0)
    if cut_above and whole < order.size and rest > cut_above:
        kept[order[whole]] = rest


def targets(have: Amounts, mix: Mix, names: Sequence[str], limit: float = SHORT_SHARE) -> Amounts:
    """How many long and short tokens of each source the mix takes: as many as the shares allow."""
    shares = mix.vector(names)
    most = mix.most_short(limit)
    if shares is None:
        return _short_reduced(have, most)
    lacking = [name for name, share, own in zip(names, shares, have.sum(axis=1), strict=True) if share > 0 and own == 0]
    if lacking:
        raise InputError(f"--mix gives {lacking[0]} a share, and there is no document in it; give it 0 or hand in others")
    only_short = min(1.0, float(shares[have[:, 0] == 0].sum()))
    if only_short > most:
        if mix.short_share is not None:
            raise InputError(
                f"--mix gives {only_short:.0%} to sources without a long document, and --short-share allows {most:.0%}; "
                "raise it, or give those a smaller share"
            )
        most = only_short
    return _shared(have, shares, most)


def _short_reduced(have: Amounts, limit: float) -> Amounts:
    """All that is long, and of what is short the same part of every source."""
    long, short = have.sum(axis=0)
    if long == 0 or limit == 1.0 or short == 0:
        return have
    return np.asarray(have * [1.0, min(1.0, limit / (1 - limit) * long / short)])


def _shared(have: Amounts, shares: NDArray[np.float64], limit: float) -> Amounts:
    """The largest mix with these shares of which at most `limit` is short.

    Of each source its long and short documents are left out in proportion, and where that is more short ones than the limit
    allows, short ones instead of long ones.
    """
    used = shares > 0
    own = have.sum(axis=1)
    low, high = 0.0, float((own[used] / shares[used]).min())
    for _ in range(80):
        total = (low + high) / 2
        least = np.maximum(0.0, shares * total - have[:, 0]).sum()
        # The part that must be short grows faster than the limit, so what fits is one interval from 0.
        low, high = (total, high) if least <= limit * total * (1 + 1e-12) else (low, total)
    wanted = shares * low
    least = np.maximum(0.0, wanted - have[:, 0])
    # A source's own proportion never needs more short ones than it has, nor fewer than it must take.
    above = np.maximum(0.0, wanted * have[:, 1] / np.maximum(own, 1.0) - least)
    room = max(0.0, limit * low - least.sum())
    short = least + above * (min(1.0, room / above.sum()) if above.sum() else 0.0)
    return np.stack([wanted - short, short], axis=1)
