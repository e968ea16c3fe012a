"""Effective length: certified, censored or refused; and calibrated on planted curves."""

import numpy as np
import pytest
from calibration import CURVES, LENGTHS, Design, planted, simulate

from ropewalk.core.errors import InputError
from ropewalk.measure.effective import effective_length, grid, needed_n, on_grid, reach
from ropewalk.measure.shares import Share, wilson

NUM_RUNS = 1000
SLACK = 0.014
"""Two standard errors of a share of 5% in a thousand runs."""


def sure(value, n=400):
    low, high = wilson(value, n)
    return Share(value=value, n=n, num_clusters=n, effective_n=n, low=low, high=high, correlation=0.0)


def scores(*values, n=400):
    return {length: sure(value, n) for length, value in zip(LENGTHS, values, strict=False)}


def test_the_grid():
    assert grid(1024, 16384) == (1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384)
    assert on_grid(6144)
    assert not on_grid(5120)


def test_every_length_up_to_it_must_pass():
    found = effective_length(scores(1.0, 0.99, 0.6, 1.0, 1.0, 1.0, 1.0), sure(1.0))
    assert (found.value, found.high, found.censored) == (1536, 1536, False)
    assert found.ruler == 8192


def test_it_is_censored_at_the_longest_tested():
    found = effective_length(scores(1.0, 1.0, 0.98), sure(1.0))
    assert (found.value, found.censored) == (2048, True)


def test_against_the_untouched_models_score_and_not_its_own():
    """A method that ruins short retrieval and stays flat gains nothing by it."""
    assert effective_length(scores(0.5, 0.5, 0.5), sure(1.0)).value is None


def test_twenty_two_of_twenty_two_is_the_least_that_certifies():
    assert needed_n(1.0) == 22
    assert effective_length(scores(1.0, n=22), sure(1.0, 22)).value == 1024
    refused = effective_length(scores(1.0, n=21), sure(1.0, 21))
    assert refused.value is None
    assert "cannot certify 85% of a short score of 1.00, even where nothing is lost; it takes about 22" in refused.refused


def test_a_short_score_that_is_had_without_the_text_is_refused():
    found = effective_length(scores(0.8, 0.8), sure(0.8), control=sure(0.78))
    assert found.value is None
    assert "not above what is found without the text (0.78, perhaps 0.82)" in found.refused
    assert effective_length(scores(0.8, 0.8), sure(0.8), control=sure(0.5)).value == 1536


def test_a_short_score_at_guess_level_is_refused():
    found = effective_length(scores(0.2, 0.2), sure(0.22, 100), guess=0.2)
    assert found.value is None
    assert "not above a guess (0.20): the task is not solved even at short length" in found.refused
    assert "not solved" in effective_length(scores(0.0), sure(0.0)).refused


@pytest.mark.parametrize("lengths", [(1024, 2048), (1000,), (1024, 1280, 1536)])
def test_a_thinned_grid_is_refused(lengths):
    with pytest.raises(InputError, match="needs every length of the grid"):
        effective_length({n: sure(1.0) for n in lengths}, sure(1.0))


def test_reach():
    gains = {12288: (0.01, 0.2), 16384: (-0.03, 0.1), 24576: (-0.2, -0.1), 32768: (0.1, 0.2)}
    assert (reach(gains).safe, reach(gains).use) == (16384, 32768)
    assert reach({12288: (None, None)}) == reach({12288: (-1.0, -0.5)})
    assert reach({12288: (None, None), 16384: (0.1, 0.2)}).safe is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "design",
    [
        Design(),
        Design(base=0.97, num_haystacks=8, num_questions=5, rho=0.05),
        Design(base=0.8, rho=0.4),
        Design(num_haystacks=5),
    ],
    ids=["usual", "few haystacks", "hard task", "the command line's default"],
)
def test_calibrated_on_planted_curves(design):
    """A thousand runs of each curve: coverage of the shares, false certification, coverage of the effective length."""
    coverage, false, covered = [], [], []
    for index, curve in enumerate(CURVES.values()):
        rng, true = np.random.default_rng([11, index]), planted(curve)
        for _ in range(NUM_RUNS):
            found, shares, _ = simulate(rng, curve, design)
            means = [design.base * part for part in curve]
            coverage += [s.low <= m + 1e-12 and s.high >= m - 1e-12 for s, m in zip(shares.values(), means, strict=True)]
            false.append((found.value or 0) > (true or 0))
            if found.refused is None:
                covered.append((found.low or 0) <= (true or 0) <= (found.high or 0))
    print(f"{design}: coverage {np.mean(coverage):.4f}, false {np.mean(false):.4f}, effective {np.mean(covered):.4f}")
    assert np.mean(coverage) >= 0.95 - SLACK
    assert np.mean(false) <= 0.05 + SLACK
    assert np.mean(covered) >= 0.95 - SLACK


def test_the_calibration_notices_answers_taken_as_independent():
    """The same simulation with the clusters ignored covers far too little: the test above can fail."""
    rng, held = np.random.default_rng(3), []
    design = Design(rho=0.5, num_haystacks=24)
    for _ in range(300):
        cell = simulate(rng, (0.7,) * 7, design)[1]
        for s in cell.values():
            low, high = wilson(s.value, s.n)
            held.append(low <= 0.7 * design.base <= high)
    assert np.mean(held) < 0.8
