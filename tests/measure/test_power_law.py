"""The power law: planted curves are found again, its intervals hold the truth, and what is no such curve is refused."""

import numpy as np
import pytest

from ropewalk.measure.power_law import NAMES, SHORTEST, PowerLaw, bin_edges, fit

LLAMA_7B = PowerLaw(alpha=25.4, beta=0.45, gamma=1.56)
"""Llama 2 Long's own numbers."""


def curve(law: PowerLaw, length: int) -> np.ndarray:
    return law.at(np.arange(1.0, length))


def noisy(law: PowerLaw, length: int, rng: np.random.Generator, *, between: float = 0.3) -> np.ndarray:
    """A document: losses as skewed as real ones, and a level of its own."""
    skewed = (rng.gamma(0.7, 1.0, length - 1) - 0.7) / np.sqrt(0.7)
    return curve(law, length) + 2.0 * skewed + between * rng.normal()


@pytest.mark.parametrize(
    "law", [LLAMA_7B, PowerLaw(alpha=3.0, beta=0.2, gamma=0.9), PowerLaw(alpha=90.0, beta=1.4, gamma=2.0)]
)
@pytest.mark.parametrize("length", [2048, 5000])
def test_a_planted_curve_is_found_again(law: PowerLaw, length: int) -> None:
    found = fit([curve(law, length)] * 5)
    assert found.refused is None
    assert found.law is not None
    for name in NAMES:
        assert getattr(found.law, name) == pytest.approx(getattr(law, name), rel=2e-2)


def test_the_intervals_hold_the_truth_where_documents_are_the_unit() -> None:
    """Over 120 runs of ten documents; three standard errors of the simulation below 95% are 89%."""
    rng, held, num = np.random.default_rng(1), np.zeros(3), 0
    for _ in range(120):
        found = fit([noisy(LLAMA_7B, 4096, rng) for _ in range(10)])
        if found.refused is None:
            num += 1
            ends = [found.estimates[name] for name in NAMES]
            held += [e.ci_low <= getattr(LLAMA_7B, n) <= e.ci_high for e, n in zip(ends, NAMES, strict=True)]
    assert num > 60
    assert np.all(held / num >= 0.89)
    assert found.refused is not None or found.estimates["alpha"].num_clusters == 10


def test_intervals_are_not_so_wide_that_they_hold_anything() -> None:
    rng = np.random.default_rng(2)
    found = fit([noisy(LLAMA_7B, 16384, rng, between=0.1) for _ in range(10)])
    gamma = found.estimates["gamma"]
    assert gamma.ci_high - gamma.ci_low < 0.5
    assert found.estimates["beta"].ci_low > 0.2


def test_below_five_documents_blocks_are_the_unit_and_the_note_says_so() -> None:
    rng = np.random.default_rng(3)
    found = fit([noisy(LLAMA_7B, 16384, rng, between=0.0) for _ in range(2)])
    assert found.estimates["gamma"].n == 2
    assert found.estimates["gamma"].num_clusters > 100
    assert "within-document" in found.estimates["gamma"].note


@pytest.mark.parametrize(
    ("series", "reason"),
    [
        (np.where(np.arange(1, 4096) > 2048, 6.0, curve(LLAMA_7B, 4096)), "the curve is broken"),
        (np.full(4095, 2.0) + 1e-3 * np.sin(np.arange(4095)), ""),
        (1.0 + 1e-5 * np.arange(4095.0), "does not fall"),
        (curve(LLAMA_7B, 100), "fewer than 6"),
        (np.where(np.arange(4095) % 1024 < 800, np.nan, 2.0), "not every position"),
        (6.0 - 0.5 * np.log(np.arange(1.0, 4096)), "no such bend"),
    ],
    ids=["broken", "flat", "rising", "short", "gaps", "straight"],
)
def test_what_is_no_falling_curve_is_refused_with_a_reason(series: np.ndarray, reason: str) -> None:
    found = fit([series] * 5)
    assert found.law is None
    assert found.estimates == {}
    assert found.refused
    assert reason in found.refused


def test_bins_cover_every_context_once() -> None:
    for length in (2048, 3000, 16384):
        edges = bin_edges(length)
        assert (edges[0], edges[-1]) == (SHORTEST, length)
        assert np.all(np.diff(edges) > 0)
