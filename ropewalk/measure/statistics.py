"""Means with intervals that can be believed: sums before means, documents as the unit.

Neighbouring tokens are not independent, so tokens are never resampled one by one.

- Five documents or more: documents are resampled (percentile bootstrap of the ratio of sums).
- Fewer: a moving-block bootstrap inside the documents (Kuensch 1989), blocks of 512 tokens, labelled `within-document`: it
  speaks of this text, not of others like it.
- One short stretch (a bin of a curve): blocks of 64 tokens, labelled `within-window`.
- Shares of answers: Wilson's interval.

Given up: BCa and studentised forms; with this few units their corrections are noise.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_DOCUMENTS = 5
BLOCK = 512
SHORT_BLOCK = 64
NUM_RESAMPLES = 2000
Series = NDArray[np.float32] | NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean (or other statistic) with its interval at 95%."""

    value: float
    n: int
    """Documents."""
    num_clusters: int
    """Units that were resampled: documents, or whole blocks that fit."""
    num_tokens: int
    stderr: float | None
    ci_low: float | None
    ci_high: float | None
    note: str | None


def mean(series: Sequence[Series], *, seed: int, block: int = BLOCK) -> Estimate:
    """Token-weighted mean over documents, each a series [n_i] (NaN entries are left out), with its interval."""
    kept = [np.asarray(s, dtype=np.float64)[~np.isnan(s)] for s in series]
    kept = [s for s in kept if s.size]
    total = int(sum(s.size for s in kept))
    assert total > 0, "a mean needs at least one scored token"
    value = float(sum(s.sum() for s in kept) / total)
    if len(kept) >= MIN_DOCUMENTS:
        sums = np.array([[s.sum(), s.size] for s in kept])
        draws = np.random.default_rng(seed).integers(0, len(kept), (NUM_RESAMPLES, len(kept)))
        drawn = sums[draws].sum(axis=1)
        return _estimate(value, drawn[:, 0] / drawn[:, 1], len(kept), len(kept), total, None)
    return _within(kept, value, lambda sums, counts: sums / counts, seed=seed, block=block)


def windows_mean(windows: Sequence[Sequence[Series]], *, seed: int) -> Estimate:
    """Mean over scored windows (document by window, each a series): windows are the blocks below five documents."""
    documents = [np.concatenate([np.asarray(w, dtype=np.float64) for w in doc]) for doc in windows]
    if len(documents) >= MIN_DOCUMENTS:
        return mean(documents, seed=seed)
    blocks = [np.asarray(w, dtype=np.float64) for doc in windows for w in doc]
    blocks = [b[~np.isnan(b)] for b in blocks]
    sums = np.array([[b.sum(), b.size] for b in blocks])
    value = float(sums[:, 0].sum() / sums[:, 1].sum())
    total = int(sums[:, 1].sum())
    if len(blocks) < 4:
        return Estimate(
            value=value, n=len(documents), num_clusters=len(blocks), num_tokens=total, stderr=None, ci_low=None,
            ci_high=None, note=f"within-document: only {len(blocks)} windows, too few for an interval",
        )
    draws = np.random.default_rng(seed).integers(0, len(blocks), (NUM_RESAMPLES, len(blocks)))
    drawn = sums[draws].sum(axis=1)
    size = int(round(total / len(blocks)))
    note = f"within-document: bootstrap over {len(blocks)} windows of {size} tokens"
    return _estimate(value, drawn[:, 0] / drawn[:, 1], len(documents), len(blocks), total, note)


def quantile(series: Sequence[Series], q: float, *, seed: int) -> Estimate:
    """A quantile over all tokens; interval by documents or by blocks as in `mean`."""
    kept = [np.asarray(s, dtype=np.float64)[~np.isnan(s)] for s in series]
    value = float(np.quantile(np.concatenate(kept), q))
    total = int(sum(s.size for s in kept))
    rng = np.random.default_rng(seed)
    num_draws = 400
    if len(kept) >= MIN_DOCUMENTS:
        draws = [np.concatenate([kept[i] for i in rng.integers(0, len(kept), len(kept))]) for _ in range(num_draws)]
        return _estimate(value, np.array([np.quantile(d, q) for d in draws]), len(kept), len(kept), total, None)
    clusters = sum(s.size // BLOCK for s in kept)
    if clusters < 4:
        return Estimate(
            value=value, n=len(kept), num_clusters=clusters, num_tokens=total, stderr=None, ci_low=None, ci_high=None,
            note=f"within-document: only {clusters} blocks of {BLOCK} tokens, too few for an interval",
        )
    drawn = np.empty(num_draws)
    for index in range(num_draws):
        drawn[index] = np.quantile(np.concatenate([s[_block_indices(s.size, BLOCK, rng)] for s in kept]), q)
    note = f"within-document: moving-block bootstrap, {clusters} blocks of {BLOCK} tokens"
    return _estimate(value, drawn, len(kept), clusters, total, note)


def wilson(num_right: int, n: int) -> tuple[float, float]:
    """Wilson's 95% interval for a share of `num_right` in `n` (1927)."""
    z = 1.959963984540054
    share = num_right / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def _within(
    kept: Sequence[NDArray[np.float64]],
    value: float,
    ratio: Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]],
    *,
    seed: int,
    block: int,
) -> Estimate:
    """Moving blocks inside each document; each document keeps its own number of tokens."""
    total = int(sum(s.size for s in kept))
    label = "within-document" if block == BLOCK else "within-window"
    clusters = sum(s.size // block for s in kept)
    if clusters < 4:
        return Estimate(
            value=value, n=len(kept), num_clusters=clusters, num_tokens=total, stderr=None, ci_low=None, ci_high=None,
            note=f"{label}: only {clusters} blocks of {block} tokens, too few for an interval",
        )
    rng = np.random.default_rng(seed)
    sums, counts = np.zeros(NUM_RESAMPLES), np.zeros(NUM_RESAMPLES)
    for s in kept:
        size = min(block, s.size)
        running = np.concatenate([[0.0], np.cumsum(s)])
        # A block's sum is a difference of running sums; the last block is cut so that the length is kept.
        num_blocks = -(-s.size // size)
        starts = rng.integers(0, s.size - size + 1, (NUM_RESAMPLES, num_blocks))
        ends = starts + size
        ends[:, -1] = starts[:, -1] + (s.size - size * (num_blocks - 1))
        sums += (running[ends] - running[starts]).sum(axis=1)
        counts += s.size
    note = f"{label}: moving-block bootstrap, {clusters} blocks of {block} tokens"
    return _estimate(value, ratio(sums, counts), len(kept), clusters, total, note)


def _block_indices(size: int, block: int, rng: np.random.Generator) -> NDArray[np.int64]:
    block = min(block, size)
    starts = rng.integers(0, size - block + 1, -(-size // block))
    return np.asarray((starts[:, None] + np.arange(block)).ravel()[:size], dtype=np.int64)


def _estimate(
    value: float, draws: NDArray[np.float64], n: int, num_clusters: int, num_tokens: int, note: str | None
) -> Estimate:
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(
        value=value, n=n, num_clusters=num_clusters, num_tokens=num_tokens, stderr=float(draws.std(ddof=1)),
        ci_low=float(low), ci_high=float(high), note=note,
    )
