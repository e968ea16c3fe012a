"""How much of full attention shifted sparse attention leaves, on the rows that a run will read.

Groups begin anew at each document, so a document that is no longer than a group is read in full: a pack of short documents
costs what it costs without groups, and nothing of the shifted pattern is trained. That is right in value and nobody sees it,
so it is said before the first step. What is counted are pairs of a token and one that it sees, which attention's products
are proportional to, over all heads and layers; the rest of a layer costs the same with and without groups.

Given up: the time itself, in which many short calls cost more than one long one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ropewalk.attention.segments import Segments
from ropewalk.attention.shifted import Shifted
from ropewalk.data.rows import Row
from ropewalk.tune.attention import stage_groups
from ropewalk.tune.batches import Stream
from ropewalk.tune.settings import Settings

LOOKED_AT = 64
"""Rows of a stage that are counted."""
HARDLY = 0.9
"""Share of pairs above which groups save next to nothing."""


@dataclass(frozen=True, kw_only=True)
class Left:
    """What groups leave of some rows."""

    pairs: float
    """Share of the pairs of full attention inside documents."""
    long: float
    """Share of tokens that stand in documents longer than a group."""
    num_rows: int


def told(settings: Settings, streams: Sequence[Stream]) -> list[str]:
    """A sentence for each stage with groups: what they leave, and a warning where that is nearly all."""
    found = []
    for number, (shifted, stage, rows) in enumerate(zip(stage_groups(settings), settings.stages, streams, strict=True), 1):
        if shifted is None:
            continue
        wanted = min(LOOKED_AT, len(rows), stage.steps * settings.batch_size * settings.accumulate)
        name = f"stage {number}: " if len(settings.stages) > 1 else ""
        found.append(name + _words(left(shifted, [rows.row(index) for index in range(wanted)]), int(shifted.group)))
    return found


def left(shifted: Shifted, rows: Sequence[Row]) -> Left:
    """What groups in tokens leave of these rows."""
    kept = full = 0.0
    long = num_tokens = 0
    for row in rows:
        ends = np.flatnonzero(np.diff(row.document_ids[: row.num_tokens], append=-1)) + 1
        sizes = np.diff(ends, prepend=0)
        full += float((sizes * (sizes + 1) // 2).sum())
        kept += sum(_of_layer(shifted.parts(ends.tolist(), layer)) for layer in (0, 1)) / 2
        long += int(sizes[sizes > shifted.group].sum())
        num_tokens += row.num_tokens
    return Left(pairs=kept / max(1.0, full), long=long / max(1, num_tokens), num_rows=len(rows))


def _of_layer(parts: Sequence[Segments]) -> float:
    """Pairs of a layer, the mean of its parts of the heads."""
    return sum(_pairs(segments) for segments in parts) / len(parts)


def _pairs(segments: Segments) -> int:
    sizes = [sum(high - low for low, high in segment) for segment in segments]
    return sum(size * (size + 1) // 2 for size in sizes)


def _words(found: Left, group: int) -> str:
    rows = "row" if found.num_rows == 1 else f"{found.num_rows} rows"
    text = f"groups of {group:,} tokens leave {found.pairs:.0%} of the pairs of full attention, by the first {rows}"
    if found.pairs <= HARDLY:
        return text
    return (
        f"{text}: {found.long:.0%} of the tokens stand in documents longer than a group, so next to nothing is saved and "
        "the shifted pattern is hardly trained; give longer documents, a smaller --group, or --attention full"
    )
