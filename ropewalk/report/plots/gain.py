"""Net gain over cropping: the headline. A method earns its name only where this is above zero."""

from typing import Any

from ropewalk.report.facts import Facts
from ropewalk.report.html import Table
from ropewalk.report.plots.likelihood import spread
from ropewalk.report.plots.plot import Plot, method_name, position_axis
from ropewalk.report.theme import Stroke, Theme, printable, strokes
from ropewalk.report.words import MINUS, interval, number, tokens, with_interval

REACH = 0.25
"""Nats per token below the best method within which a method is kept in the picture."""


class _Gain(Plot):
    """NLL under crop minus NLL under the method on the same tokens, by window of targets."""

    name = "net-gain"
    title = "Is it better than cropping? Net gain beyond the trained length"

    def missing(self, facts: Facts) -> str | None:
        if drawn(facts):
            return None
        return "net gain needs a run of crop and at least one method beyond the trained length; no such row is here"

    def size(self, facts: Facts) -> tuple[float, float]:
        return (8.6, 4.9)

    def draw(self, figure: Any, facts: Facts, theme: Theme) -> None:
        axes, overall = figure.subplots(1, 2, sharey=True, width_ratios=[4, 1.15])
        low, high = limits(facts)
        for index, label in enumerate(drawn(facts)):
            stroke = strokes(facts.labels, theme)[label]
            draw_windows(axes, facts, label, stroke)
            row = facts.net_gain(label)
            # An interval whose mean is below the picture would be a bar without an owner.
            if row is not None and row.value is not None and low <= row.value <= high:
                draw_mean(overall, index, row.value, row.ci_low, row.ci_high, stroke)
        for panel in (axes, overall):
            panel.axhline(0.0, color=theme.ink, linewidth=1.1)
            panel.axhspan(low, 0.0, color=theme.shade, zorder=0, linewidth=0)
        axes.set_ylim(low, high)
        axes.set_ylabel("net gain over crop (nats per token)")
        label_sides(axes, theme)
        position_axis(axes, facts, "position of the predicted token")
        axes.set_xlim(min(facts.trained_length, facts.length), facts.length)
        name_clipped(axes, facts, theme)
        overall.set_xticks([])
        overall.set_xlabel("all targets")
        overall.margins(x=0.25)
        handles, labels = axes.get_legend_handles_labels()
        overall.legend(handles, labels, loc="upper left", bbox_to_anchor=(1.03, 1.02), borderaxespad=0.0)

    def caption(self, facts: Facts) -> str:
        text = (
            f"NLL under crop (the untouched model reading only the last {tokens(facts.trained_length)} tokens) minus NLL "
            "under the method, on the same tokens. Above zero the method reads better than cropping; below zero cropping "
            "reads better in likelihood, and the stretch has bought no prediction. Bands and bars are intervals"
        )
        text += ", within-document." if facts.within_document else " over documents."
        if clipped(facts):
            text += f" Below the picture: {', '.join(clipped(facts))}; the numbers are in the table."
        return text

    def alt(self, facts: Facts) -> str:
        parts = [f"{label} {with_interval(facts.net_gain(label), sign=True)}" for label in drawn(facts)]
        return f"Net gain over cropping in nats per token, zero means equal to cropping: {'; '.join(parts)}."

    def numbers(self, facts: Facts) -> Table:
        rows = []
        for label in drawn(facts):
            whole = facts.net_gain(label)
            if whole is not None:
                rows.append([label, "all", number(whole.value, sign=True), interval(whole, sign=True)])
            for p in facts.gain_windows(label):
                ends = (
                    ""
                    if p.ci_low is None or p.ci_high is None
                    else f"[{number(p.ci_low, sign=True)}, {number(p.ci_high, sign=True)}]"
                )
                rows.append([label, f"{tokens(p.low)}–{tokens(p.high)}", number(p.value, sign=True), ends])
        return Table(
            columns=["method", "positions", "net gain", "interval"], rows=rows, caption="Net gain over crop, nats per token"
        )


def drawn(facts: Facts) -> list[str]:
    """The methods that have a net gain to draw."""
    return [label for label in facts.labels if facts.gain_windows(label)]


def draw_windows(axes: Any, facts: Facts, label: str, stroke: Stroke) -> None:
    """A method's net gain by window, with its band."""
    points = facts.gain_windows(label)
    x = [point.middle for point in points]
    band = spread(points)
    if band is not None:
        # Many bands on top of each other turn to mud: they keep their edges and lose their filling.
        crowded = len(drawn(facts)) > 4
        axes.fill_between(x, *band, color=stroke.colour, alpha=0.05 if crowded else 0.16, linewidth=0)
        for edge in band if crowded else ():
            axes.plot(x, edge, color=stroke.colour, linewidth=0.7, alpha=0.6)
    axes.plot(
        x,
        [point.value for point in points],
        color=stroke.colour,
        linestyle=stroke.dash,
        marker=stroke.marker,
        markersize=4.5,
        label=method_name(label),
    )


def draw_mean(axes: Any, x: float, value: float, low: float | None, high: float | None, stroke: Stroke) -> None:
    """A method's net gain over all targets, with its interval."""
    if low is not None and high is not None:
        axes.plot([x, x], [low, high], color=stroke.colour, linewidth=2.4, alpha=0.55)
    axes.plot([x], [value], color=stroke.colour, marker=stroke.marker, markersize=7, linestyle="none")


def mean_gain(facts: Facts, label: str) -> float:
    """A method's net gain over its windows."""
    points = facts.gain_windows(label)
    return sum(point.value for point in points) / len(points)


def limits(facts: Facts) -> tuple[float, float]:
    """The y range: zero, and the methods near the best one; a collapse would flatten what is to be told apart."""
    means = {label: mean_gain(facts, label) for label in drawn(facts)}
    ends = [0.0]
    for label in means:
        if means[label] < max(means.values()) - REACH:
            continue
        for p in facts.gain_windows(label):
            ends += [end for end in (p.value, p.ci_low, p.ci_high) if end is not None]
    low, high = min(ends), max(ends)
    room = 0.15 * max(high - low, 1e-3)
    return low - 2 * room, high + 1.5 * room


def clipped(facts: Facts) -> list[str]:
    """The methods that leave the picture, with their means."""
    low, _ = limits(facts)
    gone = [label for label in drawn(facts) if any(p.value < low for p in facts.gain_windows(label))]
    return [f"{label} ({number(mean_gain(facts, label), 2, sign=True)})" for label in gone]


def name_clipped(axes: Any, facts: Facts, theme: Theme) -> None:
    """Who is below the picture, written at its bottom."""
    if clipped(facts):
        axes.annotate(
            printable(f"below the picture: {', '.join(clipped(facts))}".replace(MINUS, "-")),
            (1.0, 0.0),
            xycoords="axes fraction",
            xytext=(-6, 4),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=8.5,
            color=theme.muted,
        )


def label_sides(axes: Any, theme: Theme) -> None:
    """What the two sides of zero mean, written where they are."""
    for height, offset, side, text in (
        (1.0, -4, "top", "method reads better"),
        (0.0, 4, "bottom", "cropping reads better"),
    ):
        axes.annotate(
            text,
            (0.0, height),
            xycoords="axes fraction",
            xytext=(6, offset),
            textcoords="offset points",
            va=side,
            fontsize=8.5,
            color=theme.muted,
            style="italic",
        )


GAIN: Plot = _Gain()
