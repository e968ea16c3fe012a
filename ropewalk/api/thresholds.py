"""Thresholds that a run must meet: `ecl>=16k`, `short_nll<=+0.01`. For whoever builds models and wants a build to fail.

A threshold is met where the *worse end* of the 95% interval meets it: a number that may lie on the other side has not
been shown. An effective length is certified already, so it counts as it is. A number that is missing, or has no interval,
fails with its reason. Controls, such as questions asked without their context, are not what a threshold is about.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ropewalk.core.errors import InputError, near
from ropewalk.core.record import Measurement

METRICS = {
    "ecl": "effective_length",
    "safe": "safe_length",
    "use": "use_length",
    "short_nll": "price_nll",
    "short_kl": "price_kl_mean",
    "short_top1": "price_top1",
    "gain": "net_gain",
    "found": "retrieval_found",
    "exact": "retrieval_exact",
    "short_tasks": "short_*_gain",
}
"""Words of a threshold, and the metric each stands for; a star is any number of letters."""
CERTIFIED = ("effective_length", "safe_length", "use_length")
"""Metrics whose value is the certified end already."""
FORM = re.compile(r"\s*([a-z_0-9]+)(?:\[([^\]]+)\])?\s*(>=|<=)\s*([+-]?[0-9.]+)(k?)\s*", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """One condition on the rows of a run."""

    said: str
    metric: str
    task: str | None
    at_least: bool
    bound: float

    @classmethod
    def parse(cls, text: str) -> "Threshold":
        """`NAME>=VALUE` or `NAME[TASK]<=VALUE`. Raises `InputError`."""
        found = FORM.fullmatch(text)
        if found is None:
            raise InputError(f"a threshold looks like 'ecl>=16k' or 'short_nll<=+0.01', got {text!r}")
        name, task, sign, number, thousand = found.groups()
        if name not in METRICS:
            raise InputError(f"unknown name {name!r} in the threshold {text!r}; {near(name, METRICS)}")
        try:
            bound = float(number) * (1024 if thousand else 1)
        except ValueError as error:
            raise InputError(f"the threshold {text!r} has no number that can be read: {number!r}") from error
        return cls(said=text.strip(), metric=METRICS[name], task=task, at_least=sign == ">=", bound=bound)

    def missed(self, rows: Sequence[Measurement], methods: Sequence[str]) -> list[str]:
        """Why it is not met, a sentence each; empty where it is."""
        from ropewalk.measure.settings import NO_CONTEXT, STAND_ALONE

        asked = [row for row in rows if row.protocol not in (NO_CONTEXT, STAND_ALONE)]
        named = [row for row in asked if self._is_of(row.metric) and row.method in methods and row.depth is None]
        named = [row for row in named if self.task is None or row.task == self.task]
        if not named:
            return [f"{self.said}: the run has no {self.metric}" + (f" of {self.task}" if self.task else "")]
        return [reason for row in named if (reason := self._missed(row)) is not None]

    def _is_of(self, metric: str) -> bool:
        """Not fnmatch: lm-eval's filters stand in brackets, which are sets there."""
        first, star, last = self.metric.partition("*")
        return metric.startswith(first) and metric.endswith(last) if star else metric == self.metric

    def _missed(self, row: Measurement) -> str | None:
        about = ", ".join(str(part) for part in (row.method, row.task, row.length, row.protocol) if part is not None)
        if row.value is None:
            return f"{self.said}: no number for {about}: {row.note}"
        end = row.value if self.metric in CERTIFIED else row.ci_low if self.at_least else row.ci_high
        if end is None:
            return f"{self.said}: {row.value:.4g} for {about} has no interval: {row.note}"
        if (end >= self.bound) if self.at_least else (end <= self.bound):
            return None
        interval = "" if row.ci_low is None or row.ci_high is None else f" [{row.ci_low:.4g}, {row.ci_high:.4g}]"
        return f"{self.said}: {row.value:.4g}{interval} for {about}"


def missed(thresholds: Sequence[Threshold], rows: Sequence[Measurement]) -> list[str]:
    """Every sentence of every threshold that is not met: about the method, or without one about the model as it is."""
    measured = {row.method for row in rows}
    methods = sorted(m for m in measured if m != "none" and not m.startswith(("crop", "none@"))) or ["none"]
    return [reason for threshold in thresholds for reason in threshold.missed(rows, methods)]
