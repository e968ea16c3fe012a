"""The knee: the length up to which an untouched model really reads, measured, because configs lie.

While a model reads, more context never costs likelihood: a token's NLL with all of the text before it is at or below its
NLL with only the last thousand tokens. Beyond the length that positions were trained for it is far above. So the harm of a
grid length is the paired difference, on the same tokens, between reading everything and reading a short tail. The knee
lies between the last length up to which harm is nowhere above the margin (upper bound) and the first at which it surely is
(lower bound).

What was given up: only what harms likelihood is seen. A model may be unhurt and use nothing of what is far; that is what
tasks are for. A model hurt less than the margin is called reading.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ropewalk.core.progress import Progress
from ropewalk.data.documents import Document
from ropewalk.measure import statistics
from ropewalk.measure.comparison import score_window
from ropewalk.measure.effective import SAFE_MARGIN, grid
from ropewalk.measure.forward import Forward
from ropewalk.measure.windows import Window, effort

TAIL = 1024
"""Tokens of context that the short reading has before its targets."""
TARGETS = 512
"""Tokens scored at each length."""
SHORTEST = 2048
"""Below this both readings are nearly the same."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """The harm of reading everything at one length, nats per token; above 0 is worse than a short tail."""

    length: int
    harm: float
    low: float | None
    high: float | None
    note: str | None


@dataclass(frozen=True, kw_only=True)
class Knee:
    """Where a model stops reading. Lengths are tokens."""

    low: int | None
    """Up to here harm is nowhere above the margin, as far as can be shown; None where not even at the shortest length."""
    high: int | None
    """Here harm is shown; None where it is nowhere shown."""
    longest: int
    """The longest length that was tried."""
    margin: float
    points: tuple[Point, ...]
    num_documents: int

    def words(self, trained_length: int) -> str:
        """One sentence."""
        if self.high is None:
            said = f"no harm is shown up to {self.longest} tokens, the longest tried"
            excluded = "nowhere" if self.low is None else f"up to {self.low}"
            return said + ("" if self.low == self.longest else f"; it is excluded {excluded}")
        if self.low is None:
            return f"not shown to read even {self.points[0].length} tokens; harm is shown at {self.high}"
        said = f"the untouched model reads up to {self.low} tokens and no longer at {self.high}"
        if self.low < trained_length:
            said += f"; its config says {trained_length}"
        return said

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        from dataclasses import asdict

        return asdict(self)


def lengths(longest: int) -> tuple[int, ...]:
    """Grid lengths that are probed."""
    return grid(SHORTEST, longest) or (longest,)


def probe(forward: Forward, documents: Sequence[Document], longest: int, progress: Progress) -> Knee:
    """The knee of the model as it is, from the first `longest` tokens of each document."""
    ends = lengths(longest)
    windows = [Window(begin=max(0, end - TARGETS - TAIL), low=end - TARGETS, end=end) for end in ends]
    progress.plan(len(documents) * (effort(ends[-1]) + len(ends) * effort(TAIL + TARGETS)))
    harms: list[list[NDArray[np.float64]]] = [[] for _ in ends]
    for document in documents:
        ids = torch.from_numpy(np.ascontiguousarray(document.ids[: ends[-1]]))
        with progress.task(f"reading {ends[-1]} tokens of {document.name}", effort(ends[-1])):
            hidden = forward.hidden(ids, tick=progress.at)
        with progress.task(f"reading tails of {document.name}", len(ends) * effort(TAIL + TARGETS)):
            for index, window in enumerate(windows):
                whole = forward.nll(hidden[window.low - 1 : window.end - 1], ids[window.low : window.end]).numpy()
                tail = score_window(forward, document, window)
                harms[index].append(np.asarray(whole, dtype=np.float64) - tail)
                progress.at((index + 1) / len(windows))
    return judge(dict(zip(ends, harms, strict=True)))


def judge(harms: dict[int, list[NDArray[np.float64]]], *, margin: float = SAFE_MARGIN) -> Knee:
    """The knee from the paired differences by length, an array per document."""
    points = []
    for length, series in sorted(harms.items()):
        found = statistics.mean(series, seed=0, block=statistics.SHORT_BLOCK)
        points.append(Point(length=length, harm=found.value, low=found.ci_low, high=found.ci_high, note=found.note))
    low = None
    for point in points:
        if point.high is None or point.high > margin:
            break
        low = point.length
    high = next((p.length for p in points if p.low is not None and p.low > margin), None)
    return Knee(
        low=low, high=high, longest=points[-1].length, margin=margin, points=tuple(points),
        num_documents=len(next(iter(harms.values()))),
    )  # fmt: skip
