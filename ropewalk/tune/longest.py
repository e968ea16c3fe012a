"""The longest row that fits: a few layers are counted, the whole is extrapolated, and one real step confirms it.

With all gradients there, the bytes of a step are M(l, t) = a + b l + c t + e l t for l layers and t tokens of a pass: a
layer costs its weights, and per token what it keeps; the work of one layer and of the head grows with the text alone
(`ropewalk.core.budget` has the terms). Two depths by two lengths determine the four.

Where a step is one pass, gradients come as kept tensors go (from the last layer to the first), so the peak is at one of the
two ends: M less the gradients of all layers but one, or M less what all layers but one keep.

Counting is exact and small; what an allocator adds, and the process itself, are not in it. The process is measured and
added; the rest shows in the step that confirms, under the limit, with the model's own weights. Where that one does not fit,
the next is shorter by what it was too much.

Nothing longer is measured than `LONGEST_ROW`, nor than what is asked for; at the latter the line is then measured in
tokens, and extrapolated in depth alone.

Given up: rows so short that the head's chunk of logits is the peak, of which the line says too little, and narrow models, in
which it still is at `LONGEST_ROW` (the real step finds both); rows of several documents, whose largest has what counts;
models whose layers differ in size; several devices.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.core.budget import GIGABYTE, longest
from ropewalk.core.errors import InputError, MachineError
from ropewalk.core.progress import Progress
from ropewalk.hosts.watched import Watched, watch

COMMAND = (sys.executable, "-m", "ropewalk.tune.measured")
WINDOW = 1024
"""Where measuring begins, tokens of a row."""
LONGEST_ROW = 32 * 1024
"""The longest row of a few layers."""
STEP = 1024
"""Lengths are multiples of it, or of 16 where none fits."""
LEAST = 4 * GIGABYTE
"""What counting may take whatever the limit is: a profile holds every allocation it saw."""
TRIES = 4
"""Real steps before giving up."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One measurement."""

    num_layers: int
    tokens: int
    num_bytes: int
    """Held before the step, and what the step takes on top."""
    seconds: float
    trained: int


@dataclass(frozen=True, kw_only=True)
class Line:
    """The four numbers of M(l, t), and what a run of one pass does not have."""

    constant: float
    by_layer: float
    by_token: float
    by_both: float
    gradients: float
    """Bytes of one layer's gradients."""
    runtime: int
    """The process before the model."""
    num_layers: int
    accumulated: bool

    def need(self, tokens: int) -> int:
        """Bytes of a step with so many tokens in a pass."""
        whole = self.constant + self.by_layer * self.num_layers + (self.by_token + self.by_both * self.num_layers) * tokens
        if not self.accumulated:
            # At the last layer gradients are not there yet, at the first what was kept has gone.
            whole -= (self.num_layers - 1) * min(self.gradients, self.by_both * tokens)
        return math.ceil(whole) + self.runtime

    @property
    def bytes_per_token(self) -> float:
        """What one more token costs."""
        return self.by_token + self.by_both * self.num_layers


def line_of(points: Sequence[Point], *, num_layers: int, runtime: int, accumulated: bool) -> Line:
    """The line through the points, by least squares where there are more than four."""
    rows = np.array([[1.0, p.num_layers, p.tokens, p.num_layers * p.tokens] for p in points])
    # Columns differ by many orders of magnitude.
    scale = np.abs(rows).max(axis=0)
    found = np.linalg.lstsq(rows / scale, np.array([float(p.num_bytes) for p in points]), rcond=None)[0] / scale
    few, more = min(points, key=lambda p: p.num_layers), max(points, key=lambda p: p.num_layers)
    trained = (more.trained - few.trained) / (more.num_layers - few.num_layers)
    return Line(
        constant=float(found[0]), by_layer=float(found[1]), by_token=float(found[2]), by_both=float(found[3]),
        gradients=4 * trained, runtime=runtime, num_layers=num_layers, accumulated=accumulated,
    )  # fmt: skip


def seconds_of(points: Sequence[Point], num_layers: int, tokens: int, rows: int) -> float:
    """About how long a step takes: the head and each layer by token, each layer's attention by its square."""
    made = np.array([[p.tokens, p.num_layers * p.tokens, p.num_layers * p.tokens**2 / rows] for p in points], dtype=float)
    scale = made.max(axis=0)
    found = np.linalg.lstsq(made / scale, np.array([p.seconds for p in points]), rcond=None)[0].clip(min=0.0)
    return float(np.array([tokens, num_layers * tokens, num_layers * tokens**2 / rows]) / scale @ found)


def period(types: Sequence[str], every: int) -> int:
    """Layers after which the pattern of layers begins anew, at least two."""
    kinds = next((p for p in range(1, len(types)) if all(a == b for a, b in zip(types, types[p:], strict=False))), 1)
    both = math.lcm(kinds, max(1, every))
    return both if both > 1 else 2


def advice(recipe: str, other: str | None = None) -> str:
    """What to give where a training takes too much; a recipe that trains less only to who trains all weights."""
    less = "a recipe that trains less, such as --recipe longlora" if recipe == "full" else None
    return "give " + ", or ".join(words for words in ("more --memory", less, other) if words is not None)


@dataclass(frozen=True, kw_only=True)
class Longest:
    """What was found."""

    length: int
    """Tokens of a row; 0 where none fits."""
    limit_bytes: int
    extrapolated_bytes: int
    """What the line says of `length`."""
    confirmed_bytes: int | None
    """What a real step of `length` took; None where none was made."""
    bytes_per_token: float
    seconds: float | None
    """Of the real step."""
    about_seconds: float
    """What the measurements say of it."""
    wanted: int | None
    points: tuple[Point, ...]
    tried: tuple[dict[str, Any], ...]
    recipe: str

    @property
    def missed(self) -> bool:
        """Whether a length was asked for and is not reached."""
        return self.wanted is not None and self.length < self.wanted

    def to_dict(self) -> dict[str, Any]:
        """In JSON types."""
        return {
            **{name: value for name, value in asdict(self).items() if name not in ("points", "tried")},
            "measured": [asdict(point) for point in self.points], "tried": list(self.tried),
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Search:
    """One question."""

    source: Path
    settings: Mapping[str, Any]
    """As `measured.plain` makes them."""
    num_layers: int
    layer_types: tuple[str, ...]
    device: str
    bfloat16: bool
    limit_bytes: int
    wanted: int | None
    confirm: bool
    progress: Progress
    window: int = WINDOW
    """Where measuring begins."""
    run: Callable[..., Watched] = watch

    def find(self) -> Longest:
        """Measures, extrapolates, confirms."""
        points, runtime = self._points()
        line = line_of(
            points, num_layers=self.num_layers, runtime=runtime, accumulated=int(self.settings["accumulate"]) > 1
        )  # fmt: skip
        rows = int(self.settings["batch_size"])
        length = self._longest(line, self.limit_bytes, rows)
        tried: list[dict[str, Any]] = []
        limit = self.limit_bytes
        while length and self.confirm and len(tried) < TRIES:
            self.progress.say(
                f"extrapolated: rows of {length:,} tokens take {line.need(length * rows) / GIGABYTE:.2f} GB; trying one "
                f"step, about {seconds_of(points, self.num_layers, length * rows, rows) / 60:.0f} min"
            )
            done = self._step(length)
            tried.append({"length": length, "ended": done.ended, "peak_bytes": done.peak_bytes, "seconds": done.seconds})
            if done.fits:
                return self._found(line, points, length, tried, done)
            # Shorter by what it was too much, and by a twentieth where it was ended before it could say.
            over = max(done.peak_bytes - self.limit_bytes, self.limit_bytes // 20)
            limit = min(limit, line.need(length * rows)) - over
            length = self._longest(line, limit, rows)
        return self._found(line, points, 0 if self.confirm and tried else length, tried, None)

    def _found(
        self, line: Line, points: Sequence[Point], length: int, tried: list[dict[str, Any]], done: Watched | None
    ) -> Longest:
        rows = int(self.settings["batch_size"])
        return Longest(
            length=length, limit_bytes=self.limit_bytes, extrapolated_bytes=line.need(length * rows),
            confirmed_bytes=None if done is None else self._bytes(done),
            bytes_per_token=line.bytes_per_token,
            seconds=None if done is None else float(done.answer["measured"][0]["seconds"]),
            about_seconds=seconds_of(points, self.num_layers, length * rows, rows), wanted=self.wanted,
            points=tuple(points), tried=tuple(tried), recipe=str(self.settings["recipe"]),
        )  # fmt: skip

    def _longest(self, line: Line, limit: int, rows: int) -> int:
        if self.wanted is not None and line.need(self.wanted * rows) <= limit:
            return self.wanted
        return next((n for step in (STEP, 16) if (n := longest(limit, lambda t: line.need(t * rows), step=step))), 0)

    def _points(self) -> tuple[list[Point], int]:
        """The four points that the line goes through, and the bytes of the process before the model."""
        few = min(period(self.layer_types, int(self.settings["checkpoint_every"])), max(1, self.num_layers // 2))
        if self.num_layers < 2:
            raise InputError(f"{self.source} has one layer, and extrapolating in depth takes two")
        settings = {**self.settings, "accumulate": 2}
        with self.progress.task("measuring a few layers"):
            done = self._child("count", settings=settings, depths=[few, 2 * few], window=self.window)
        self._check(done, "measuring a few layers", self._limit("count"))
        found = done.answer["measured"]
        kept = {one["tokens"] for one in found if one["num_layers"] > few}
        points = [
            Point(
                num_layers=one["num_layers"], tokens=one["tokens"], num_bytes=one["held_bytes"] + one["step_bytes"],
                seconds=one["seconds"], trained=one["trained"],
            )
            for one in found
            if one["tokens"] in kept
        ]  # fmt: skip
        return points, 0 if self.device.startswith("cuda") else int(found[0]["runtime_bytes"])

    def _step(self, length: int) -> Watched:
        with self.progress.task(f"one step of {length} tokens"):
            done = self._child("step", settings=self.settings, window=length)
        if not done.fits and not done.too_large:
            self._check(done, f"a step of {length} tokens", self._limit("step"))
        return done

    def _bytes(self, done: Watched) -> int:
        if self.device.startswith("cuda"):
            one = done.answer["measured"][0]
            return int(one["held_bytes"]) + int(one["step_bytes"])
        return done.peak_bytes

    def _child(self, kind: str, **more: Any) -> Watched:
        job = {
            "kind": kind, "source": str(self.source), "device": self.device, "bfloat16": self.bfloat16,
            "longest_row": LONGEST_ROW if self.wanted is None else min(LONGEST_ROW, self.wanted), **more,
        }  # fmt: skip
        # Of a GPU the limit is in the job: resident memory is not what it runs out of.
        watched = 2**62 if self.device.startswith("cuda") else self._limit(kind)
        return self.run(COMMAND, {**job, "limit_bytes": self.limit_bytes}, limit_bytes=watched)

    def _limit(self, kind: str) -> int:
        """What a child may take."""
        return max(self.limit_bytes, LEAST) if kind == "count" and not self.device.startswith("cuda") else self.limit_bytes

    def _check(self, done: Watched, what: str, limit: int) -> None:
        if done.fits:
            return
        if done.too_large:
            # The allocator, or the system, may have had no more before the limit was reached.
            reached = done.ended == "limit" or (done.ended == "memory" and self.device.startswith("cuda"))
            much = f"more than {limit / GIGABYTE:.1f} GB" if reached else "more memory than there is"
            recipe, rows = str(self.settings["recipe"]), int(self.settings["batch_size"])
            raise MachineError(f"{what} took {much}; {advice(recipe, 'a smaller --batch-size' if rows > 1 else None)}")
        said = str(done.answer.get("error") or done.words.strip().rpartition("\n")[2] or "it said nothing")
        raise MachineError(f"{what} failed: {said}")
