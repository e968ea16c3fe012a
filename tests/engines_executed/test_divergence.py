"""The divergence against its definition, and against what a bucket of unsaid tokens may do."""

import numpy as np
import pytest

from ropewalk.core.errors import HostError
from ropewalk.hosts.executed.divergence import kl


def log_probabilities(*, seed: int, positions: int = 3, vocabulary: int = 50) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(scale=3.0, size=(positions, vocabulary))
    return (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(np.float32)


def test_it_is_the_sum_of_the_definition():
    p, q = log_probabilities(seed=0), log_probabilities(seed=1)
    wide_p, wide_q = p.astype(np.float64), q.astype(np.float64)
    assert kl(p, q) == pytest.approx((np.exp(wide_p) * (wide_p - wide_q)).sum(axis=1), rel=1e-5)


def test_two_tokens_by_hand():
    half = np.log(np.array([[0.5, 0.5]]))
    skewed = np.log(np.array([[0.75, 0.25]]))
    assert kl(half, skewed)[0] == pytest.approx(0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25))


def test_equal_distributions_are_zero_apart():
    p = log_probabilities(seed=0)
    assert np.all(kl(p, p) == 0.0)


def test_unsaid_tokens_are_one_bucket_that_never_looks_further_than_the_truth():
    p, q = log_probabilities(seed=0), log_probabilities(seed=1)
    cut = np.where(q < np.sort(q, axis=1)[:, -20:-19], -np.inf, q)
    coarse, fine = kl(p, cut), kl(p, q)
    assert np.all(coarse > 0)
    assert np.all(coarse <= fine + 1e-9)


def test_the_bucket_by_hand():
    reference = np.log(np.array([[0.5, 0.3, 0.2]]))
    engine = np.array([[np.log(0.6), -np.inf, -np.inf]])
    assert kl(reference, engine)[0] == pytest.approx(0.5 * np.log(0.5 / 0.6) + 0.5 * np.log(0.5 / 0.4))


def test_another_vocabulary_is_refused():
    with pytest.raises(HostError, match=r"log-probabilities of shape \[3, 49\] and the reference of shape \[3, 50\]"):
        kl(log_probabilities(seed=0), log_probabilities(seed=0, vocabulary=49))
