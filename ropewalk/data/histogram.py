"""How long documents are: the histogram of a source, and how much of it lies beyond a length.

Two shares, which are not the same thing: of tokens in *documents* longer than a length, and of tokens *at positions* beyond
it, which are the ones that see that far back. A document of 9k tokens counts whole in the first and a ninth in the second.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

EDGES = tuple(1024 * 2**power for power in range(9))
"""Upper ends of the histogram's bins, 1k to 256k; the last bin has none."""
BEYOND = (4096, 8192, 32768)


def histogram(lengths: NDArray[np.int64]) -> list[dict[str, int | None]]:
    """Documents and tokens by length: bins (low, high], in tokens."""
    where = np.searchsorted(EDGES, lengths)
    found: list[dict[str, int | None]] = []
    for index, (low, high) in enumerate(zip((0, *EDGES), (*EDGES, None), strict=True)):
        inside = lengths[where == index]
        found.append({"low": low, "high": high, "num_documents": int(inside.size), "num_tokens": int(inside.sum())})
    return found


def share_in_documents_beyond(lengths: NDArray[np.int64], edge: int) -> float:
    """Share of tokens that are in a document of more than `edge` tokens."""
    return float(lengths[lengths > edge].sum() / max(1, lengths.sum()))


def share_at_positions_beyond(lengths: NDArray[np.int64], edge: int) -> float:
    """Share of tokens with `edge` tokens or more before them in their document."""
    return float(np.maximum(0, lengths - edge).sum() / max(1, lengths.sum()))


def described(lengths: NDArray[np.int64]) -> dict[str, Any]:
    """Everything there is to say of one source's lengths, as JSON."""
    return {
        "num_documents": int(lengths.size),
        "num_tokens": int(lengths.sum()),
        "longest": int(lengths.max()) if lengths.size else 0,
        "histogram": histogram(lengths),
        "in_documents_beyond": {str(edge): share_in_documents_beyond(lengths, edge) for edge in BEYOND},
        "at_positions_beyond": {str(edge): share_at_positions_beyond(lengths, edge) for edge in BEYOND},
    }


def table(sources: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    """Lines for a terminal: a row a source, the share of its tokens in each bin, and what lies beyond."""
    bins = [f"{edge // 1024}k" for edge in EDGES]
    head = ["source", "documents", "tokens", *(f"<={name}" for name in bins), f">{bins[-1]}"]
    head += [f"pos>{edge // 1024}k" for edge in BEYOND]
    rows = [head]
    for name, said in sources:
        total = max(1, said["num_tokens"])
        shares = [bin_["num_tokens"] / total for bin_ in said["histogram"]]
        shares += [said["at_positions_beyond"][str(edge)] for edge in BEYOND]
        rows.append([name, f"{said['num_documents']:,}", f"{said['num_tokens']:,}", *map(_percent, shares)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = [
        "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True))) for r in rows
    ]
    return [line.rstrip() for line in lines]


def _percent(share: float) -> str:
    return "-" if share == 0 else f"{100 * share:.1f}%" if share >= 0.001 else "<0.1%"
