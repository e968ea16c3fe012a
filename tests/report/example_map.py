"""A plausible map without a model: recall planted by task, method, length and depth, and the rows that `measure` makes.

The samples are drawn, the arithmetic on them is the real one, so the report is tested on what runs write.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ropewalk.core.record import Measurement
from ropewalk.core.run import Run
from ropewalk.data.tasks.task import find_task
from ropewalk.measure.map_rows import MapRows
from ropewalk.measure.rows import Facts, Rows
from ropewalk.measure.settings import MapSettings, Settings

TASKS = ("needle", "passkey", "key-value", "variable-tracking", "association")
SKILL = {"needle": 1.0, "passkey": 1.0, "key-value": 0.97, "variable-tracking": 0.6, "association": 0.02}
"""Share found by the untouched model where nothing is lost."""
NO_DEPTH = ("variable-tracking",)


def lengths_of(trained: int, length: int) -> tuple[int, ...]:
    """The grid from a quarter of the trained length on."""
    grid = (n for k in range(30) for n in (2**k, 3 * 2 ** (k - 1)) if trained // 4 <= n <= length)
    return tuple(sorted(int(n) for n in grid))


def recall(task: str, label: str, length: int, depth: float, trained: int) -> float:
    """Planted share of what can be found."""
    fill = length / trained
    if label == "none":
        return SKILL[task] * (1.0 if fill <= 1 else max(0.0, 1.0 - 3 * (fill - 1)))
    if label == "crop":
        return SKILL[task] if depth > 1 - 1 / max(fill, 1.0) else 0.02
    kept = {"needle": 0.999, "passkey": 1.0, "key-value": 1.0 - 0.13 * fill}.get(task, 0.9)
    return SKILL[task] * kept * (1.0 if depth < 0.3 or depth > 0.7 or task == "passkey" else 0.99)


class Samples:
    """Answers of one map."""

    def __init__(self, settings: MapSettings, trained: int, seed: int = 0, engine: str = "transformers") -> None:
        self.settings, self.trained, self.engine = settings, trained, engine
        self.rng = np.random.default_rng(seed)

    def all(self) -> Iterator[dict[str, Any]]:
        """Every protocol of every task, the controls included."""
        for task in self.settings.tasks:
            modes = ("one-question",) if task in NO_DEPTH else self.protocols()
            for protocol in modes:
                for length in self.settings.lengths:
                    for label in self.settings.methods:
                        yield from self.cell(task, protocol, label, length)
            yield from self.cell(task, "no-context", "none", self.settings.lengths[0])
        if self.settings.check_branches:
            yield from self.cell("needle", "stand-alone", "none", self.settings.lengths[0], haystacks=1)

    def protocols(self) -> list[str]:
        names = {"fixed": "multikey-branch", "grow": "multikey-grow", "single": "single-key"}
        return [names[mode] for mode in self.settings.modes]

    def cell(
        self, task: str, protocol: str, label: str, length: int, haystacks: int | None = None
    ) -> Iterator[dict[str, Any]]:
        depths: Iterable[float | None] = [None] if task in NO_DEPTH else self.settings.depths
        for haystack in range(haystacks or self.settings.num_haystacks):
            for depth in depths:
                place = 0.3 if depth is None else depth
                share = 0.0 if protocol == "no-context" else recall(task, label, length, place, self.trained)
                right = bool(self.rng.random() < share)
                near = bool(self.rng.random() < max(0.25, min(1.0, share + 0.5)))
                yield self.sample(task, protocol, label, length, haystack, depth, right, near)

    def sample(
        self, task: str, protocol: str, label: str, length: int, haystack: int, depth: float | None, right: bool, near: bool
    ) -> dict[str, Any]:
        return {
            "task": task, "protocol": protocol, "method": label, "asked_length": length, "length": length - 3,
            "asked_depth": depth, "depth": depth, "haystack": haystack, "key": f"{haystack} {depth}",
            "position": None if depth is None else int(depth * length), "num_needles": len(self.settings.depths),
            "exact": right, "found": float(right), "rank": 1 if right or near else 3, "logprob": -0.1 if right else -7.0,
            "scoring": "forced", "guess": 0.0, "template": "raw", "engine": self.engine, "seconds": 0.25, "note": None,
        }  # fmt: skip


def map_settings(methods: Iterable[str], trained: int, length: int, **more: Any) -> MapSettings:
    """Settings of a map that can certify: twelve haystacks of five depths are worth 42 answers or more."""
    content: dict[str, Any] = {
        "methods": tuple(m for m in methods if m in ("none", "crop", "yarn", "served")),
        "lengths": lengths_of(trained, length),
        "tasks": TASKS,
        "num_depths": 5,
        "num_haystacks": 12,
        "check_branches": True,
    }
    return MapSettings(**(content | more))


def map_rows(run: Run, settings: MapSettings, trained: int, length: int, engine: str = "transformers") -> list[Measurement]:
    """The rows of the map, by the arithmetic of `measure`."""
    card = run.card
    facts = Facts(
        model=card.model, card=card.hash, seed=card.seed, dtype=card.dtype, device=card.device, versions={},
        quantisation=card.quantisation,
    )  # fmt: skip
    for task in settings.tasks:
        assert find_task(task).id == task
    samples = list(Samples(settings, trained, engine=engine).all())
    return MapRows(Rows(run, Settings(length=length), trained, facts, ()), settings, samples).all()
