"""Steps to equal NLL: when each of two trainings first reaches one target, by one rule for both.

A target is a share of the way that one of the two goes, from its untrained plan to where it ends, the mean of its last
validations. Both are counted to their first crossing of it, by straight lines between validations, so a curve that is flat
at its end, or equal to the other, gives 1.00 and no more. One that is at a target before training has no steps there, and
one that does not come in its steps has none either: both are told in words, and no ratio is made of the seeds that are left.

Ratios are averaged as logarithms: the mean of plain ratios of two equal noisy methods is above 1.

Source: YaRN (arXiv:2309.00071), abstract, "2.5 times fewer training steps", which no curve of the paper shows.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from experiments.miniature.arms import Table
from experiments.miniature.cells import Cells
from experiments.miniature.intervals import Estimate, over_seeds

Curve = Sequence[tuple[int, float]]
"""(step, NLL) from step 0, the untrained plan, on."""
SHARES = (
    (0, 0.5, "half of PI's way"), (0, 0.9, "nine tenths of it"), (0, 1.0, "PI's end"),
    (1, 0.0, "YaRN untrained"), (1, 0.5, "half of YaRN's way"), (1, 1.0, "YaRN's end"),
)  # fmt: skip
"""Whose way (PI's is 0, YaRN's 1), what share of it, and its name."""
NUM_LAST = 5
"""Validations whose mean is where a training ends: one alone is as noisy as the crossing that is asked for."""
HEAD = "| to | target | NLL there | PI: steps, tokens | YaRN: steps, tokens | times fewer |"


def end(curve: Curve) -> float:
    """Where a training ends: the mean of its last validations, of a short one at most half of them."""
    trained = [nll for _, nll in curve[1:]]
    return float(np.mean(trained[-min(NUM_LAST, max(1, len(trained) // 2)) :]))


def targets(pair: tuple[Curve, Curve]) -> list[float]:
    """The NLL at each share of PI's way and of YaRN's."""
    return [pair[side][0][1] + share * (end(pair[side]) - pair[side][0][1]) for side, share, _ in SHARES]


def steps_to(curve: Curve, target: float) -> float:
    """The first step at which a curve is at or below `target`, between two validations by a straight line.

    0 is before training, inf never.
    """
    if curve[0][1] <= target:
        return 0.0
    for (before, high), (after, low) in pairwise(curve):
        if low <= target:
            return before + (after - before) * (high - target) / (high - low)
    return math.inf


def ratio(slow: Sequence[float], fast: Sequence[float]) -> Estimate | None:
    """How many times fewer steps, paired in each seed; None where a seed has no steps on either side."""
    if not all(0 < steps < math.inf for steps in (*slow, *fast)):
        return None
    found = over_seeds([math.log(a / b) for a, b in zip(slow, fast, strict=True)])
    if found is None:
        return None
    low, value, high = (math.exp(x) for x in (found.low, found.value, found.high))
    return Estimate(value=value, low=low, high=high, num_seeds=found.num_seeds)


def told(steps: Sequence[float], step_tokens: int) -> str:
    """The steps of all seeds and their tokens, or in how many seeds there are none, and why."""
    early, never = sum(n == 0 for n in steps), sum(math.isinf(n) for n in steps)
    found = None if early or never else over_seeds(steps)
    if found:
        return f"{found.text('.1f')}, {found.value * step_tokens:,.0f}"
    counts = ((early, "there before training"), (never, "not within its steps"))
    return ", ".join(f"{words} in {count} of {len(steps)} seeds" for count, words in counts if count)


def rows(length: str, pairs: Sequence[tuple[Curve, Curve]], step_tokens: int) -> list[str]:
    """The lines of one length: PI's curve and YaRN's of every seed, at each target."""
    levels = [targets(pair) for pair in pairs]
    out = []
    for index, (*_, name) in enumerate(SHARES):
        goals = [level[index] for level in levels]
        slow, fast = ([steps_to(pair[side], goal) for pair, goal in zip(pairs, goals, strict=True)] for side in (0, 1))
        level, fewer = over_seeds(goals), ratio(slow, fast)
        figures = [level.text() if level else "", told(slow, step_tokens), told(fast, step_tokens)]
        out.append(f"| {length} | {name} | {' | '.join(figures)} | {fewer.text('.2f') if fewer else ''} |")
    return out


def table(cells: Cells, seeds: tuple[int, ...], asked: Table) -> list[str]:
    """For each length: where PI ends, when either is there, and the ratio. Empty for tables that do not ask it."""
    if asked.id != "steps":
        return []
    out = ["", HEAD, "|" + " --- |" * 6]
    for (name, slow), (_, fast) in zip(asked.curves[::2], asked.curves[1::2], strict=True):
        pairs = [(cells.validations(seed, slow), cells.validations(seed, fast)) for seed in seeds]
        pairs = [(a, b) for a, b in pairs if a and b]
        length = name.split()[-1]
        out += rows(length, pairs, cells.sizes.step_tokens) if pairs else [f"| {length} | not run | | | | |"]
    return out
