"""How far an engine's next-token distribution is from the reference's, in nats.

    KL(reference || engine) = sum over tokens of p (ln p - ln q)

over the whole vocabulary, which every engine here gives. Where an engine leaves tokens out (-inf), those tokens are one
bucket with the probability that is left: a coarser partition, whose divergence is never above the true one.
"""

import numpy as np
import numpy.typing as npt

from ropewalk.core.errors import HostError

TINY = 1e-12
"""The least probability that a bucket of unsaid tokens is taken to have."""

Rows = npt.NDArray[np.floating]


def kl(reference: Rows, engine: Rows) -> npt.NDArray[np.float64]:
    """Per position, float64 [num_positions]; both are log-probabilities [num_positions, vocabulary].

    Raises `HostError` where the shapes differ.
    """
    if reference.shape != engine.shape:
        raise HostError(
            f"the engine answered log-probabilities of shape {list(engine.shape)} and the reference of shape "
            f"{list(reference.shape)}; they are to be of one vocabulary and the same positions, check the tokenizer's size"
        )
    return np.array([_one(p, q) for p, q in zip(reference, engine, strict=True)], dtype=np.float64)


def _one(reference: Rows, engine: Rows) -> float:
    p, q = _proper(reference), _proper(engine)
    stated = np.isfinite(q)
    chance = np.exp(p)
    total = float(np.sum(chance[stated] * (p[stated] - q[stated]), where=chance[stated] > 0))
    left = 1.0 - float(chance[stated].sum())
    if not stated.all() and left > 0:
        total += left * float(np.log(left) - np.log(max(1.0 - np.exp(q[stated]).sum(), TINY)))
    return max(0.0, total)


def _proper(row: Rows) -> npt.NDArray[np.float64]:
    """Log-probabilities in float64; those of a whole vocabulary are made to sum to 1, which float32 only does roughly."""
    wide = row.astype(np.float64)
    return wide - np.logaddexp.reduce(wide) if np.isfinite(wide).all() else wide
