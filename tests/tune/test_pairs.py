"""What groups leave of full attention is counted on the rows of a run, and said before its first step."""

import io
from pathlib import Path

import numpy as np
import pytest
from small import Tune
from streams import Counting

from ropewalk.attention.shifted import Shifted
from ropewalk.core.progress import Progress
from ropewalk.data.rows import Row, make_row
from ropewalk.tune.pairs import left, told
from ropewalk.tune.settings import Settings, Stage


def row_of(*sizes: int, length: int = 0) -> Row:
    return make_row([(np.ones(size, dtype=np.int64), np.ones(size, dtype=np.bool_)) for size in sizes], length=length)


def dense(shifted: Shifted, row: Row) -> float:
    """The same share by marking every pair in a square, half of the heads after the other."""
    total = row.num_tokens
    full = np.zeros((total, total), dtype=bool)
    ids = row.document_ids[:total]
    for i in range(total):
        full[i, : i + 1] = ids[: i + 1] == ids[i]
    ends = (np.flatnonzero(np.diff(ids, append=-1)) + 1).tolist()
    shares = []
    for layer in (0, 1):
        parts = shifted.parts(ends, layer)
        for part in parts:
            seen = np.zeros_like(full)
            for segment in part:
                order = [token for low, high in segment for token in range(low, high)]
                for i, token in enumerate(order):
                    seen[token, order[: i + 1]] = True
            shares.append((seen.sum() / full.sum(), len(parts)))
    return float(sum(share / count for share, count in shares) / 2)


@pytest.mark.parametrize("sizes", [(64,), (40, 24), (7, 7, 30, 5), (16, 16, 16)])
@pytest.mark.parametrize("pattern", ["heads", "layers", "shifted", "unshifted"])
@pytest.mark.parametrize("wrap", ["separate", "rolled"])
def test_the_share_is_that_of_the_pairs_one_by_one(sizes: tuple[int, ...], pattern: str, wrap: str) -> None:
    shifted = Shifted(group=16, pattern=pattern, wrap=wrap)
    row = row_of(*sizes, length=72)
    assert left(shifted, [row]).pairs == pytest.approx(dense(shifted, row))


def test_packs_of_short_documents_save_nothing() -> None:
    shifted = Shifted(group=8192)
    pack, one = row_of(*[4096] * 8), row_of(32768)
    assert (left(shifted, [pack]).pairs, left(shifted, [pack]).long) == (1.0, 0.0)
    # A quarter of the pairs in straight groups, and 7/32 where two of the five are halves.
    assert left(shifted, [one]).pairs == pytest.approx((1 / 4 + 7 / 32) / 2, abs=1e-4)
    assert left(shifted, [one]).long == 1.0


def test_each_stage_is_told_and_full_attention_says_nothing() -> None:
    stages = (Stage(window=32, steps=2), Stage(window=64, steps=1))
    settings = Settings(length=64, stages=stages, attention="s2", group=16)
    lines = told(settings, [Counting(32, documents=2), Counting(64)])
    assert lines[0].startswith("stage 1: groups of 16 tokens leave 100% of the pairs")
    assert "by the first 2 rows: 0% of the tokens stand in documents longer than a group" in lines[0]
    assert lines[1].startswith("stage 2: groups of 16 tokens leave 25% of the pairs")
    assert "next to nothing" not in lines[1]
    assert told(Settings(length=64, stages=stages), [Counting(32), Counting(64)]) == []


def test_a_run_says_it_before_its_first_step(tune: Tune, tmp_path: Path) -> None:
    said = io.StringIO()
    tune(tmp_path / "out", attention="s2", group=24, data=lambda window: Counting(window, documents=2), steps=1,
         progress=Progress(said))  # fmt: skip
    assert "groups of 24 tokens leave 100% of the pairs" in said.getvalue()
