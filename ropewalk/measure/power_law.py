"""Does more context keep paying? The power law of loss against context, with an interval for each of its three numbers.

    L(c) = (alpha / c)^beta + gamma        Llama 2 Long (arXiv:2309.16039)

c is how many tokens stand before the predicted one, alpha and c are tokens, gamma is the nats per token that no context
takes away. It is fitted to the means of half-octave bins of positions from `SHORTEST` on, weighted by their tokens; inside a
bin the law is averaged too, so wide bins bend nothing. For a given beta the law is linear in the other two, so the fit is a
search over beta alone (Golub and Pereyra 1973) and needs no start values.

Intervals: the one-step jackknife over clusters (cluster-robust CR3), Student's t, in log alpha, log beta and gamma, so that
alpha and beta stay positive. Clusters are the documents where there are five or more, else blocks of 64 tokens, labelled
`within-document`.

Alpha's interval is Fieller's, since log alpha is a ratio. Simulated with documents that differ: 93 to 97 of 100 intervals
hold the truth over 5, 10 and 20 documents, 84 to 95 inside one document (its blocks know nothing of slower swings).

Refused with a reason where the law does not describe the curve: it rises, does not fall, or is so straight (or so sudden)
that the three numbers cannot be told apart. Given up: a bend that changes on the way (a model stretched in two regimes), and
intervals that know of what is refused.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ropewalk.measure import statistics
from ropewalk.measure.statistics import Estimate, Series, student

SHORTEST = 32
"""Contexts below this many tokens are left out: the first words of a text follow another law."""
BINS_PER_OCTAVE = 2
MIN_BINS = 6
BETAS = np.geomspace(0.02, 4.0, 160)
RISE = 0.2
"""Nats per token by which the curve may rise, beyond its interval, and still be called falling."""
LARGEST_LOG_ERROR = 1.5
"""Standard error of log alpha or log beta beyond which a fit says nothing."""
NAMES = ("alpha", "beta", "gamma")
Vector = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """The three numbers."""

    alpha: float
    """Tokens."""
    beta: float
    gamma: float
    """Nats per token."""

    def at(self, context: Vector) -> Vector:
        """Loss at each context, nats per token."""
        return np.asarray((self.alpha / context) ** self.beta + self.gamma, dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A fitted law with the interval of each number, or why there is none."""

    law: PowerLaw | None
    estimates: dict[str, Estimate]
    """By `NAMES`; empty where it is refused."""
    refused: str | None


def fit(series: Sequence[Series]) -> Fit:
    """The law of documents, each the NLL [T-1] of tokens 1..T-1 (one length for all; NaN is left out)."""
    length = min(s.size for s in series)
    edges = bin_edges(length + 1)
    if edges.size <= MIN_BINS:
        return _refuse(f"{length + 1} tokens make {max(0, edges.size - 1)} bins of half an octave, fewer than {MIN_BINS}")
    sums, counts, label = clusters([np.asarray(s[:length], dtype=np.float64) for s in series], edges)
    if np.any(counts.sum(0) == 0):
        return _refuse("not every position was scored, so there is no curve")
    if len(sums) < statistics.MIN_CLUSTERS:
        return _refuse(f"{label}: {len(sums)} clusters are too few")
    rise = _rise(sums, counts, edges)
    if rise is not None:
        return _refuse(f"the curve is broken: {rise}")
    contexts = _contexts(edges)
    law, why = _search(contexts, sums.sum(0) / counts.sum(0), counts.sum(0))
    if law is None:
        return _refuse(why)
    if law.gamma < 0.0:
        return _refuse(f"gamma is {law.gamma:.2f} nats/token, below zero: the curve ends before it bends")
    covariance = _covariance(law, contexts, sums, counts)
    errors = np.sqrt(np.diag(covariance))
    if not np.all(np.isfinite(errors)) or errors[:2].max() > LARGEST_LOG_ERROR:
        return _refuse("alpha and beta cannot be told from this text: their standard errors are larger than they are")
    return Fit(law=law, estimates=_estimates(law, covariance, len(series), sums, counts, label), refused=None)


def bin_edges(length: int) -> NDArray[np.int64]:
    """Edges [bins + 1] of contexts, `SHORTEST` to `length`, half an octave each; a short last bin joins the one before."""
    octaves = math.log2(length / SHORTEST) if length > SHORTEST else 0.0
    inner = SHORTEST * 2.0 ** (np.arange(math.floor(octaves * BINS_PER_OCTAVE + 1e-9) + 1) / BINS_PER_OCTAVE)
    edges = np.round(inner).astype(np.int64)
    if edges[-1] < length:
        edges = np.append(edges[:-1], length)
    return edges


def clusters(series: Sequence[Vector], edges: NDArray[np.int64]) -> tuple[Vector, Vector, str]:
    """Sums and counts [clusters, bins] of scored tokens, and what a cluster is. Index i of a series has context i + 1."""
    by_document = len(series) >= statistics.MIN_DOCUMENTS
    sums, counts = [], []
    for one in series:
        rows = np.zeros(one.size, np.int64) if by_document else np.arange(one.size) // statistics.SHORT_BLOCK
        columns = np.searchsorted(edges, np.arange(1, one.size + 1), side="right") - 1
        keep = np.isfinite(one) & (columns >= 0) & (columns < edges.size - 1)
        shape = (int(rows[-1]) + 1, edges.size - 1)
        flat = rows[keep] * shape[1] + columns[keep]
        sums.append(np.bincount(flat, one[keep], shape[0] * shape[1]).reshape(shape))
        counts.append(np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64))
    total, count = np.concatenate(sums), np.concatenate(counts)
    used = count.sum(1) > 0
    what = "documents" if by_document else f"within-document: {int(used.sum())} blocks of {statistics.SHORT_BLOCK} tokens"
    return total[used], count[used], what


def _contexts(edges: NDArray[np.int64]) -> Vector:
    """Contexts [bins, 64], evenly over each bin: what the law is averaged over."""
    shares = (np.arange(64) + 0.5) / 64
    low, width = edges[:-1, None] - 0.5, np.diff(edges)[:, None]
    return np.asarray(low + width * shares, dtype=np.float64)


def _rise(sums: Vector, counts: Vector, edges: NDArray[np.int64]) -> str | None:
    """Where the curve rises above its lowest bin before by more than `RISE`, beyond doubt; None where it does not."""
    means = sums.sum(0) / counts.sum(0)
    residuals = (sums - means * counts) / counts.sum(0)
    # A bin of one or two blocks has no error of its own to be compared with.
    told = np.flatnonzero((counts > 0).sum(0) >= statistics.MIN_CLUSTERS)
    for place, column in enumerate(told[1:], start=1):
        lowest = told[:place][np.argmin(means[told[:place]])]
        part = residuals[:, column] - residuals[:, lowest]
        num = int((counts[:, column] + counts[:, lowest] > 0).sum())
        error = math.sqrt(np.square(part).sum() * num / max(1, num - 1))
        gap = means[column] - means[lowest]
        if num >= statistics.MIN_CLUSTERS and gap - student(num) * error > RISE:
            return (
                f"at positions {edges[column]} to {edges[column + 1]} the loss lies {gap:.2f} nats/token above that at "
                f"{edges[lowest]} to {edges[lowest + 1]}"
            )
    return None


def _search(contexts: Vector, means: Vector, weights: Vector) -> tuple[PowerLaw | None, str]:
    """The least squares over beta, the rest solved; None with the reason where there is no inner optimum that falls."""
    trials = [_solve(beta, contexts, means, weights) for beta in BETAS]
    best = int(np.argmin([t[0] for t in trials]))
    if trials[best][1] <= 0.0:
        return None, "the loss does not fall with context"
    if best in (0, BETAS.size - 1):
        return None, f"beta runs to {BETAS[best]:.2f}, the {'low' if best == 0 else 'high'} end of the search: no such bend"
    low, high = float(BETAS[best - 1]), float(BETAS[best + 1])
    golden = (math.sqrt(5.0) - 1.0) / 2.0
    while high - low > 1e-10:
        left, right = high - golden * (high - low), low + golden * (high - low)
        if _solve(left, contexts, means, weights)[0] < _solve(right, contexts, means, weights)[0]:
            high = right
        else:
            low = left
    beta = (low + high) / 2.0
    _, slope, gamma = _solve(beta, contexts, means, weights)
    if slope <= 0.0:
        return None, "the loss does not fall with context"
    return PowerLaw(alpha=slope ** (1.0 / beta), beta=beta, gamma=gamma), ""


def _solve(beta: float, contexts: Vector, means: Vector, weights: Vector) -> tuple[float, float, float]:
    """Weighted squared error, alpha^beta and gamma for one beta. Scaled by c^beta's own size, which keeps it solvable."""
    x = np.exp(-beta * np.log(contexts / SHORTEST)).mean(1)
    share = weights / weights.sum()
    center, level = float(share @ x), float(share @ means)
    spread = float(share @ np.square(x - center))
    slope = float(share @ ((x - center) * (means - level))) / spread
    error = float(share @ np.square(means - level - slope * (x - center)))
    return error, slope * SHORTEST**beta, level - slope * center


def _covariance(law: PowerLaw, contexts: Vector, sums: Vector, counts: Vector) -> Vector:
    """Covariance [3, 3] of log alpha, log beta and gamma: each cluster left out in turn, one Gauss-Newton step each."""
    gained = (law.alpha / contexts) ** law.beta
    slopes = np.stack([law.beta * gained.mean(1), (gained * np.log(gained)).mean(1), np.ones(len(contexts))], axis=1)
    fitted = gained.mean(1) + law.gamma
    scores = (sums - counts * fitted) @ slopes
    curvature = np.einsum("gb,bi,bj->gij", counts, slopes, slopes)
    try:
        moved = np.linalg.solve(curvature.sum(0) - curvature, scores[:, :, None])[:, :, 0]
    except np.linalg.LinAlgError:
        return np.full((3, 3), np.inf)
    num = len(sums)
    moved = moved - moved.mean(0)
    return np.asarray((num - 1) / num * (moved.T @ moved), dtype=np.float64)


def _fieller(law: PowerLaw, covariance: Vector, t: float) -> tuple[float, float]:
    """The ends of alpha's interval: log alpha is a ratio, log(alpha^beta) over beta, and its error is that of both.

    Every log alpha = r is in it for which log(alpha^beta) - r beta is within t errors of zero (Fieller 1954); an end is
    infinite or zero where beta itself cannot be told from zero.
    """
    log_alpha, beta = math.log(law.alpha), law.beta
    to_pair = np.array([[beta, beta * log_alpha, 0.0], [0.0, beta, 0.0]])
    (var_top, cross), (_, var_beta) = to_pair @ covariance @ to_pair.T
    top = beta * log_alpha
    a, b, c = beta**2 - t**2 * var_beta, top * beta - t**2 * cross, top**2 - t**2 * var_top
    if a <= 0.0:
        return 0.0, math.inf
    root = math.sqrt(max(0.0, b * b - a * c))
    low, high = (math.exp(min(700.0, (b + s * root) / a)) for s in (-1.0, 1.0))
    return low, high


def _estimates(
    law: PowerLaw, covariance: Vector, num_documents: int, sums: Vector, counts: Vector, label: str
) -> dict[str, Estimate]:
    errors = np.sqrt(np.diag(covariance))
    half = student(len(sums)) * errors
    found = {}
    for index, name in enumerate(NAMES):
        value = float(getattr(law, name))
        logarithmic = name != "gamma"
        ends = [value * math.exp(s * half[index]) if logarithmic else value + s * half[index] for s in (-1.0, 1.0)]
        if name == "alpha":
            ends = list(_fieller(law, covariance, student(len(sums))))
        found[name] = Estimate(
            value=value, n=num_documents, num_clusters=len(sums), num_tokens=int(counts.sum()),
            stderr=float(errors[index] * (value if logarithmic else 1.0)), ci_low=ends[0], ci_high=ends[1],
            note=f"jackknife over {label}" + ("" if math.isfinite(ends[1]) else "; no upper end: beta may be zero"),
        )  # fmt: skip
    return found


def _refuse(reason: str) -> Fit:
    return Fit(law=None, estimates={}, refused=reason)
