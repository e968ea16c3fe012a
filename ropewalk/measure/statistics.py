"""Means with intervals that can be believed: sums before means, documents as the unit.

Neighbouring tokens are not independent, so tokens are never resampled one by one.

- Five documents or more: Student's t over documents, on the linearised ratio of sums. (A percentile bootstrap over five
  documents covers far less than it says.)
- Fewer: the standard error of a moving-block bootstrap inside the documents (Kuensch 1989), blocks of 512 tokens, times
  t for that many blocks; labelled `within-document`: it speaks of this text, not of others like it.
- Scored windows: the window is the block, and no block spans the gap between two.
- One short stretch (a bin of a curve): blocks of 64 tokens, labelled `within-window`.
- Shares of answers: `shares.py`.

Given up: BCa and double bootstraps; with this few units their corrections are noise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_DOCUMENTS = 5
BLOCK = 512
SHORT_BLOCK = 64
MIN_CLUSTERS = 4
"""Below this no interval is given."""
NUM_RESAMPLES = 2000
NUM_QUANTILE_RESAMPLES = 400
T_TABLE = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)
"""97.5% points of Student's t for 1 to 10 degrees of freedom."""
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
    assert kept, "a mean needs at least one scored token"
    if len(kept) >= MIN_DOCUMENTS:
        return _over_clusters(kept, num_documents=len(kept), note=None)
    return _within(kept, seed=seed, block=block)


def windows_mean(windows: Sequence[Sequence[Series]]) -> Estimate:
    """Mean over scored windows (document by window, each a series): windows are the clusters below five documents."""
    documents = [np.concatenate([np.asarray(w, dtype=np.float64) for w in doc]) for doc in windows]
    if len(documents) >= MIN_DOCUMENTS:
        return _over_clusters([d[~np.isnan(d)] for d in documents], num_documents=len(documents), note=None)
    blocks = [np.asarray(w, dtype=np.float64) for doc in windows for w in doc]
    blocks = [b[~np.isnan(b)] for b in blocks if not np.all(np.isnan(b))]
    size = round(sum(b.size for b in blocks) / len(blocks))
    note = f"within-document: t over {len(blocks)} windows of {size} tokens, so how positions differ is in the interval"
    return _over_clusters(blocks, num_documents=len(documents), note=note)


def clusters_mean(clusters: Sequence[NDArray[np.float64]], *, note: str) -> Estimate:
    """Mean over clusters, each with its values [m_i]: ratio of sums, t over clusters."""
    return _over_clusters(clusters, num_documents=int(sum(c.size for c in clusters)), note=note)


def _over_clusters(clusters: Sequence[NDArray[np.float64]], *, num_documents: int, note: str | None) -> Estimate:
    """Ratio of sums over clusters, and Student's t on its linearisation."""
    sums = np.array([c.sum() for c in clusters])
    sizes = np.array([c.size for c in clusters], dtype=np.float64)
    num, total = len(clusters), int(sizes.sum())
    value = float(sums.sum() / total)
    if num < MIN_CLUSTERS:
        said = f"{note or 'documents'}: {num} clusters are too few for an interval"
        return _bare(value, num_documents, num, total, said)
    residuals = (sums - value * sizes) / sizes.mean()
    stderr = float(np.sqrt(np.square(residuals).sum() / (num * (num - 1))))
    return _interval(value, stderr, num_documents, num, total, note)


def quantile(series: Sequence[Series], q: float, *, seed: int) -> Estimate:
    """A quantile over all tokens; standard error by resampling documents, or blocks inside them as in `mean`."""
    kept = [np.asarray(s, dtype=np.float64)[~np.isnan(s)] for s in series]
    value = float(np.quantile(np.concatenate(kept), q))
    total = int(sum(s.size for s in kept))
    rng = np.random.default_rng(seed)
    by_document = len(kept) >= MIN_DOCUMENTS
    clusters = len(kept) if by_document else sum(s.size // BLOCK for s in kept)
    note = None if by_document else f"within-document: moving-block bootstrap, {clusters} blocks of {BLOCK} tokens"
    if clusters < MIN_CLUSTERS:
        return _bare(value, len(kept), clusters, total, f"{note}: too few for an interval")
    drawn = np.empty(NUM_QUANTILE_RESAMPLES)
    for index in range(NUM_QUANTILE_RESAMPLES):
        if by_document:
            sample = [kept[i] for i in rng.integers(0, len(kept), len(kept))]
        else:
            sample = [s[_block_indices(s.size, BLOCK, rng)] for s in kept]
        drawn[index] = np.quantile(np.concatenate(sample), q)
    return _interval(value, float(drawn.std(ddof=1)), len(kept), clusters, total, note)


def student(num_clusters: int) -> float:
    """The 97.5% point of Student's t with `num_clusters` - 1 degrees of freedom."""
    df = num_clusters - 1
    if df <= len(T_TABLE):
        return T_TABLE[df - 1]
    z = 1.959963984540054
    # Fisher's expansion; its error is below 2e-4 from ten degrees of freedom on.
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * df**3)
    return z + (z**3 + z) / (4 * df) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df**2) + third


def upper_tail(t: float, num_clusters: int) -> float:
    """The share of Student's t with `num_clusters` - 1 degrees of freedom above `t`: Abramowitz and Stegun 26.7.3-4."""
    df = num_clusters - 1
    theta = math.atan(t / math.sqrt(df))
    sine, cosine = math.sin(theta), math.cos(theta)
    term, total = (cosine, 0.0) if df % 2 else (1.0, 0.0)
    for k in range(1 if df % 2 else 0, df - 1, 2):
        total += term
        term *= cosine * cosine * (k + 1) / (k + 2)
    inside = 2 / math.pi * (theta + sine * total) if df % 2 else sine * total
    return min(1.0, max(0.0, (1.0 - inside) / 2))


def _within(kept: Sequence[NDArray[np.float64]], *, seed: int, block: int) -> Estimate:
    """Moving blocks inside each document; each document keeps its own number of tokens."""
    total = int(sum(s.size for s in kept))
    value = float(sum(s.sum() for s in kept) / total)
    label = "within-document" if block == BLOCK else "within-window"
    clusters = sum(s.size // block for s in kept)
    note = f"{label}: moving-block bootstrap, {clusters} blocks of {block} tokens"
    if clusters < MIN_CLUSTERS:
        return _bare(value, len(kept), clusters, total, f"{note}: too few for an interval")
    rng = np.random.default_rng(seed)
    sums = np.zeros(NUM_RESAMPLES)
    for s in kept:
        size = min(block, s.size)
        running = np.concatenate([[0.0], np.cumsum(s)])
        num_blocks = -(-s.size // size)
        starts = rng.integers(0, s.size - size + 1, (NUM_RESAMPLES, num_blocks))
        ends = starts + size
        # The last block is cut so that the document keeps its number of tokens.
        ends[:, -1] = starts[:, -1] + (s.size - size * (num_blocks - 1))
        sums += (running[ends] - running[starts]).sum(axis=1)
    return _interval(value, float((sums / total).std(ddof=1)), len(kept), clusters, total, note)


def _block_indices(size: int, block: int, rng: np.random.Generator) -> NDArray[np.int64]:
    block = min(block, size)
    starts = rng.integers(0, size - block + 1, -(-size // block))
    return np.asarray((starts[:, None] + np.arange(block)).ravel()[:size], dtype=np.int64)


def _bare(value: float, n: int, num_clusters: int, num_tokens: int, note: str) -> Estimate:
    """A value without an interval, and why."""
    return Estimate(
        value=value, n=n, num_clusters=num_clusters, num_tokens=num_tokens, stderr=None, ci_low=None, ci_high=None, note=note
    )


def _interval(value: float, stderr: float, n: int, num_clusters: int, num_tokens: int, note: str | None) -> Estimate:
    half = student(num_clusters) * stderr
    return Estimate(
        value=value,
        n=n,
        num_clusters=num_clusters,
        num_tokens=num_tokens,
        stderr=stderr,
        ci_low=value - half,
        ci_high=value + half,
        note=note,
    )
