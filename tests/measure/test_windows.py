"""Windows as literal small pictures."""

import pytest

from ropewalk.core.errors import LengthError
from ropewalk.measure.windows import (
    Window,
    crop_windows,
    disjoint_windows,
    length_windows,
    sliding_windows,
    truncated_windows,
)


def draw(windows: list[Window], length: int) -> list[str]:
    """`.` not read, `r` read, `S` scored."""
    rows = []
    for w in windows:
        rows.append("".join("S" if w.low <= i < w.end else "r" if w.begin <= i < w.end else "." for i in range(length)))
    return rows


def test_crop_windows_end_evenly_beyond_the_trained_length():
    assert draw(crop_windows(8, 16, 4, targets=2), 16) == [
        "..rrrrrrSS......",
        "....rrrrrrSS....",
        "......rrrrrrSS..",
        "........rrrrrrSS",
    ]


def test_crop_windows_score_less_rather_than_a_token_twice():
    windows = crop_windows(8, 14, 4, targets=2)
    scored = [i for w in windows for i in range(w.low, w.end)]
    assert len(scored) == len(set(scored))
    assert all(w.low >= 8 for w in windows)


def test_crop_windows_of_the_real_case():
    windows = crop_windows(8192, 16384, 4)
    assert [(w.begin, w.low, w.end) for w in windows] == [
        (2048, 9728, 10240),
        (4096, 11776, 12288),
        (6144, 13824, 14336),
        (8192, 15872, 16384),
    ]


def test_fewer_tokens_beyond_than_windows():
    assert [(w.begin, w.low, w.end) for w in crop_windows(8, 10, 8)] == [(1, 8, 9), (2, 9, 10)]


def test_nothing_beyond_is_refused():
    with pytest.raises(LengthError, match="length 8 is not above the trained length 8"):
        crop_windows(8, 8, 4)


def test_length_windows_read_from_the_start_and_score_what_crop_scores():
    crop, grown = crop_windows(8, 16, 4, targets=2), length_windows(8, 16, 4, targets=2)
    assert [(w.low, w.end) for w in grown[2:]] == [(w.low, w.end) for w in crop]
    assert [(w.begin, w.low, w.end) for w in grown[:2]] == [(0, 2, 4), (0, 6, 8)]
    assert all(w.begin == 0 for w in grown)


def test_disjoint_windows():
    assert draw(disjoint_windows(10, 4), 10) == ["rSSS......", "....rSSS..", "........rS"]
    assert draw(disjoint_windows(9, 4), 9) == ["rSSS.....", "....rSSS."]


def test_sliding_windows_score_each_token_once():
    assert draw(sliding_windows(10, 4, 2), 10) == ["rSSS......", "..rrSS....", "....rrSS..", "......rrSS"]
    assert draw(sliding_windows(9, 4, 2), 9)[-1] == ".....rrrS"


def test_truncated_windows_start_over_each_time():
    assert draw(truncated_windows(8, 4), 8) == ["rS......", "rSSS....", "rSSSSS..", "rSSSSSSS"]


@pytest.mark.parametrize(("window", "stride"), [(4, 0), (4, 5)])
def test_a_stride_outside_the_window_is_refused(window, stride):
    with pytest.raises(LengthError, match="stride must lie between 1 and the window"):
        sliding_windows(10, window, stride)


def test_a_window_of_one_token_is_refused():
    with pytest.raises(LengthError, match="a window has at least 2 tokens, got 1"):
        disjoint_windows(10, 1)
    with pytest.raises(LengthError, match="a text has at least 2 tokens, got 1"):
        disjoint_windows(1, 4)
