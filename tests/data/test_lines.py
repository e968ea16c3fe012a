"""Haystacks made of lines: exact at one length, cut at line ends where they grow, planted lines near their depths."""

from itertools import count, islice

import numpy as np
import pytest
from characters import Characters
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.core.errors import TextError
from ropewalk.data.tasks.encoding import Encoder
from ropewalk.data.tasks.lines import REMARK, lay, listing, remark

ENCODER = Encoder(tokenizer=Characters(), prefix=np.zeros(0, dtype=np.int64))
OPENING = ENCODER.ids("Read.\n")
LONGEST_LINE = 45


def fillers(seed=0):
    rng = np.random.default_rng(seed)
    return (ENCODER.ids(f"line {i} {'x' * int(rng.integers(0, 30))}\n") for i in count())


def planted(num):
    return [ENCODER.ids(f"PLANTED {i:04d}\n") for i in range(num)]


def text(laid):
    return Characters().decode(laid.context.tolist())


DEPTHS = st.lists(st.floats(0, 1), max_size=6).map(tuple)


@settings(max_examples=60, deadline=None)
@given(length=st.integers(250, 3000), depths=DEPTHS, seed=st.integers(0, 9))
def test_one_length_is_exact_and_planted_lines_are_near_their_depths(length, depths, seed):
    laid = lay(ENCODER, OPENING, fillers(seed), planted(len(depths)), lengths=(length,), tail=20, depths=depths)
    assert laid.lengths == (length,)
    assert laid.cuts == (laid.context.size,) == (length - 20,)
    lines = text(laid).split("\n")
    assert len(laid.asked) == len(laid.placed) == sum(line.startswith("PLANTED") for line in lines) == laid.num_planted(0)
    for (_, index), rank in laid.asked.items():
        assert text(laid)[laid.placed[rank] :].startswith(f"PLANTED {rank:04d}\n")
        assert abs(laid.placed[rank] - depths[index] * length) < 2 * LONGEST_LINE + 13 * len(depths) + 20
    told = [int(line.split()[1]) for line in lines if line.startswith("line ")]
    assert told == list(range(len(told)))
    assert all(text(laid)[start - 1] == "\n" for start in laid.starts)
    assert laid.num_lines(0) == len(laid.starts) == len(told) + len(depths)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.integers(150, 900), min_size=2, max_size=5), depths=DEPTHS, seed=st.integers(0, 9))
def test_a_growing_haystack_is_cut_at_line_ends_after_what_each_stage_asks_for(steps, depths, seed):
    lengths = tuple(int(n) for n in np.cumsum([200, *steps]))
    laid = lay(ENCODER, OPENING, fillers(seed), planted(len(depths) * len(lengths)), lengths=lengths, tail=20, depths=depths)
    assert laid.asked.keys() == {(stage, index) for stage in range(len(lengths)) for index in range(len(depths))}
    for stage, (asked, true, cut) in enumerate(zip(lengths, laid.lengths, laid.cuts, strict=True)):
        assert asked - LONGEST_LINE < true == cut + 20 <= asked
        assert text(laid)[cut - 1] == "\n"
        for index in range(len(depths)):
            assert laid.placed[laid.asked[stage, index]] + 13 <= cut
    assert laid.context.size == laid.cuts[-1]
    assert list(laid.placed) == sorted(laid.placed)


def test_a_stage_nearer_than_a_line_is_refused_or_fits():
    for step in range(1, 40):
        try:
            laid = lay(ENCODER, OPENING, fillers(), planted(4), lengths=(400, 400 + step), tail=20, depths=(0.0, 0.97))
        except TextError as error:
            assert "spread --lengths" in str(error)  # noqa: PT017 - both outcomes are right
        else:
            assert all(laid.placed[rank] + 13 <= laid.cuts[stage] for (stage, _), rank in laid.asked.items())


def test_any_line_can_be_asked_for():
    laid = lay(ENCODER, OPENING, fillers(), lengths=(1000,), tail=20)
    assert laid.nearest(0, 0.0) == 0
    assert laid.nearest(0, 1.0) == laid.num_lines(0) - 1
    middle = laid.starts[laid.nearest(0, 0.5)]
    assert abs(middle - (laid.starts[0] + laid.starts[-1]) / 2) <= LONGEST_LINE


def test_no_room_and_too_few_lines_are_refused():
    with pytest.raises(TextError, match="100 tokens leave no room for 9 lines; the smallest length is 1"):
        lay(ENCODER, OPENING, fillers(), planted(9), lengths=(100,), tail=20, depths=(0.5,) * 9, what="9 lines")
    with pytest.raises(TextError, match="the lines end after 3, before the haystack is full; give more of them"):
        lay(ENCODER, OPENING, islice(fillers(), 3), lengths=(1000,), tail=20)


@pytest.mark.parametrize("size", [0, 1, 50, len(REMARK), 3 * len(REMARK) + 7])
def test_a_remark_is_exact_and_ends_with_its_line(size):
    ids = remark(ENCODER, size)
    assert ids.size == size
    assert (REMARK * 4).endswith(Characters().decode(ids.tolist()))


def test_a_list_says_where_each_item_is():
    ids, spans = listing(ENCODER, [("", "one"), (",", "two"), (" 3.", "three")])
    assert Characters().decode(ids.tolist()) == " one, two 3. three"
    assert [Characters().decode(ids[low:high].tolist()) for low, high in spans] == [" one", " two", " three"]
