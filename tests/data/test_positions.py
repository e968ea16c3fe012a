"""Rows as literal pictures, and position ids as published."""

import numpy as np
import pytest

from ropewalk.core.errors import InputError
from ropewalk.data.positions import pose, randomized
from ropewalk.data.rows import NOT_LEARNED, Row, make_row


def everything(*ids: int) -> tuple[np.ndarray, np.ndarray]:
    return np.array(ids), np.ones(len(ids), dtype=bool)


def one(size: int) -> Row:
    return make_row([everything(*range(1, size + 1))])


def test_a_pack_is_this_picture() -> None:
    answer = (np.array([7, 8, 9]), np.array([False, False, True]))
    row = make_row([everything(5, 6, 5), answer, everything(4)], length=9, pad_id=0)
    assert row.ids.tolist() == [5, 6, 5, 7, 8, 9, 4, 0, 0]
    assert row.labels.tolist() == [-100, 6, 5, -100, -100, 9, -100, -100, -100]
    assert row.position_ids.tolist() == [0, 1, 2, 0, 1, 2, 0, 0, 0]
    assert row.document_ids.tolist() == [0, 0, 0, 1, 1, 1, 2, 3, 3]
    assert (row.num_documents, row.num_tokens, row.num_padding) == (3, 7, 2)
    assert {a.dtype for a in (row.ids, row.labels, row.position_ids, row.document_ids)} == {np.dtype(np.int64)}


def test_the_first_label_is_masked_and_what_is_given_is_not_changed() -> None:
    ids, learned = everything(3, 4)
    row = make_row([(ids, learned), (ids, learned)])
    assert row.labels.tolist() == [NOT_LEARNED, 4, NOT_LEARNED, 4]
    assert learned.all()


def test_positions_start_anew_in_each_document() -> None:
    assert make_row([everything(5, 6, 5), everything(7, 8)]).position_ids.tolist() == [0, 1, 2, 0, 1]


@pytest.mark.parametrize("num_chunks", [1, 2, 3, 5, 16])
@pytest.mark.parametrize("size", [16, 17])
def test_pose_moves_chunks_apart_and_nothing_else(size: int, num_chunks: int) -> None:
    row = one(size)
    for seed in range(200):
        moved = pose(row, 64, np.random.default_rng(seed), num_chunks)
        steps = np.diff(moved.position_ids)
        assert moved.position_ids[0] == 0
        assert moved.position_ids[-1] < 64
        assert (steps >= 1).all()
        assert (steps > 1).sum() <= num_chunks - 1
        assert moved.ids is row.ids
        assert moved.labels is row.labels
        assert moved.document_ids is row.document_ids


def test_poses_skip_is_uniform_and_its_first_chunk_at_most_half() -> None:
    rng = np.random.default_rng(0)
    skips, firsts = [], []
    for _ in range(20_000):
        positions = pose(one(8), 11, rng).position_ids
        skips.append(int(positions[-1]) - 7)
        if skips[-1]:
            firsts.append(int(np.flatnonzero(np.diff(positions) > 1)[0]) + 1)
    assert np.bincount(skips).tolist() == pytest.approx([5000] * 4, rel=0.06)
    assert np.bincount(firsts)[1:].tolist() == pytest.approx([3750] * 4, rel=0.06)


def test_a_third_chunk_never_falls_behind_the_second() -> None:
    rng = np.random.default_rng(1)
    seen = {tuple(pose(one(3), 5, rng, 3).position_ids.tolist()) for _ in range(500)}
    assert seen == {(0, 1 + u, 2 + v) for u in range(3) for v in range(u, 3)}


def test_randomized_positions_are_sorted_subsets_each_as_likely() -> None:
    rng = np.random.default_rng(0)
    found = [tuple(randomized(one(2), 4, rng).position_ids.tolist()) for _ in range(6000)]
    counts = {kind: found.count(kind) for kind in sorted(set(found))}
    assert list(counts) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert list(counts.values()) == pytest.approx([1000] * 6, rel=0.12)
    assert randomized(one(4), 4, rng).position_ids.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("move", [pose, randomized])
def test_a_pack_and_a_row_that_is_too_long_are_refused(move: object) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="one document, got a pack of 2"):
        move(make_row([everything(1, 2), everything(3)]), 8, rng)  # type: ignore[operator]
    with pytest.raises(InputError, match="for 3 tokens need rows of at most that, got 4"):
        move(one(4), 3, rng)  # type: ignore[operator]


@pytest.mark.parametrize("move", [pose, randomized])
def test_padding_is_no_document_and_does_not_move(move: object) -> None:
    plain, padded = one(6), make_row([everything(1, 2, 3, 4, 5, 6)], length=9)
    for seed in range(20):
        alone, beside = (move(row, 64, np.random.default_rng(seed)) for row in (plain, padded))  # type: ignore[operator]
        assert beside.position_ids[:6].tolist() == alone.position_ids.tolist()
        assert beside.position_ids[6:].tolist() == [0, 0, 0]
    assert padded.position_ids.tolist() == [0, 1, 2, 3, 4, 5, 0, 0, 0]
    with pytest.raises(InputError, match="one document, got a pack of 2"):
        move(make_row([everything(1, 2), everything(3)], length=9), 64, np.random.default_rng(0))  # type: ignore[operator]


def test_a_row_without_text_has_no_document() -> None:
    row = make_row([], length=3)
    assert (row.num_documents, row.num_tokens, row.num_padding) == (0, 0, 3)


def test_more_chunks_than_tokens_are_refused() -> None:
    with pytest.raises(InputError, match="3 tokens cannot be divided into 4 chunks; give 1 to 3"):
        pose(one(3), 8, np.random.default_rng(0), 4)
