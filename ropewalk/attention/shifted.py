"""Shifted sparse attention, S2 (LongLoRA, arXiv:2309.12307, section 3.2 and Algorithm 1): attention in groups in training.

A document is cut into groups. Half of the heads attend inside them, the other half inside groups that are shifted by half
a group, so that what one half cannot see from group to group the other can. Reading is always full attention.

Groups are counted in tokens and begin anew at each document, so a document is grouped alike wherever it stands: alone, in a
pack, or padded. The paper cuts the row into four, whatever is in it; with one document a row it is the same. A share of the
row, as the paper says it, is made tokens once, from the rows that a training stage has (`Shifted.at`), and never from a
batch, whose length is that of its padding.

The shift leaves half a group over at either end of a document. What becomes of the two is `wrap`:

- `separate` (default): each is a group of its own. Nothing leaks. The paper's ablation has it as variant 2 (perplexity 8.03
  against 8.04), and it is what its authors' flash path computes.
- `swap`: both are one group in the order of the text (variant 3, 8.05). Nothing leaks.
- `rolled`: both are one group, the end of the document before its start, which is Algorithm 1 as printed. The first half
  group so sees the future: an eighth of the positions of half of the heads at groups of a quarter.

`rolled` shifted the other way (the paper's variant 1) makes the same groups, so it has no name here. With one group there is
nothing to shift between, and all heads attend to all before them: full attention.

Patterns are those of the paper's table 6: `heads`, `layers` (every second layer shifted), `unshifted`, `shifted`. Left out:
dilated, block sparse and stride sparse attention, which the same table found worse (perplexity 11.78, 8.30 and 24.03 against
8.12) and which are not segments of neighbours.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil
from typing import Literal, get_args

from ropewalk.attention.segments import Segment, Segments, until
from ropewalk.core.errors import InputError, near

Pattern = Literal["heads", "layers", "unshifted", "shifted"]
Wrap = Literal["separate", "swap", "rolled"]


@dataclass(frozen=True, kw_only=True)
class Shifted:
    """How shifted sparse attention cuts documents."""

    group: int | float = 0.25
    """Group size: a whole number is tokens, a fraction a share of a stage's rows, for `at`. The paper's is a quarter."""
    pattern: Pattern = "heads"
    """Which groups are shifted: those of the second half of the heads, of every second layer, none, or all."""
    wrap: Wrap = "separate"
    """What becomes of the two half groups at the ends of a document. `rolled` leaks the future."""

    def __post_init__(self) -> None:
        """Raises `InputError` for a group that is none, and for unknown names."""
        whole = isinstance(self.group, int) and not isinstance(self.group, bool)
        if (whole and self.group < 2) or (not whole and not (isinstance(self.group, float) and 0.0 < self.group <= 1.0)):
            raise InputError(
                f"group is {self.group!r}; give a whole number of tokens from 2, or a share of rows from above 0.0 to 1.0"
            )
        for field, known in (("pattern", get_args(Pattern)), ("wrap", get_args(Wrap))):
            if getattr(self, field) not in known:
                raise InputError(
                    f"{field} is {getattr(self, field)!r}, which is unknown: {near(str(getattr(self, field)), known)}"
                )

    @property
    def name(self) -> str:
        """The name in transformers' registry: `ropewalk_s2`, and what differs from the defaults behind it."""
        standard = Shifted.__dataclass_fields__
        differing = [str(getattr(self, field)) for field in standard if getattr(self, field) != standard[field].default]
        return "_".join(["ropewalk_s2", *differing])

    def at(self, window: int) -> "Shifted":
        """The same with its group in tokens, for rows of `window` tokens: a share of them is rounded up."""
        return self if isinstance(self.group, int) else replace(self, group=max(2, ceil(self.group * window)))

    def parts(self, ends: Sequence[int], layer: int) -> tuple[Segments, ...]:
        """The segments of a row whose documents end at `ends` (rising, the last is its length), in layer number `layer`, for
        each equal part of the heads."""
        starts = (0, *ends[:-1])
        documents = [self.of_document(end - start, layer) for start, end in zip(starts, ends, strict=True)]
        # A document of one group is cut alike for all heads, beside others that are not.
        return tuple(
            tuple(
                tuple((start + low, start + high) for low, high in segment)
                for start, own in zip(starts, documents, strict=True)
                for segment in own[min(part, len(own) - 1)]
            )
            for part in range(max(len(own) for own in documents))
        )

    def of_document(self, length: int, layer: int) -> tuple[Segments, ...]:
        """The segments of a document of `length` tokens that stands alone. A share is one of the document."""
        group = min(int(self.at(length).group), length)
        straight, moved = groups(length, group), shifted_groups(length, group, self.wrap)
        if self.pattern == "heads" and moved != straight:
            return straight, moved
        if self.pattern == "shifted" or (self.pattern == "layers" and layer % 2 == 1):
            return (moved,)
        return (straight,)


@lru_cache(maxsize=64)
def groups(length: int, group: int) -> Segments:
    """Groups that begin at 0; the last may be shorter."""
    return until((*range(group, length, group), length))


@lru_cache(maxsize=64)
def shifted_groups(length: int, group: int, wrap: Wrap) -> Segments:
    """Groups that begin half a group late, and what is left over at the ends as `wrap` says."""
    half = group // 2
    if group >= length:
        return groups(length, length)
    if wrap == "separate":
        return until((*range(half, length, group), length))
    # The document as a ring that begins at `half`, cut into groups. A group over the seam is two spans.
    ring = [(start, min(start + group, length + half)) for start in range(half, length + half, group)]
    wrapped = tuple(unrolled(start, end, length) for start, end in ring)
    return wrapped if wrap == "rolled" else tuple(tuple(sorted(segment)) for segment in wrapped)


def unrolled(start: int, end: int, length: int) -> Segment:
    """A stretch of the ring as spans of the document."""
    if end <= length:
        return ((start, end),)
    if start >= length:
        return ((start - length, end - length),)
    return ((start, length), (0, end - length))
