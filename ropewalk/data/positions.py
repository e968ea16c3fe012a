"""Which position ids training sees: the text's own, PoSE's skips, or random ones.

PoSE (arXiv:2309.10400, equations 3 and 4) divides a short window into chunks and moves each chunk by a skip u_i, drawn
uniformly from u_{i-1} .. L_t - L_c with u_0 = 0, so that a window of L_c tokens shows distances up to L_t. Of two chunks the
first is at most half the window, as in the authors' training code; their paper's Figure 6 draws it up to L_c - 1. For more
chunks the lengths are drawn one after another, as that figure does for three.

Randomized positions (arXiv:2305.16843, section 3): a random subset of 0 .. L - 1, sorted. Theirs is drawn once per batch,
ours once per row.

Padding at a row's end stays at position 0 and takes no part. What is drawn for a row is a function of the stream's seed and
of the row's index alone.

Given up: skips in the text itself (equation 5, v_i): a row's chunks follow each other in the text, the variant v_i = 0 which
their appendix A measures as equal within noise. It needs no text beyond the row.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ropewalk.core.errors import InputError
from ropewalk.data.rows import Row

POSITIONS = ("full", "pose", "randomized")
"""What a stream can be asked for."""
Seed = int | tuple[int, int]
"""Of a stream: a number, or that and the stage of a run, so that no stage repeats another's draws."""
ORDER, DRAWN = 3, 4
"""What a generator is for: the order of rows, the positions of a row."""


def generator(seed: Seed, purpose: int, index: int) -> np.random.Generator:
    """The generator of one thing at one index. A number is stage 0 of itself."""
    first, stage = (seed, 0) if isinstance(seed, int) else seed
    return np.random.default_rng([first, stage, purpose, index])


def drawn(row: Row, positions: str, *, seed: Seed, index: int, target_length: int, num_chunks: int) -> Row:
    """Row `index` of a stream at the positions that its seed draws for it."""
    if positions == "pose":
        return pose(row, target_length, generator(seed, DRAWN, index), num_chunks)
    if positions == "randomized":
        return randomized(row, target_length, generator(seed, DRAWN, index))
    return row


def pose(row: Row, target_length: int, rng: np.random.Generator, num_chunks: int = 2) -> Row:
    """Chunks of one document, moved apart so that positions reach up to `target_length` - 1.

    Raises `InputError` for a pack, and where the row is longer than the target or shorter than its chunks.
    """
    _check_one_document(row, target_length, "pose")
    size = row.num_tokens
    if not 1 <= num_chunks <= size:
        raise InputError(f"a row of {size} tokens cannot be divided into {num_chunks} chunks; give 1 to {size}")
    skip, skips = 0, []
    for _ in range(1, num_chunks):
        skip = int(rng.integers(skip, target_length - size, endpoint=True))
        skips.append(skip)
    return _placed(row, np.arange(size) + np.repeat([0, *skips], _chunk_lengths(size, num_chunks, rng)))


def _chunk_lengths(size: int, num_chunks: int, rng: np.random.Generator) -> list[int]:
    """`num_chunks` lengths of at least one token that add up to `size`."""
    if num_chunks == 2:
        first = int(rng.integers(1, (size + 1) // 2, endpoint=True))
        return [first, size - first]
    lengths: list[int] = []
    for left in range(num_chunks - 1, 0, -1):
        lengths.append(int(rng.integers(1, size - sum(lengths) - left, endpoint=True)))
    return [*lengths, size - sum(lengths)]


def randomized(row: Row, target_length: int, rng: np.random.Generator) -> Row:
    """As many different positions below `target_length` as the row has tokens, in order.

    Raises `InputError` for a pack, and where the row is longer than the target.
    """
    _check_one_document(row, target_length, "randomized")
    places: NDArray[np.int64] = rng.choice(target_length, size=row.num_tokens, replace=False, shuffle=False)
    return _placed(row, np.sort(places))


def _placed(row: Row, places: NDArray[np.int64]) -> Row:
    """The row with its text at these positions, its padding at 0."""
    return replace(row, position_ids=np.pad(places, (0, row.num_padding)).astype(np.int64))


def _check_one_document(row: Row, target_length: int, name: str) -> None:
    if row.num_documents > 1:
        raise InputError(
            f"{name} positions need rows of one document, got a pack of {row.num_documents}: a jump between documents that "
            "do not see each other says nothing; give longer documents or full positions"
        )
    if target_length < row.num_tokens:
        raise InputError(
            f"{name} positions for {target_length} tokens need rows of at most that, got {row.num_tokens}; give shorter rows"
        )
