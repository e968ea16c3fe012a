"""Rows that a user gives: who draws their positions, and what is refused before or at a row."""

import numpy as np
import pytest

from ropewalk.core.errors import InputError
from ropewalk.data.given import LOOKED_AT, Given
from ropewalk.data.rows import Row, make_row


class Plain:
    """Rows of counted tokens; those in `packs` hold two documents."""

    def __init__(self, num_rows: int = 8, packs: tuple[int, ...] = (), padding: int = 0) -> None:
        self.num_rows, self.packs, self.padding = num_rows, packs, padding

    def row(self, index: int) -> Row:
        sizes = [5, 7] if index in self.packs else [12]
        pieces = [(np.arange(index, index + size), np.ones(size, dtype=bool)) for size in sizes]
        return make_row(pieces, length=12 + self.padding)

    def __len__(self) -> int:
        return self.num_rows


class Own(Plain):
    """Rows at positions of their own."""

    positions = "pose"

    def row(self, index: int) -> Row:
        row = super().row(index)
        row.position_ids[6:] += 50
        return row


def places(given: Given, number: int) -> list[list[int]]:
    return [given.row(index).position_ids.tolist() for index in range(number)]


@pytest.mark.parametrize("positions", ["pose", "randomized"])
def test_positions_are_drawn_from_seed_stage_and_index(positions: str) -> None:
    asked = {"positions": positions, "target_length": 64}
    first = places(Given(Plain(), seed=(1, 0), **asked), 20)
    assert first == places(Given(Plain(), seed=(1, 0), **asked), 20)
    assert first != places(Given(Plain(), seed=(1, 1), **asked), 20)
    assert first != places(Given(Plain(), seed=(2, 0), **asked), 20)
    # Beyond the rows of an epoch others are drawn.
    assert len({tuple(row) for row in first}) > 15
    assert all(low >= 0 and high < 64 for low, *_, high in first)
    padded = places(Given(Plain(padding=4), seed=(1, 0), **asked), 20)
    assert padded == [[*row, 0, 0, 0, 0] for row in first]


def test_the_user_draws_where_the_user_says_so() -> None:
    given = Given(Own(), seed=(1, 0), positions="pose", target_length=64)
    assert places(given, 3) == [[*range(6), *range(56, 62)]] * 3
    assert given.positions == "pose"
    for asked in ("full", "randomized"):
        with pytest.raises(InputError, match=f"pose positions of their own, and {asked} are asked for"):
            Given(Own(), seed=0, positions=asked, target_length=64)


def test_full_positions_are_left_alone() -> None:
    given = Given(Plain(packs=(3,)), seed=0)
    assert given.packed
    assert places(given, 4) == [Plain(packs=(3,)).row(index).position_ids.tolist() for index in range(4)]
    assert not Given(Plain(padding=2), seed=0).packed


@pytest.mark.parametrize("asked", [{"apart": True}, {"positions": "pose", "target_length": 64}])
def test_a_pack_that_was_not_looked_at_is_refused_at_its_row(asked: dict) -> None:
    given = Given(Plain(LOOKED_AT + 2, packs=(LOOKED_AT + 1,)), seed=0, **asked)
    assert not given.packed
    given.row(LOOKED_AT)
    with pytest.raises(InputError, match=f"row {LOOKED_AT + 1} packs 2 documents, and this run needs one in each row"):
        given.row(LOOKED_AT + 1)


def test_what_the_user_says_of_packs_counts() -> None:
    rows = Plain(LOOKED_AT + 2, packs=(LOOKED_AT + 1,))
    rows.packed = True  # type: ignore[attr-defined]
    assert Given(rows, seed=0).packed
