"""NLL against position: how far each method reads, on one pass over each document.

Methods read in one pass are lines of binned means; cropping and plans that depend on the length were measured window by
window and are points. Where one method's failure would flatten all others, a second panel shows the others close up.
"""

from itertools import pairwise
from typing import Any

from ropewalk.report.facts import BASELINES, Facts, Point
from ropewalk.report.html import Table
from ropewalk.report.plots.plot import Plot, legend_beside, mark_trained, method_name, position_axis
from ropewalk.report.theme import Stroke, Theme, strokes
from ropewalk.report.words import counted, number, tokens

CLOSE_UP = 1.6
"""A second panel is drawn where the whole spans this many times what the best readable lines span."""


class _Likelihood(Plot):
    """Mean NLL by bin of positions, all methods."""

    name = "nll"
    title = "How far it reads: loss against position"

    def missing(self, facts: Facts) -> str | None:
        return None if facts.tokens else "no document has been read yet"

    def size(self, facts: Facts) -> tuple[float, float]:
        return (8.6, 6.6 if close_up(facts) else 4.6)

    def draw(self, figure: Any, facts: Facts, theme: Theme) -> None:
        limits = close_up(facts)
        ratios = [3, 2.6] if limits else [1]
        panels = figure.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
        for index, axes in enumerate(panels):
            for label in facts.tokens:
                draw_curve(axes, facts, label, strokes(facts.labels, theme)[label])
            position_axis(axes, facts, "position of the predicted token" if index == len(panels) - 1 else None)
            mark_trained(axes, facts, theme, text=index == 0)
            axes.set_ylabel("NLL (nats per token)")
        if limits:
            panels[1].set_ylim(*limits)
            panels[1].set_title("close up", color=theme.muted, fontsize=8.5)
        legend_beside(panels[0])

    def caption(self, facts: Facts) -> str:
        width = int(facts.bins[1] - facts.bins[0])
        text = (
            f"Mean NLL of the tokens in bins of {tokens(width)} positions, over {counted(facts.num_documents, 'document')}; "
            "lower reads better. A line that rises beyond the dotted mark has stopped reading."
        )
        if any(not facts.is_line(label) for label in facts.tokens):
            text += (
                " Points are windows of targets, each at its place in the text: cropping sees only the last "
                f"{tokens(facts.trained_length)} tokens before them, and plans that depend on the length were run anew for "
                "each."
            )
        if not facts.same_documents:
            text += " The run is unfinished and its methods have no document in common yet: do not compare the lines."
        return text

    def alt(self, facts: Facts) -> str:
        parts = []
        for label in facts.tokens:
            curve = facts.curve(label)
            if curve:
                first, last = curve[0], curve[-1]
                parts.append(
                    f"{label} {number(first.value, 2)} at {tokens(first.middle)}, "
                    f"{number(last.value, 2)} at {tokens(last.middle)}"
                )
        return f"Loss in nats per token against position, trained length {tokens(facts.trained_length)}: {'; '.join(parts)}."

    def numbers(self, facts: Facts) -> Table:
        edges = list(pairwise(facts.bins))
        lines = [label for label in facts.tokens if facts.is_line(label)]
        rows = [
            [f"{tokens(a)}–{tokens(b)}", *(number(facts.tokens[label].mean(int(a), int(b))) for label in lines)]
            for a, b in edges
        ]
        for label in facts.tokens:
            if label not in lines:
                rows += [
                    [f"{label}: {tokens(p.low)}–{tokens(p.high)}", number(p.value), *[""] * (max(len(lines), 1) - 1)]
                    for p in facts.curve(label)
                ]
        return Table(columns=["positions", *(lines or ["NLL"])], rows=rows, caption="Mean NLL, nats per token")


def draw_curve(axes: Any, facts: Facts, label: str, stroke: Stroke) -> None:
    """One method: a line of bins, or points at its windows."""
    curve = facts.curve(label)
    x, y = [point.middle for point in curve], [point.value for point in curve]
    if facts.is_line(label):
        axes.plot(
            x, y, color=stroke.colour, linestyle=stroke.dash, marker=stroke.marker, markersize=3.6, label=method_name(label)
        )
        return
    axes.plot(
        x,
        y,
        color=stroke.colour,
        linestyle=stroke.dash if label == "crop" else "none",
        linewidth=1.2,
        marker=stroke.marker,
        markersize=5.5,
        markerfacecolor="none",
        label=method_name(label),
        zorder=3,
    )


def close_up(facts: Facts) -> tuple[float, float] | None:
    """The range in which good methods live, where it is much narrower than the whole.

    It is spanned by what can be had without any method: the untouched model inside its window, and cropping beyond.
    """
    everything = [point.value for label in facts.tokens for point in facts.curve(label)]
    within = [
        point.value
        for label in BASELINES
        if label in facts.tokens
        for point in facts.curve(label)
        if label == "crop" or point.high <= facts.trained_length
    ]
    if not within or "crop" not in facts.tokens:
        return None
    low, high = min(within), max(within)
    room = 0.25 * max(high - low, 0.04)
    if max(everything) - min(everything) < CLOSE_UP * (high - low + 2 * room):
        return None
    return low - room, high + room


def spread(points: list[Point]) -> tuple[list[float], list[float]] | None:
    """Lower and upper ends of the intervals of points, or None where one of them has none."""
    lows = [point.ci_low for point in points if point.ci_low is not None]
    highs = [point.ci_high for point in points if point.ci_high is not None]
    return (lows, highs) if points and len(lows) == len(points) == len(highs) else None


LIKELIHOOD: Plot = _Likelihood()
