"""Measurements, made from what the cells of a run left on disk.

Pure arithmetic over arrays and samples: the same folder gives the same rows, which is what makes a resumed run end with the
rows of an unbroken one. Nothing here runs a model.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropewalk.core.record import Measurement
from ropewalk.core.run import Run
from ropewalk.measure import power_law, statistics
from ropewalk.measure.effective import SAFE_MARGIN, reach
from ropewalk.measure.settings import CONTROL, CROP, NONE, Settings
from ropewalk.measure.windows import Window, crop_windows

NOTHING = statistics.Estimate(
    value=math.nan, n=0, num_clusters=0, num_tokens=0, stderr=None, ci_low=None, ci_high=None, note=None
)
Arrays = dict[str, NDArray[np.float32]]
"""Document to series."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What every row of a run says alike."""

    model: str
    card: str
    seed: int
    dtype: str
    device: str
    versions: Mapping[str, str]
    quantisation: str | None


class Rows:
    """The rows of one run, group by group."""

    def __init__(self, run: Run, settings: Settings, window: int, facts: Facts, by_length: Iterable[str]) -> None:
        self.run, self.settings, self.window, self.facts = run, settings, window, facts
        self.by_length = set(by_length)
        self.labels = list(run.card.plans)
        self.crops = {label for label, plan in run.card.plans.items() if plan["method"] == CROP}
        self.documents = [str(d["name"]) for d in run.card.documents]

    def all(self) -> list[Measurement]:
        """Every row the folder holds the cells for."""
        rows: list[Measurement] = []
        for label in self.labels:
            series = self.series("nll", label)
            if not series:
                continue
            rows += self.curve(label, series)
            if label not in self.crops and label not in self.by_length:
                rows += self.perplexity(label, series)
                rows += self.power_law(label, series)
            gains = self.net_gain(label, series)
            rows += gains + self.reach(label, gains[:-1])
            rows += self.price(label)
        rows += self.control()
        return rows

    def series(self, kind: str, label: str) -> Arrays:
        """A method's arrays, in the order of the documents."""
        return {d: self.run.load(kind, label, d) for d in self.documents if self.run.has(kind, label, d)}

    # --- likelihood ---------------------------------------------------------------------------------------------------

    def protocol(self, label: str) -> str:
        """How this method's likelihood was measured."""
        return "crop-window" if label in self.crops else "by-length" if label in self.by_length else "prefix"

    def curve(self, label: str, series: Arrays) -> list[Measurement]:
        """NLL by position: even bins for one pass, the scored stretches for the others."""
        protocol = self.protocol(label)
        if protocol == "prefix":
            edges = np.linspace(0, self.settings.length, self.settings.num_bins + 1).astype(int)
            bins = [(max(1, int(low)), int(high)) for low, high in itertools.pairwise(edges)]
        else:
            bins = stretches(next(iter(series.values())))
        rows = []
        for low, high in bins:
            parts = [s[low - 1 : high - 1] for s in series.values()]
            estimate = statistics.mean(parts, seed=self.facts.seed, block=statistics.SHORT_BLOCK)
            rows.append(self.row("nll", protocol, "nats/token", label, estimate, position_low=low, position_high=high))
        for name, low, high in (("inside", 1, self.window), ("beyond", self.window, self.settings.length)):
            parts = [s[low - 1 : high - 1] for s in series.values()]
            if not any(np.isfinite(p).any() for p in parts):
                continue
            estimate = statistics.mean(parts, seed=self.facts.seed)
            seconds, peak = self.cost(label)
            rows.append(
                self.row(
                    f"nll_{name}",
                    protocol,
                    "nats/token",
                    label,
                    estimate,
                    position_low=low,
                    position_high=high,
                    seconds=seconds,
                    peak_bytes=peak,
                )
            )
        return rows

    def cost(self, label: str) -> tuple[float | None, int | None]:
        """Seconds of a method's cells, and the most memory held by then."""
        cells = [c for c in self.run.cells() if c["method"] == label]
        peaks = [c["peak_bytes"] for c in cells if c["peak_bytes"]]
        return (sum(c["seconds"] for c in cells) if cells else None), (max(peaks) if peaks else None)

    def perplexity(self, label: str, series: Arrays) -> list[Measurement]:
        """Perplexity of the first N tokens for a grid of N: every point from the same array."""
        rows = []
        for index in range(self.settings.num_points):
            end = self.settings.length * (index + 1) // self.settings.num_points
            if end < 2:
                continue
            estimate = statistics.mean([s[: end - 1] for s in series.values()], seed=self.facts.seed)
            rows.append(
                self.row(
                    "perplexity",
                    "prefix",
                    "perplexity",
                    label,
                    exponential(estimate),
                    length=end,
                    position_low=1,
                    position_high=end,
                )
            )
        return rows

    def power_law(self, label: str, series: Arrays) -> list[Measurement]:
        """Llama 2 Long's law of loss against context: three numbers, or three times the reason why there are none."""
        found = power_law.fit(list(series.values()))
        rows = []
        for name, unit in zip(power_law.NAMES, ("tokens", "exponent", "nats/token"), strict=True):
            where = {"position_low": power_law.SHORTEST, "position_high": self.settings.length}
            estimate = found.estimates.get(name, NOTHING)
            row = self.row(f"power_law_{name}", "prefix", unit, label, estimate, **where)
            rows.append(row if found.refused is None else dataclasses.replace(row, value=None, note=found.refused))
        return rows

    def reach(self, label: str, gains: list[Measurement]) -> list[Measurement]:
        """SAFE and USE lengths from the gain over cropping by window, whose end is how much was read."""
        if label in self.crops or self.settings.length <= self.window:
            return []
        bounds = {int(g.position_high or 0): (g.ci_low, g.ci_high) for g in gains}
        certified = reach(bounds, num_clusters={int(g.position_high or 0): g.num_clusters for g in gains})
        # The same rules on the upper ends: what is not ruled out.
        possible = reach({n: (high, high) for n, (_, high) in bounds.items()})
        rows = []
        for name in ("safe", "use"):
            value: int | None = getattr(certified, name)
            estimate = statistics.Estimate(
                value=math.nan if value is None else value, n=max((g.n for g in gains), default=0),
                num_clusters=min((g.num_clusters for g in gains), default=0), num_tokens=sum(g.num_tokens for g in gains),
                stderr=None, ci_low=value, ci_high=getattr(possible, name), note=reach_note(name, value, bounds),
            )  # fmt: skip
            rows.append(self.row(f"{name}_length", "crop-window", "tokens", label, estimate, reference=CROP))
        return rows

    def crop_windows(self) -> list[Window]:
        """The windows the baseline was scored in."""
        settings = self.settings
        return crop_windows(self.window, settings.length, settings.crop_windows, targets=settings.targets)

    def net_gain(self, label: str, series: Arrays) -> list[Measurement]:
        """NLL under `crop` minus NLL under the plan, on crop's targets, per window and over all of them."""
        crop = self.series("nll", CROP)
        shared = [d for d in self.documents if d in crop and d in series]
        if label == CROP or not shared:
            return []
        gains = {d: crop[d] - series[d] for d in shared}
        windows = self.crop_windows()
        rows = []
        for window in windows:
            parts = [gains[d][window.low - 1 : window.end - 1] for d in shared]
            estimate = statistics.mean(parts, seed=self.facts.seed, block=statistics.SHORT_BLOCK)
            rows.append(
                self.row(
                    "net_gain",
                    "crop-window",
                    "nats/token",
                    label,
                    estimate,
                    reference=CROP,
                    position_low=window.low,
                    position_high=window.end,
                )
            )
        parts_of = [[gains[d][w.low - 1 : w.end - 1] for w in windows] for d in shared]
        whole = statistics.windows_mean(parts_of)
        rows.append(
            self.row(
                "net_gain",
                "crop-window",
                "nats/token",
                label,
                whole,
                reference=CROP,
                position_low=self.window,
                position_high=self.settings.length,
            )
        )
        return rows

    # --- price and control --------------------------------------------------------------------------------------------

    def price(self, label: str) -> list[Measurement]:
        """What the plan costs inside the old window, against the untouched model on the same tokens."""
        if label == NONE or label in self.crops:
            return []
        plan, base = self.series("nll", label), self.series("nll", NONE)
        shared = [d for d in self.documents if d in plan and d in base]
        if not shared:
            return []
        end = min(self.window, self.settings.length)
        losses = [plan[d][: end - 1] - base[d][: end - 1] for d in shared]
        if not any(np.isfinite(part).any() for part in losses):
            return []
        where = {"reference": NONE, "position_low": 1, "position_high": end}
        estimate = statistics.mean(losses, seed=self.facts.seed)
        rows = [self.row("price_nll", self.protocol(label), "nats/token", label, estimate, **where)]
        prices = self.series("price", label)
        if not prices:
            return rows + self.missing("price", label, "not measured for plans that depend on the length", where)
        return rows + self.divergences("price", label, [prices[d] for d in shared if d in prices], where)

    def missing(self, name: str, label: str, reason: str, where: dict[str, Any]) -> list[Measurement]:
        """Rows that say why there is no number."""
        rows = []
        for metric, unit in (("kl_mean", "nats"), ("kl_p999", "nats"), ("top1", "share")):
            row = self.row(f"{name}_{metric}", self.protocol(label), unit, label, NOTHING, **where)
            rows.append(dataclasses.replace(row, value=None, note=reason))
        return rows

    def control(self) -> list[Measurement]:
        """The untouched model against itself in float32."""
        prices, exact, base = self.series("price", CONTROL), self.series("nll", CONTROL), self.series("nll", NONE)
        shared = [d for d in self.documents if d in prices and d in exact and d in base]
        if not shared:
            nowhere: dict[str, Any] = {"reference": CONTROL}
            if self.facts.dtype != "float32" or self.run.card.verb != "compare":
                return []
            return self.missing("control", NONE, "the run is in float32 already, so it is its own control", nowhere)
        num = exact[shared[0]].size
        note = "control: the same model in float32; differences of this size mean nothing"
        where = {"reference": CONTROL, "position_low": 1, "position_high": num + 1, "note": note}
        estimate = statistics.mean([base[d][:num] - exact[d] for d in shared], seed=self.facts.seed)
        rows = [self.row("control_nll", "prefix", "nats/token", NONE, estimate, **where)]
        return rows + self.divergences("control", NONE, [prices[d] for d in shared], where)

    def divergences(
        self, name: str, label: str, prices: list[NDArray[np.float32]], where: dict[str, Any]
    ) -> list[Measurement]:
        """KL (mean and 99.9th percentile) and first-choice agreement, from arrays [2, P]."""
        if not prices:
            return []
        seed = self.facts.seed
        kl, same = [p[0] for p in prices], [p[1] for p in prices]
        return [
            self.row(f"{name}_kl_mean", "prefix", "nats", label, statistics.mean(kl, seed=seed), **where),
            self.row(f"{name}_kl_p999", "prefix", "nats", label, statistics.quantile(kl, 0.999, seed=seed), **where),
            self.row(f"{name}_top1", "prefix", "share", label, statistics.mean(same, seed=seed), **where),
        ]

    # --- one row ------------------------------------------------------------------------------------------------------

    def row(
        self, metric: str, protocol: str, unit: str, label: str, estimate: statistics.Estimate, **fields: Any
    ) -> Measurement:
        """A `Measurement` from an estimate and the facts of the run."""
        notes = [fields.pop("note", None), estimate.note, self.facts.quantisation and f"weights: {self.facts.quantisation}"]
        return Measurement(
            metric=metric,
            protocol=protocol,
            unit=unit,
            value=estimate.value,
            n=estimate.n,
            num_clusters=estimate.num_clusters,
            num_tokens=estimate.num_tokens,
            stderr=estimate.stderr,
            ci_low=estimate.ci_low,
            ci_high=estimate.ci_high,
            note="; ".join(n for n in notes if n) or None,
            method=label,
            model=self.facts.model,
            card=self.facts.card,
            seed=self.facts.seed,
            dtype=self.facts.dtype,
            device=self.facts.device,
            versions=dict(self.facts.versions),
            **fields,
        )


def reach_note(name: str, value: int | None, bounds: Mapping[int, tuple[float | None, float | None]]) -> str:
    """What a SAFE or USE length says, or why there is none."""
    if not bounds:
        return "crop was not measured beside this method, and the length is against it; compare and measure --tasks do"
    rule = {
        "safe": f"up to here reading all is nowhere worse than cropping by more than {SAFE_MARGIN} nats/token",
        "use": "the largest length at which reading all is better than cropping",
    }[name]
    test = {
        "safe": f"by the lower 95% ends at {len(bounds)} lengths",
        "use": f"by Holm's test of {len(bounds)} lengths together, 2.5% one-sided",
    }[name]
    how = f"{rule}, {test}; the upper end is what is not ruled out, length by length"
    if value is None:
        blind = sum(low is None for low, _ in bounds.values())
        return f"none of {len(bounds)} lengths is certified" + (f" ({blind} have no interval)" if blind else "") + f"; {how}"
    return how + ("; the longest that was tested: at least this" if value == max(bounds) else "")


def stretches(series: NDArray[np.float32]) -> list[tuple[int, int]]:
    """The scored stretches of a series [T-1] as positions [low, high) of predicted tokens."""
    scored = np.concatenate([[False], np.isfinite(series), [False]])
    edges = np.flatnonzero(scored[1:] != scored[:-1])
    return [(int(low) + 1, int(high) + 1) for low, high in zip(edges[::2], edges[1::2], strict=True)]


def exponential(estimate: statistics.Estimate) -> statistics.Estimate:
    """exp of an estimate in nats, ends of the interval included; the standard error to first order."""
    value = math.exp(estimate.value)
    ends = [None if end is None else math.exp(end) for end in (estimate.ci_low, estimate.ci_high)]
    return statistics.Estimate(
        value=value, n=estimate.n, num_clusters=estimate.num_clusters, num_tokens=estimate.num_tokens,
        stderr=None if estimate.stderr is None else value * estimate.stderr, ci_low=ends[0], ci_high=ends[1],
        note=estimate.note,
    )  # fmt: skip
