"""Rows that a user gives in Python, as a stream that a run reads.

What a user gives is rows by index and their number. Their order, and what an index beyond their number holds (a later
epoch), are the user's. Positions are drawn here, from the seed, the stage and the index, as for a folder's rows; or by the
user, who then says which in an attribute `positions`. Whoever reads the stream draws nothing.

Given up: knowing before the start whether any row is a pack, where the user does not say so in an attribute `packed`: the
first rows are looked at, and a later one is refused where a run needs one document in each.
"""

import copy
from typing import Any, Protocol

from ropewalk.core.errors import InputError
from ropewalk.data.positions import Seed, drawn
from ropewalk.data.rows import Row

LOOKED_AT = 64
"""Rows in which packs are looked for."""


class GivenRows(Protocol):
    """What a user gives."""

    def row(self, index: int) -> Row:
        """Row `index`, from 0 without an end; the same whenever it is asked for."""

    def __len__(self) -> int:
        """Rows of one epoch."""


class Given:
    """A user's rows at the positions that a run asks for."""

    def __init__(
        self, rows: GivenRows, *, seed: Seed, positions: str = "full", target_length: int = 0, num_chunks: int = 2,
        apart: bool = False,
    ) -> None:  # fmt: skip
        """With `apart` a row of several documents is refused. Raises `InputError` for rows at other positions than asked."""
        own = getattr(rows, "positions", "full")
        if own not in ("full", positions):
            raise InputError(f"the rows have {own} positions of their own, and {positions} are asked for; say the same")
        self.rows, self.seed, self.positions = rows, seed, positions
        self.target_length, self.num_chunks = target_length, num_chunks
        self.apart = apart or positions != "full"
        self._draws = own != positions
        self._start = 0
        self.packed = self._packed()
        """Whether any row is known to hold more than one document."""

    def onward(self, seed: Seed, start: int) -> "Given":
        """The same rows at positions drawn from `seed`, counted from row `start`."""
        other = copy.copy(self)
        other.seed, other._start = seed, start
        return other

    def _packed(self) -> bool:
        said: Any = getattr(self.rows, "packed", None)
        if said is not None:
            return bool(said)
        return any(self.rows.row(index).num_documents > 1 for index in range(min(len(self.rows), LOOKED_AT)))

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, index: int) -> Row:
        """Row `index`, the same whenever it is asked for."""
        index += self._start
        row = self.rows.row(index)
        if self.apart and row.num_documents > 1:
            raise InputError(
                f"row {index} packs {row.num_documents} documents, and this run needs one in each row; give such rows, or "
                "say packed = True of them so that this is found before the start"
            )
        if not self._draws:
            return row
        return drawn(
            row, self.positions, seed=self.seed, index=index, target_length=self.target_length, num_chunks=self.num_chunks
        )
