"""Needles put into a real text, at depths of one length or of every stage of a growing one.

A needle is moved back to the end of a sentence where one is near, so depths are near, not at, what was asked; the true depth
is recorded. In a growing haystack the needles of all stages stand in one context: a depth of a stage that falls beside a
needle that is there already uses that one, and none lies across a stage's end.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from ropewalk.data.tasks.encoding import Ids

SEARCH_BACK = 64
"""Tokens looked back for the end of a sentence."""
APART = 24
"""Tokens of text between two needles of a growing haystack, at the least."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where needles go: positions in the context, before they are moved to the ends of sentences."""

    positions: tuple[int, ...]
    """Rising; needle i's first token."""
    asked: dict[tuple[int, int], int]
    """(stage, index of the depth) -> needle."""


def layout(cuts: Sequence[int], depths: Sequence[float], *, opening: int, size: int) -> Layout:
    """Positions for needles of at most `size` tokens in a context that begins with `opening` tokens and is cut at `cuts`."""
    taken: list[int] = []
    asked: dict[tuple[int, int], int] = {}
    apart = size + (APART if len(cuts) > 1 else 0)
    for stage, cut in enumerate(cuts):
        for index, depth in enumerate(depths):
            target = opening + round(depth * (cut - opening - size))
            # A needle never lies across the end of an earlier stage.
            target = next((c for c in cuts[:stage] if target < c < target + size), target)
            near = min(range(len(taken)), key=lambda i: abs(taken[i] - target), default=None)
            if near is None or abs(taken[near] - target) >= apart or len(cuts) == 1:
                near = len(taken)
                taken.append(target)
            asked[stage, index] = near
    order = sorted(range(len(taken)), key=taken.__getitem__)
    if len(cuts) == 1:
        # Needles that stand close go in one after another; the last of them must still end before the context does.
        for behind, needle in enumerate(reversed(order), start=1):
            taken[needle] = min(taken[needle], cuts[0] - behind * size)
    rank = {needle: place for place, needle in enumerate(order)}
    return Layout(positions=tuple(taken[i] for i in order), asked={key: rank[needle] for key, needle in asked.items()})


def sentence_ends(tokenizer: Any, filler: Ids) -> set[int]:
    """The token ids in `filler` after which a sentence or line has ended."""
    kinds = np.unique(filler)
    texts = tokenizer.batch_decode([[int(kind)] for kind in kinds])
    return {int(kind) for kind, text in zip(kinds, texts, strict=True) if text.endswith((".", "\n", ".\n"))}


def plant(
    filler: Ids, needles: Sequence[Ids], positions: Sequence[int], *, opening: Ids, cuts: Sequence[int],
    ends: Set[int] = frozenset(),
) -> tuple[Ids, list[int]]:  # fmt: skip
    """A context of cuts[-1] tokens, and where each needle begins in it. Positions rise; needles go in order."""
    pieces, placed, at, read = [opening], [], int(opening.size), 0
    for needle, position in zip(needles, positions, strict=True):
        free = max(0, position - at)
        lowest = max([0, *(c - at for c in cuts if at < c <= position)])
        back = next((n for n in range(free, max(lowest, free - SEARCH_BACK), -1) if int(filler[read + n - 1]) in ends), free)
        pieces += [filler[read : read + back], needle]
        placed.append(at + back)
        read, at = read + back, at + back + int(needle.size)
    pieces.append(filler[read : read + cuts[-1] - at])
    context = np.concatenate(pieces)
    assert context.size == cuts[-1], "the filler was checked to be long enough"
    return context, placed
