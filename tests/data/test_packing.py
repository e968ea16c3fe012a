"""Packs as literal pictures, and what holds for every pack."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.data.packing import best_fit, pack


def test_each_goes_where_least_room_is_left() -> None:
    #       row 0: 7 | 2 |       row 1: 6 | 4        row 2: 5 | 3
    assert best_fit([7, 6, 5, 4, 3, 2], 10) == [0, 1, 2, 1, 0, 2]
    assert best_fit([7, 6, 4, 3], 10) == [0, 1, 1, 0]
    assert best_fit([5, 5, 5], 10) == [0, 0, 1]


def test_a_long_document_is_cut_and_its_rest_is_kept() -> None:
    pieces = pack(np.array([10, 3, 0, 1]), 4)
    assert pieces.tolist() == [
        [0, 0, 0, 4],
        [1, 0, 4, 8],
        [2, 1, 0, 3],
        [2, 3, 0, 1],
        [3, 0, 8, 10],
    ]


@settings(max_examples=100, deadline=None)
@given(kept=st.lists(st.integers(0, 40), max_size=60), length=st.integers(1, 17))
def test_every_token_is_in_one_row_and_no_row_is_too_long(kept: list[int], length: int) -> None:
    pieces = pack(np.array(kept, dtype=np.int64), length)
    seen = [(d, t) for _, d, low, high in pieces.tolist() for t in range(low, high)]
    assert sorted(seen) == [(d, t) for d, size in enumerate(kept) for t in range(size)]
    rows = pieces[:, 0]
    assert (np.diff(rows) >= 0).all()
    used = np.bincount(rows, weights=pieces[:, 3] - pieces[:, 2]) if rows.size else np.zeros(0)
    assert ((used > 0) & (used <= length)).all()
    # Two rows that fit into one would have been one.
    assert np.sort(used)[:2].sum() > length or used.size < 2


def test_apart_no_row_holds_two_documents() -> None:
    assert pack(np.array([10, 3, 0, 1]), 4, apart=True).tolist() == [
        [0, 0, 0, 4],
        [1, 0, 4, 8],
        [2, 1, 0, 3],
        [3, 0, 8, 10],
        [4, 3, 0, 1],
    ]


def test_a_million_documents_take_no_minutes() -> None:
    kept = np.random.default_rng(0).integers(1, 5000, 20_000)
    pieces = pack(kept, 4096)
    padding = 1 - kept.sum() / ((pieces[-1, 0] + 1) * 4096)
    assert padding < 0.01
