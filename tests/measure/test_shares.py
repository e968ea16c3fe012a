"""Clustered shares and ratios against numbers worked out elsewhere."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.measure.shares import FLOOR, Share, agresti_min, correlation, difference, paired, ratio, share, wilson


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    # R's binom.confint(method="wilson"), and the table of facts on other evaluations.
    [(1, 1, 0.2065, 1.0), (10, 10, 0.7225, 1.0), (20, 20, 0.8389, 1.0), (26, 50, 0.3851, 0.6520), (90, 100, 0.8256, 0.9448)],
)
def test_wilson(right, n, low, high):
    assert wilson(right / n, n) == pytest.approx((low, high), abs=2e-4)


def test_no_correlation_where_answers_are_independent_and_one_where_a_haystack_decides():
    rng = np.random.default_rng(0)
    independent = [(rng.random((200, 10)) < 0.7).astype(float)]
    assert correlation(independent) == pytest.approx(0.0, abs=0.02)
    together = [np.repeat((rng.random((200, 1)) < 0.7).astype(float), 10, axis=1)]
    assert correlation(together) == pytest.approx(1.0)
    assert correlation([[[1.0], [0.0]]]) == 0.0
    assert correlation([[[1.0, 1.0], [1.0, 1.0]]]) == 0.0


def test_planted_correlation_is_found_when_cells_are_pooled():
    rng = np.random.default_rng(1)
    cells = []
    for mean in (0.3, 0.6, 0.9):
        strength = 1 / 0.3 - 1
        levels = rng.beta(mean * strength, (1 - mean) * strength, 400)
        cells.append((rng.random((400, 11)) < levels[:, None]).astype(float))
    assert correlation(cells) == pytest.approx(0.3, abs=0.03)


def test_effective_n():
    twelve = [[1.0] * 5] * 12
    assert share(twelve, rho=0.0).effective_n == 60
    assert share(twelve, rho=1.0).effective_n == pytest.approx(12)
    assert share(twelve, rho=0.25).effective_n == pytest.approx(30)
    few = share([[1.0] * 5] * 4, rho=0.0)
    assert few.correlation == FLOOR
    assert few.effective_n == pytest.approx(20 / 1.4)
    assert few.low < 1.0 == few.high


def sure(value, n):
    low, high = wilson(value, n)
    return Share(value=value, n=n, num_clusters=n, effective_n=n, low=low, high=high, correlation=0.0)


def test_a_ratio_to_a_sure_one_is_the_share_itself():
    top = sure(0.9, 100)
    one = Share(value=1.0, n=1, num_clusters=1, effective_n=1, low=1.0, high=1.0, correlation=0.0)
    assert ratio(top, one) == pytest.approx((top.low, top.high))


def test_a_ratio_against_simulation():
    """Coverage of the ratio's interval, both shares estimated."""
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(2000):
        top, bottom = sure(rng.binomial(120, 0.72) / 120, 120), sure(rng.binomial(120, 0.9) / 120, 120)
        low, high = ratio(top, bottom)
        held += low <= 0.8 <= high
    assert held / 2000 > 0.935


def test_a_bottom_that_may_be_nothing_bounds_nothing():
    assert ratio(sure(0.5, 10), sure(0.0, 10)) == (0.0, math.inf)


@given(st.floats(0.01, 1), st.integers(5, 400), st.floats(0.05, 1), st.integers(5, 400))
def test_a_ratio_holds_its_estimate(top, n, bottom, m):
    low, high = ratio(sure(top, n), sure(bottom, m))
    assert 0.0 <= low <= top / bottom + 1e-9
    assert high >= top / bottom - 1e-9


def test_paired_differences_keep_the_haystack_as_the_unit():
    first, second = [[1, 1], [1, 0], [0, 0]], [[0, 1], [1, 0], [0, 0]]
    value, stderr = paired(first, second)
    assert value == pytest.approx(1 / 6)
    assert stderr == pytest.approx(np.std([0.5, 0, 0], ddof=1) / math.sqrt(3))
    assert paired([[1]], [[0]]) == (1.0, None)


def test_agresti_and_min_add_half_an_answer_to_each_of_four_cells():
    """40 pairs, 8 right by the first alone and 3 by the second: the same as 42 with 8.5 and 3.5."""
    low, high = agresti_min(5 / 40, 11 / 40, 40)
    spread = 1.959963984540054 * math.sqrt((8.5 + 3.5) - (8.5 - 3.5) ** 2 / 42) / 42
    assert (low, high) == pytest.approx((5 / 42 - spread, 5 / 42 + spread))


@pytest.mark.parametrize(("num", "questions"), [(24, 11), (5, 11), (8, 5)])
def test_differences_against_simulation(num, questions):
    """Coverage of paired differences whose haystacks differ in how much is gained."""
    rng, held = np.random.default_rng(4), 0
    for _ in range(400):
        levels = rng.beta(0.6 * 4, 0.4 * 4, (num, 1))
        second = (rng.random((num, questions)) < 0.3).astype(float)
        first = np.maximum(second, rng.random((num, questions)) < levels)
        rho = correlation([first - second])
        found = difference(first.tolist(), second.tolist(), rho=rho)
        held += found.low <= 0.7 * 0.6 <= found.high
    assert held / 400 >= 0.93
