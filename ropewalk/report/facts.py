"""What the report says, taken from a run folder once: curves, windows and the rows behind each headline.

Everything here is arithmetic on what a run wrote; nothing is estimated anew. Means over documents are sums over tokens
divided by counts, so that a short document weighs what its tokens weigh. Where a run is unfinished, methods are averaged
over the documents that all of them have finished, else a curve would compare methods on different texts.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropewalk.core.errors import SourceError
from ropewalk.core.record import Measurement, Record
from ropewalk.report.scores import Asked, gather

Vector = NDArray[np.float64]
BASELINES = ("none", "crop")
WINDOW_PROTOCOLS = ("crop-window", "by-length")
LINE_COVERAGE = 0.9
"""A method that scored this share of all positions is drawn as a line, else as points."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tokens:
    """NLL of one method summed over documents, by position of the predicted token."""

    total: Vector
    """float64 [T], nats; 0 where nothing was scored."""
    count: Vector
    """float64 [T], documents that scored this position."""

    def mean(self, low: int, high: int, where: NDArray[np.bool_] | None = None) -> float | None:
        """Mean NLL over positions low <= p < high (and `where`), or None where none was scored."""
        keep = np.zeros(self.count.size, dtype=np.bool_)
        keep[max(low, 0) : max(high, 0)] = True
        if where is not None:
            keep[: where.size] &= where[: keep.size]
            keep[where.size :] = False
        count = float(self.count[keep].sum())
        return float(self.total[keep].sum()) / count if count else None


@dataclass(frozen=True, kw_only=True)
class Point:
    """A mean over the positions low <= p < high, with its interval where there is one."""

    low: int
    high: int
    value: float
    ci_low: float | None = None
    ci_high: float | None = None

    @property
    def middle(self) -> float:
        """Where it is drawn."""
        return (self.low + self.high) / 2


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A record with the questions that tables, plots and sentences ask of it."""

    record: Record
    trained_length: int
    """The length the weights were trained for, tokens: what crop keeps, and where "beyond" begins."""
    length: int
    """The longest text read, tokens."""
    labels: tuple[str, ...]
    """Methods in the order shown: none, crop, then as asked."""
    tokens: Mapping[str, Tokens]
    """By label, for the methods that have finished a document."""
    num_documents: int
    """Documents behind `tokens`."""
    same_documents: bool
    """False where an unfinished run has no document that all its methods have read."""
    plans: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    window_known: bool = True
    """False for a server that does not say what its model was trained to: then nothing counts as beyond."""

    @classmethod
    def of(cls, record: Record) -> "Facts":
        """Raises `SourceError` where the card does not say what the model was trained to, unless a server answered."""
        mapped = [row.length for row in record.measurements if row.length is not None]
        known = isinstance(record.card.geometry.get("trained_length"), int) or not _served(record)
        trained = _window(record) if known else max(mapped, default=1)
        plans = record.card.plans
        seen = [*plans, *(row.method for row in record.measurements)]
        labels = tuple(dict.fromkeys([*(b for b in BASELINES if b in seen), *seen]))
        tokens, num_documents, same = _tokens(record, labels)
        longest = max((t.count.size for t in tokens.values()), default=trained)
        asked = [int(plan["length"]) for plan in plans.values() if plan.get("length")]
        return cls(
            record=record,
            trained_length=trained,
            length=longest if tokens else max([longest, *asked, *mapped]),
            labels=labels,
            tokens=tokens,
            num_documents=num_documents,
            same_documents=same,
            plans=plans,
            window_known=known,
        )

    # --- likelihood ---------------------------------------------------------------------------------------------------

    @cached_property
    def bins(self) -> NDArray[np.int64]:
        """Edges of 16 to 31 equal bins of positions, a power of two of them inside the trained length."""
        inside = 2 ** max(0, math.ceil(math.log2(16 * self.trained_length / self.length)))
        width = self.trained_length / inside
        edges = np.unique(np.round(np.arange(0, self.length, width)).astype(np.int64))
        # A sliver at the end would be a noisy last point: it joins the bin before it.
        if edges.size > 1 and self.length - edges[-1] < width / 2:
            edges = edges[:-1]
        return np.append(edges, self.length)

    def is_line(self, label: str) -> bool:
        """Whether a method scored every position of a text in one pass, rather than windows of targets."""
        count = self.tokens[label].count
        return float((count[1:] > 0).mean()) >= LINE_COVERAGE if count.size > 1 else False

    def curve(self, label: str) -> list[Point]:
        """Mean NLL by bin for a method read in one pass; by window of targets for the others."""
        if not self.is_line(label):
            return self._window_points(label)
        edges, tokens = self.bins, self.tokens[label]
        means = [(int(a), int(b), tokens.mean(int(a), int(b))) for a, b in pairwise(edges)]
        return [Point(low=a, high=b, value=mean) for a, b, mean in means if mean is not None]

    def _window_points(self, label: str) -> list[Point]:
        rows = [row for protocol in WINDOW_PROTOCOLS for row in self.record.rows("nll", method=label, protocol=protocol)]
        points = [point for row in rows if not self._spans_all(row) and (point := as_point(row)) is not None]
        if points:
            return sorted(points, key=lambda point: point.middle)
        tokens = self.tokens[label]
        edges = np.flatnonzero(np.diff(np.concatenate([[0], tokens.count > 0, [0]])))
        runs = [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
        return [Point(low=a, high=b, value=mean) for a, b in runs if (mean := tokens.mean(a, b)) is not None]

    def inside(self, label: str) -> float | None:
        """Mean NLL of the tokens within the trained length."""
        tokens = self.tokens.get(label)
        return tokens.mean(1, self.trained_length) if tokens is not None and self.is_line(label) else None

    def beyond(self, label: str) -> float | None:
        """Mean NLL beyond the trained length: on the targets of crop where it was run, else on all tokens there."""
        tokens, crop = self.tokens.get(label), self.tokens.get("crop")
        if tokens is None:
            return None
        return tokens.mean(self.trained_length, self.length, None if crop is None else crop.count > 0)

    def beyond_all(self, label: str) -> float | None:
        """Mean NLL of every token beyond the trained length, for a method read in one pass."""
        tokens = self.tokens.get(label)
        return tokens.mean(self.trained_length, self.length) if tokens is not None and self.is_line(label) else None

    # --- rows ---------------------------------------------------------------------------------------------------------

    def factor(self, label: str) -> float | None:
        """The stretch of a method's plan; 1 for the identity."""
        factor = self.plans.get(label, {}).get("factor")
        return None if factor is None else float(factor)

    def _spans_all(self, row: Measurement) -> bool:
        length = self.plans.get(row.method, {}).get("length", self.length)
        return row.position_low == self.trained_length and row.position_high in (length, self.length)

    def net_gain(self, label: str) -> Measurement | None:
        """Net gain over cropping on all targets beyond the trained length."""
        return next((row for row in self.record.rows("net_gain", method=label) if self._spans_all(row)), None)

    def gain_windows(self, label: str) -> list[Point]:
        """Net gain over cropping by window of targets; where there is only one, it is all of them."""
        every = self.record.rows("net_gain", method=label)
        rows = [row for row in every if not self._spans_all(row)] or every
        return sorted((p for row in rows if (p := as_point(row)) is not None), key=lambda point: point.middle)

    def row(self, metric: str, label: str) -> Measurement | None:
        """The one row of a metric that has one for each method, such as the prices."""
        return next(iter(self.record.rows(metric, method=label)), None)

    def control(self, metric: str) -> Measurement | None:
        """The difference that means nothing: this model against itself in float32. `metric` is the price's name."""
        return next(iter(self.record.rows(metric.replace("price_", "control_"))), None)

    @property
    def extensions(self) -> tuple[str, ...]:
        """The methods that change the model."""
        return tuple(label for label in self.labels if label not in BASELINES)

    @property
    def within_document(self) -> bool:
        """Whether any interval is over blocks of one document rather than over documents."""
        return any(is_within_document(row) for row in self.record.measurements)

    # --- retrieval ----------------------------------------------------------------------------------------------------

    @cached_property
    def asked(self) -> list[Asked]:
        """What the map asked, with its rows."""
        return gather(self.record.measurements, self._map().get("tasks") or ())

    @property
    def num_asked_lengths(self) -> int:
        """Lengths of the map: as the user asked for them, else those that have rows."""
        asked = self._map().get("lengths") or {length for one in self.asked for length in one.lengths()}
        # What was added for the price inside the window asks for no effective length.
        return len(set(asked) - set(self._map().get("inside") or ()))

    def _map(self) -> Mapping[str, Any]:
        config = self.record.card.config.get("map")
        return config if isinstance(config, Mapping) else {}

    @property
    def retrieval_protocol(self) -> str | None:
        """The protocol of the headline, which has room for one task: several keys where asked, else a single one."""
        if len({asked.task for asked in self.asked}) > 1:
            return None
        present = {row.protocol for row in self.record.rows("retrieval_exact")}
        return next((p for p in ("multikey-branch", "multikey-grow", "single-key") if p in present), None)

    @property
    def retrieval_length(self) -> int | None:
        """The longest text that was asked, where it is longer than the trained length."""
        protocol = self.retrieval_protocol
        rows = [] if protocol is None else self.record.rows("retrieval_exact", protocol=protocol)
        longest = max((row.length for row in rows if row.length is not None), default=0)
        return longest if longest > self.trained_length else None

    def retrieval(self, label: str) -> Measurement | None:
        """Share of right answers in the longest texts, over all depths."""
        length = self.retrieval_length
        if length is None:
            return None
        rows = self.record.rows("retrieval_exact", method=label, protocol=self.retrieval_protocol, length=length)
        return next((row for row in rows if row.depth is None), None)


def _served(record: Record) -> bool:
    """Whether a server answered, rather than a model that we hold."""
    return any(row.engine != "transformers" for row in record.measurements) or record.card.source.get("kind") == "server"


def _window(record: Record) -> int:
    """What crop keeps: a stretch that was put on without training does not count as trained."""
    geometry = record.card.geometry
    trained, original = geometry.get("trained_length"), geometry.get("original_length")
    if not isinstance(trained, int) or trained < 1:
        raise SourceError(
            f"{record.path}/card.json has geometry.trained_length {trained!r}, expected a number of tokens; "
            "make the run again with compare or measure"
        )
    return min(trained, original) if geometry.get("lineage") == "runtime" and isinstance(original, int) else trained


def as_point(row: Measurement) -> Point | None:
    """A row as a point over its positions; None where it has no number or no positions."""
    if row.value is None or row.position_low is None or row.position_high is None:
        return None
    return Point(low=row.position_low, high=row.position_high, value=row.value, ci_low=row.ci_low, ci_high=row.ci_high)


def is_within_document(row: Measurement) -> bool:
    """Whether a row's interval is over blocks of one document."""
    return row.note is not None and "within-document" in row.note


def read_facts(folder: str | Path) -> Facts:
    """The facts of a run folder. Raises `SourceError`."""
    return Facts.of(Record.read(folder))


def _tokens(record: Record, labels: tuple[str, ...]) -> tuple[dict[str, Tokens], int, bool]:
    arrays = {label: found for label in labels if (found := record.arrays(label))}
    if not arrays:
        return {}, 0, True
    common = set.intersection(*(set(found) for found in arrays.values()))
    kept = {
        label: [array for name, array in found.items() if name in common or not common] for label, found in arrays.items()
    }
    longest = 1 + max(array.size for found in kept.values() for array in found)
    num_documents = max(len(found) for found in kept.values())
    return {label: _summed(found, longest) for label, found in kept.items()}, num_documents, bool(common)


def _summed(arrays: list[NDArray[np.float32]], longest: int) -> Tokens:
    total, count = np.zeros(longest), np.zeros(longest)
    for array in arrays:
        # Entry i of an array is the NLL of token i + 1: token 0 is never predicted.
        scored = np.isfinite(array)
        total[1 : 1 + array.size] += np.where(scored, array, 0.0)
        count[1 : 1 + array.size] += scored
    return Tokens(total=total, count=count)
