"""Shares are met, nothing is repeated, and what cannot be is a sentence."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.core.errors import InputError
from ropewalk.data.mixing import Mix, choose, targets


def taken(have: list[list[float]], mix: Mix) -> list[list[float]]:
    names = ["a", "b", "c"][: len(have)]
    return np.round(targets(np.array(have, dtype=float), mix, names), 3).tolist()


def test_by_default_two_fifths_are_short() -> None:
    assert taken([[600, 4000]], Mix()) == [[600, 400]]
    assert taken([[600, 4000], [0, 4000]], Mix()) == [[600, 200], [0, 200]]


def test_where_there_is_less_that_is_short_all_of_it_is_taken() -> None:
    assert taken([[600, 100]], Mix()) == [[600, 100]]
    assert taken([[0, 100]], Mix()) == [[0, 100]]


def test_the_short_share_is_the_users() -> None:
    assert taken([[600, 4000]], Mix(short_share=0.0)) == [[600, 0]]
    assert taken([[600, 4000]], Mix(short_share=1.0)) == [[600, 4000]]
    assert taken([[600, 4000]], Mix(keep_short=0.5)) == [[600, 4000]]


def test_stated_shares_are_met_without_repeating() -> None:
    assert taken([[100, 0], [1000, 0]], Mix(shares={"a": 1, "b": 3})) == [[100, 0], [300, 0]]
    assert taken([[100, 0], [1000, 0]], Mix(shares={"a": 0, "b": 3})) == [[0, 0], [1000, 0]]


def test_short_documents_of_stated_shares_stay_below_the_limit() -> None:
    found = np.array(taken([[300, 900], [0, 900]], Mix(shares={"a": 70, "b": 30})))
    total = found.sum()
    assert found.sum(axis=1) / total == pytest.approx([0.7, 0.3], abs=1e-3)
    assert found[:, 1].sum() / total == pytest.approx(0.4, abs=1e-3)
    # All that is long in a is taken: 60% of the whole.
    assert found[0, 0] == pytest.approx(300, abs=0.1)


def test_a_source_without_long_documents_raises_the_default_and_not_the_users_word() -> None:
    shares = {"a": 0.2, "b": 0.8}
    found = np.array(taken([[300, 0], [0, 900]], Mix(shares=shares)))
    assert found[1, 1] / found.sum() == pytest.approx(0.8, abs=1e-3)
    with pytest.raises(InputError, match="gives 80% to sources without a long document, and --short-share allows 40%"):
        taken([[300, 0], [0, 900]], Mix(shares=shares, short_share=0.4))


@settings(max_examples=100, deadline=None)
@given(
    have=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=2, max_size=3),
    shares=st.lists(st.integers(1, 9), min_size=3, max_size=3),
)
def test_a_mix_never_takes_more_than_there_is(have: list[tuple[int, int]], shares: list[int]) -> None:
    if any(sum(pair) == 0 for pair in have):
        return
    amounts = np.array(have, dtype=float)
    wanted = np.array(shares[: len(have)], dtype=float) / sum(shares[: len(have)])
    found = targets(amounts, Mix(shares=dict(zip("abc", wanted, strict=False))), ["a", "b", "c"][: len(have)])
    assert (found >= -1e-6).all()
    assert (found <= amounts + 1e-6).all()
    assert found.sum() > 0
    assert found.sum(axis=1) / found.sum() == pytest.approx(wanted, abs=1e-6)


def test_a_source_that_is_cut_keeps_its_own_proportion_of_long_documents() -> None:
    halves, shares = np.array([[900.0, 900.0], [300.0, 300.0]]), Mix(shares={"a": 1, "b": 1})
    assert np.round(targets(halves, shares, ["a", "b"], 1.0), 6).tolist() == [[300, 300], [300, 300]]
    # What the limit takes away is short; b is taken whole, so it is all of a.
    assert np.round(targets(halves, shares, ["a", "b"], 0.4), 6).tolist() == [[420, 180], [300, 300]]
    # Ten to one is below the limit, and stays.
    mostly_long = np.array([[1000.0, 100.0], [550.0, 0.0]])
    assert np.round(targets(mostly_long, shares, ["a", "b"], 0.4), 6).tolist() == [[500, 50], [550, 0]]


@settings(max_examples=100, deadline=None)
@given(
    have=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=2, max_size=3),
    shares=st.lists(st.integers(1, 9), min_size=3, max_size=3),
    limit=st.floats(0.05, 1.0),
)
def test_proportions_hold_up_to_the_limit(have: list[tuple[int, int]], shares: list[int], limit: float) -> None:
    amounts = np.array(have, dtype=float)
    if (amounts.sum(axis=1) == 0).any():
        return
    mix = Mix(shares=dict(zip("abc", shares[: len(have)], strict=False)))
    found = targets(amounts, mix, ["a", "b", "c"][: len(have)], limit)
    wanted, own = found.sum(axis=1), amounts[:, 1] / amounts.sum(axis=1)
    least = np.maximum(0.0, wanted - amounts[:, 0])
    proportional, only_short = wanted * own, float(found[amounts[:, 0] == 0].sum())
    most = max(limit * found.sum(), only_short)
    assert found[:, 1].sum() == pytest.approx(min(proportional.sum(), most), abs=1e-4)
    if proportional.sum() <= most:
        assert found[:, 1] == pytest.approx(proportional, abs=1e-4)
    # Never more short ones than in proportion, never fewer than the share needs.
    assert (found[:, 1] <= proportional + 1e-4).all()
    assert (found[:, 1] >= least - 1e-4).all()


def test_documents_are_chosen_by_the_seed_and_the_last_long_one_is_cut() -> None:
    lengths = np.array([100, 100, 100, 5, 5, 5, 5, 5, 5] * 10)
    sources = np.repeat([0, 1], 45)
    mix = Mix(shares={"a": 1, "b": 2}, short_share=0.1)
    kept = choose(lengths, sources, ["a", "b"], short=10, mix=mix, seed=0)
    again = choose(lengths, sources, ["a", "b"], short=10, mix=mix, seed=0)
    other = choose(lengths, sources, ["a", "b"], short=10, mix=mix, seed=1)
    assert kept.tolist() == again.tolist()
    assert kept.tolist() != other.tolist()
    assert set(kept[lengths == 5].tolist()) == {0, 5}
    assert sum(0 < tokens < 100 for tokens in kept[lengths == 100].tolist()) <= 2
    assert kept[sources == 0].sum() / kept.sum() == pytest.approx(1 / 3, abs=0.01)
    # A tenth would be allowed; of each source a tenth of what is long is short.
    assert kept[lengths == 5].sum() / kept.sum() == pytest.approx(1 / 11, abs=0.005)


def test_long_documents_are_not_the_ones_that_are_left_out() -> None:
    """A: nine documents of 1,000 tokens and ninety of 99; B: six of 1,000."""
    lengths, sources = np.repeat([1000, 99, 1000], [9, 90, 6]), np.repeat([0, 1], [99, 6])
    mix = Mix(shares={"a": 1, "b": 1})
    for limit, num_short in ((1.0, 30), (0.2, 24)):
        kept = choose(lengths, sources, ["a", "b"], short=127, mix=mix, seed=0, limit=limit)
        long, short = kept[:9], kept[9:99]
        assert (kept[99:] == 1000).all()
        assert (short > 0).sum() == num_short
        assert long.sum() + short.sum() == pytest.approx(6000, abs=127)
        assert long.sum() >= 3000


def test_short_documents_are_kept_with_their_probability() -> None:
    lengths = np.array([5] * 4000 + [100] * 10)
    kept = choose(lengths, np.zeros(4010, dtype=int), ["a"], short=10, mix=Mix(keep_short=0.1), seed=0)
    assert (kept[:4000] > 0).mean() == pytest.approx(0.1, abs=0.02)
    assert (kept[4000:] == 100).all()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"short_share": 1.5}, "--short-share lies between 0 and 1, got 1.5"),
        ({"short_share": 0.5, "keep_short": 0.5}, "contradict each other"),
        ({"shares": {"a": -1.0}}, "numbers of at least 0"),
        ({"shares": {"a": 0.0}}, "not all 0"),
        ({"shares": {"a": float("nan")}}, "numbers of at least 0"),
    ],
)
def test_a_mix_that_means_nothing_is_refused(fields: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Mix(**fields)


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ({"boks": 1}, "names 'boks', which is no source; did you mean books"),
        ({"books": 1}, "says nothing of code; give every source a share"),
    ],
)
def test_a_share_for_no_source_and_a_source_without_a_share_are_refused(shares: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Mix(shares=shares).vector(["books", "code"])


def test_a_share_of_an_empty_source_is_refused() -> None:
    with pytest.raises(InputError, match="gives b a share, and there is no document in it"):
        taken([[10, 0], [0, 0]], Mix(shares={"a": 1, "b": 1}))
