"""Haystacks made of lines, exact to the token, with lines put in at depths of one length or of every stage of a growing one.

Lines cannot hit a length by themselves. A haystack of one length is filled by a remark at its start, cut to fit; its
length is exact. A growing one has no remark, for what stands at the start would have to fit every stage: each stage ends
at the last line that fits, and the true lengths, each below what was asked by less than a line, are returned and
recorded.

A planted line stands at the line break nearest to its depth, so depths are near, not at, what was asked. No line lies
across a stage's end.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ropewalk.core.errors import TextError
from ropewalk.data.tasks.encoding import EMPTY, Encoder, Ids
from ropewalk.data.tasks.planting import Layout, layout
from ropewalk.data.tasks.task import too_short

REMARK = (
    "What follows was copied by hand from an old ledger, page after page, by people who did not know one another. "
    "Some of them wrote small and some wrote large, and a few left the ends of their lines to the damp. "
    "Nobody has put the pages into another order since, and nobody has found a use for this remark, "
    "which says nothing about what is asked later and only fills the rest of the first page. "
    "The ledger itself lies in a drawer near the window, under a stone, and may be seen on request.\n"
)
"""Fills what lines leave free. Its last tokens are taken, so that it ends with its line."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Laid:
    """A context made of lines."""

    context: Ids
    cuts: tuple[int, ...]
    """Where each stage's context ends: always at the end of a line."""
    lengths: tuple[int, ...]
    """True lengths of the stages, with the tail; equal to what was asked where there is one stage."""
    starts: tuple[int, ...]
    """The first token of every line, in order, planted lines among them."""
    placed: tuple[int, ...]
    """The first token of each planted line, in the order they were given."""
    asked: dict[tuple[int, int], int]
    """(stage, index of the depth) -> planted line."""

    def num_lines(self, stage: int) -> int:
        """Lines in the context of one stage."""
        return sum(start < self.cuts[stage] for start in self.starts)

    def num_planted(self, stage: int) -> int:
        """Planted lines in the context of one stage."""
        return sum(start < self.cuts[stage] for start in self.placed)

    @property
    def all_planted(self) -> tuple[int, ...]:
        """Planted lines in the context of each stage."""
        return tuple(self.num_planted(stage) for stage in range(len(self.cuts)))

    def nearest(self, stage: int, depth: float) -> int:
        """Index of the line of a stage that stands nearest to a depth, for tasks in which any line may be asked for."""
        first, last = self.starts[0], self.starts[self.num_lines(stage) - 1]
        target = first + depth * (last - first)
        return min(range(self.num_lines(stage)), key=lambda index: abs(self.starts[index] - target))


def lay(
    encoder: Encoder, opening: Ids, fillers: Iterable[Ids], planted: Sequence[Ids] = (), *, lengths: Sequence[int],
    tail: int, depths: Sequence[float] = (), what: str = "a line", min_fillers: int = 1,
    first: Ids = EMPTY, filling: str = REMARK,
) -> Laid:  # fmt: skip
    """A context that begins with `opening` and leaves `tail` tokens of each length for the question and its answer.

    `planted` holds a line for each depth of each stage, in the order they are to stand in; not all are used where needles
    of several stages fall together. `first` stands between the remark and the lines; `filling` is said in the remark's
    place. Raises `TextError` where the shortest length has no room for its planted lines and `min_fillers` others (`what`
    names them), or where `fillers` end before the room does.
    """
    size = max((int(line.size) for line in planted), default=0)
    drawn: list[Ids] = []
    stock = iter(fillers)
    for _ in range(max(1, min_fillers)):
        drawn.append(_next(stock, len(drawn)))
    start = int(opening.size) + int(first.size)
    least = start + tail + size * len(depths) + sum(int(line.size) for line in drawn)
    if lengths[0] < least:
        raise too_short(lengths[0], least, what)
    wanted = [length - tail for length in lengths]
    plan = layout(wanted, depths, opening=start, size=size)
    used = list(planted[: len(plan.positions)])
    free = wanted[-1] - start - (sum(int(line.size) for line in used) if len(lengths) == 1 else 0)
    held = sum(int(line.size) for line in drawn)
    while held <= free:
        drawn.append(_next(stock, len(drawn)))
        held += int(drawn[-1].size)
    rest = EMPTY
    if len(lengths) == 1:
        rest = remark(encoder, free - held + int(drawn[-1].size), filling)
        plan = layout(wanted, depths, opening=start + int(rest.size), size=size)
    return _assemble([opening, rest, first], drawn, used, plan, wanted, lengths)


def remark(encoder: Encoder, size: int, filling: str = REMARK) -> Ids:
    """The last `size` tokens of the remark, said as often as it takes."""
    ids = encoder.ids(filling)
    return np.tile(ids, size // int(ids.size) + 1)[-size:] if size else EMPTY


def listing(encoder: Encoder, items: Sequence[tuple[str, str]]) -> tuple[Ids, tuple[tuple[int, int], ...]]:
    """An answer that lists several things, and where each lies in it; an item is what stands before it and itself."""
    pieces, spans, at = [], [], 0
    for before, item in items:
        glue, ids = encoder.ids(before) if before else EMPTY, encoder.ids(f" {item}")
        low = at + int(glue.size)
        at = low + int(ids.size)
        pieces += [glue, ids]
        spans.append((low, at))
    return np.concatenate(pieces), tuple(spans)


def _next(stock: Iterator[Ids], num: int) -> Ids:
    line = next(stock, None)
    if line is None:
        raise TextError(f"the lines end after {num}, before the haystack is full; give more of them or smaller --lengths")
    return line


def _assemble(
    pieces: list[Ids], fillers: Sequence[Ids], planted: Sequence[Ids], plan: Layout, wanted: Sequence[int],
    lengths: Sequence[int],
) -> Laid:  # fmt: skip
    """Lines in their order: a planted one where its position is nearer than the next filler's end, or its stage is."""
    at = sum(int(piece.size) for piece in pieces)
    starts: list[int] = []
    placed: list[int] = []
    cuts: list[int] = []
    stock, sizes = iter(fillers), [int(line.size) for line in planted]
    filler = next(stock)
    # Lines that must lie before a stage's end are all those up to the last one asked for at that stage or before it.
    must = [
        max((rank + 1 for (at_stage, _), rank in plan.asked.items() if at_stage <= s), default=0) for s in range(len(wanted))
    ]
    while len(cuts) < len(wanted):
        num, stage = len(placed), len(cuts)
        due = num < len(planted) and plan.positions[num] <= at + filler.size / 2
        after = sum(sizes[num + due : must[stage]])
        if at + (sizes[num] if due else int(filler.size)) + after > wanted[stage]:
            if num >= must[stage]:
                cuts.append(at)
                continue
            if at + sizes[num] > wanted[stage]:
                raise TextError(
                    f"the stages up to {lengths[stage]} tokens lie nearer than a line of {sizes[num]}; spread --lengths"
                )
            due = True
        starts.append(at)
        if due:
            placed.append(at)
        pieces.append(planted[num] if due else filler)
        at += int(pieces[-1].size)
        if not due:
            filler = next(stock)
    context = np.concatenate(pieces)
    return Laid(
        context=context, cuts=tuple(cuts), starts=tuple(starts), placed=tuple(placed), asked=plan.asked,
        lengths=tuple(length - cut + true for length, cut, true in zip(lengths, wanted, cuts, strict=True)),
    )  # fmt: skip
