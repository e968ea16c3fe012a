"""Perplexity at every context length, as YaRN's Figure 1 draws it (arXiv:2309.00071); here all points come from one pass."""

from typing import Any

from ropewalk.report.facts import Facts, Point, as_point
from ropewalk.report.html import Table
from ropewalk.report.plots.likelihood import spread
from ropewalk.report.plots.plot import Plot, legend_beside, mark_trained, method_name, plain_ticks, position_axis
from ropewalk.report.theme import Theme, strokes
from ropewalk.report.words import number, tokens


class _Perplexity(Plot):
    """exp of the mean NLL of the first N tokens, for each N."""

    name = "perplexity"
    title = "Perplexity at every context length"

    def missing(self, facts: Facts) -> str | None:
        return None if series(facts) else "no perplexity has been written yet"

    def size(self, facts: Facts) -> tuple[float, float]:
        return (8.6, 4.4)

    def draw(self, figure: Any, facts: Facts, theme: Theme) -> None:
        axes = figure.subplots()
        values: list[float] = []
        for label, points in series(facts).items():
            stroke = strokes(facts.labels, theme)[label]
            x, y = [point.high for point in points], [point.value for point in points]
            values += y
            band = spread(points)
            if band is not None:
                axes.fill_between(x, *band, color=stroke.colour, alpha=0.12, linewidth=0)
            style = {"marker": stroke.marker, "markersize": 2.6, "clip_on": False}
            axes.plot(x, y, color=stroke.colour, linestyle=stroke.dash, label=method_name(label), **style)
        position_axis(axes, facts, "context length (tokens)")
        mark_trained(axes, facts, theme)
        axes.set_ylabel("perplexity")
        logarithmic(axes, min(values), max(values))
        legend_beside(axes)

    def caption(self, facts: Facts) -> str:
        return (
            "exp of the mean NLL of the first N tokens (protocol prefix), N on the x axis. It averages from the first token "
            "on, so it reacts late: the first figure says at which position a method stops reading. Cropping and plans that "
            "depend on the length have no such curve."
        )

    def alt(self, facts: Facts) -> str:
        ends = [f"{label} {number(points[-1].value, 1)}" for label, points in series(facts).items()]
        last = max(points[-1].high for points in series(facts).values())
        return f"Perplexity against context length; at {tokens(last)} tokens: {'; '.join(ends)}."

    def numbers(self, facts: Facts) -> Table:
        found = series(facts)
        lengths = sorted({point.high for points in found.values() for point in points})
        values = {label: {point.high: point.value for point in points} for label, points in found.items()}
        rows = [[tokens(n), *(number(values[label].get(n), 2) for label in found)] for n in lengths]
        return Table(columns=["context length", *found], rows=rows, caption="Perplexity of the first N tokens")


def series(facts: Facts) -> dict[str, list[Point]]:
    """The points of each method, by length."""
    found: dict[str, list[Point]] = {}
    for label in facts.labels:
        rows = facts.record.rows("perplexity", method=label, protocol="prefix")
        points = [point for row in rows if (point := as_point(row)) is not None and point.value > 0.0]
        if points:
            found[label] = sorted(points, key=lambda point: point.high)
    return found


def logarithmic(axes: Any, low: float, high: float) -> None:
    """A logarithmic y axis whose ticks are plain numbers."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    axes.set_yscale("log")
    far = high / low > 8
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)) if far else MaxNLocator(7))
    plain_ticks(axes.yaxis)


PERPLEXITY: Plot = _Perplexity()
