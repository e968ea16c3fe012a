"""What a figure is worth: means over seeds with Student's interval, of differences that are paired within each seed.

A seed's figure is the mean over its documents, each document weighing alike. Arms of one seed share base, rows and
documents, so their difference is taken first, document by document. With three seeds the 95% factor is 4.30 standard errors.
That interval speaks of training anew, on these documents; what other documents would change is the second one's matter.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ropewalk.measure.statistics import student


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over seeds."""

    value: float
    low: float
    high: float
    num_seeds: int

    def __str__(self) -> str:
        return self.text()

    def text(self, form: str = ".3f") -> str:
        """The mean with its interval; one seed has none."""
        if self.num_seeds < 2:
            return f"{self.value:{form}} (1 seed)"
        return f"{self.value:{form}} [{self.low:{form}}, {self.high:{form}}]"


def over_seeds(values: Sequence[float]) -> Estimate | None:
    """Mean and 95% interval of one figure a seed; None without any."""
    kept = np.asarray(values, dtype=np.float64)
    if kept.size == 0:
        return None
    mean = float(kept.mean())
    half = student(kept.size) * float(kept.std(ddof=1)) / math.sqrt(kept.size) if kept.size > 1 else math.inf
    return Estimate(value=mean, low=mean - half, high=mean + half, num_seeds=int(kept.size))


def over_documents(per_seed: Sequence[NDArray[np.float64]]) -> Estimate | None:
    """Mean and 95% interval over documents, each the mean of its seeds: what other documents of the kind would change."""
    if not per_seed:
        return None
    return over_seeds([float(value) for value in np.mean(np.stack(per_seed), axis=0)])
