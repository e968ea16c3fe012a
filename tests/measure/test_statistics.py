"""Intervals that cover what they say, by simulation, and literal small cases."""

import numpy as np
import pytest

from ropewalk.measure.statistics import BLOCK, mean, quantile, student, upper_tail, windows_mean


def test_sums_before_means():
    """A long document weighs more than a short one: 4 tokens of 1.0 and one of 6.0 are 2.0, not 3.5."""
    assert mean([np.ones(4), np.full(1, 6.0)], seed=0).value == 2.0


def test_unscored_tokens_are_left_out():
    estimate = mean([np.array([1.0, np.nan, 3.0])], seed=0)
    assert (estimate.value, estimate.num_tokens) == (2.0, 2)


def test_too_few_blocks_give_no_interval_and_say_why():
    estimate = mean([np.random.default_rng(0).normal(size=3 * BLOCK)], seed=0)
    assert estimate.ci_low is None
    assert estimate.note == "within-document: moving-block bootstrap, 3 blocks of 512 tokens: too few for an interval"


def test_documents_are_the_unit_from_five_on():
    documents = [np.full(10, float(v)) for v in range(5)]
    estimate = mean(documents, seed=0)
    assert (estimate.n, estimate.num_clusters, estimate.note) == (5, 5, None)
    # The t interval of 0..4: 2 +- 2.7764 * sqrt(2.5 / 5).
    assert estimate.ci_low == pytest.approx(2 - 2.7764 * np.sqrt(0.5), abs=1e-4)


def test_the_same_seed_gives_the_same_interval():
    series = [np.random.default_rng(1).normal(size=8192)]
    assert mean(series, seed=3) == mean(series, seed=3)


@pytest.mark.parametrize(("clusters", "expected"), [(2, 12.7062), (5, 2.7764), (11, 2.2281), (13, 2.1788), (31, 2.0423)])
def test_student(clusters, expected):
    assert student(clusters) == pytest.approx(expected, abs=2e-4)


def covers(make, num_runs=300):
    """Share of runs whose interval holds the true mean, 0."""
    hits = 0
    for run in range(num_runs):
        estimate = make(np.random.default_rng(run))
        hits += estimate.ci_low <= 0.0 <= estimate.ci_high
    return hits / num_runs


def test_coverage_over_documents():
    def make(rng):
        effects = rng.normal(size=6)
        return mean([e + rng.normal(size=rng.integers(50, 150)) for e in effects], seed=0)

    assert covers(make) >= 0.91


def test_coverage_inside_a_document_with_neighbours_alike():
    """Noise that remembers 20 tokens: tokens one by one would cover far less."""

    def make(rng):
        noise = np.convolve(rng.normal(size=8192 + 19), np.ones(20) / 20, mode="valid")
        return mean([noise], seed=0)

    assert covers(make, 200) >= 0.90


def test_coverage_over_windows_with_effects_of_their_own():
    def make(rng):
        return windows_mean([[rng.normal() * 0.1 + rng.normal(size=512) for _ in range(4)]])

    assert covers(make) >= 0.92


def test_windows_say_what_was_resampled():
    estimate = windows_mean([[np.zeros(8), np.ones(8), np.zeros(8), np.ones(8)]])
    assert (estimate.value, estimate.num_clusters) == (0.5, 4)
    assert estimate.note == "within-document: t over 4 windows of 8 tokens, so how positions differ is in the interval"
    assert windows_mean([[np.zeros(8), np.ones(8)]]).ci_low is None


def test_quantile_value_and_interval():
    series = [np.arange(8192, dtype=float)]
    estimate = quantile(series, 0.999, seed=0)
    assert estimate.value == pytest.approx(np.quantile(series[0], 0.999))
    assert estimate.ci_low < estimate.value < estimate.ci_high
    assert quantile([np.arange(100.0)], 0.5, seed=0).ci_low is None


@pytest.mark.parametrize("num_clusters", [2, 3, 4, 8, 17, 1000])
def test_tails_of_students_t(num_clusters):
    from scipy.stats import t

    for point in (-2.0, 0.0, 0.7, 2.5, 6.0):
        assert upper_tail(point, num_clusters) == pytest.approx(t.sf(point, num_clusters - 1), abs=1e-12)
