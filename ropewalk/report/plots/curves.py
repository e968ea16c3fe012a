"""Score against length, a panel for each task: every method with its band, what it is held against, where training ended.

The dashed line is 85 % of the untouched model's short score: an effective length is the last tested length up to which the
whole band stays above it. (It is computed as a ratio, since the short score is an estimate too; the eye may differ.)
"""

import math
from dataclasses import dataclass
from typing import Any

from ropewalk.core.record import Measurement
from ropewalk.report.effective import THRESHOLD, reading
from ropewalk.report.facts import Facts
from ropewalk.report.html import Table
from ropewalk.report.plots.plot import Plot, legend_below, length_axis, method_name
from ropewalk.report.scores import Asked, for_pictures, title
from ropewalk.report.theme import Stroke, Theme, printable, strokes
from ropewalk.report.words import cut, listed, number, tokens, with_interval

PER_ROW = 3
MOST = 12
"""Panels; tasks beyond them stand in the table."""
TITLE = 34
"""Letters of a panel's title."""
NAMES = {"score": "score", "choice": "choice"}


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One task's curves of one kind."""

    asked: Asked
    kind: str
    name: str

    @property
    def rows(self) -> dict[tuple[str, int], Measurement]:
        """The rows over all depths."""
        return {(m, n): row for (m, n, depth), row in self.asked.of(self.kind).items() if depth is None}

    @property
    def lengths(self) -> list[int]:
        """Rising."""
        return sorted({length for _, length in self.rows})


class _Curves(Plot):
    """Small multiples of score against length."""

    name = "curves"
    title = "How the score falls with length"

    def missing(self, facts: Facts) -> str | None:
        if not panels(facts):
            return "no task was asked"
        if max(len(panel.lengths) for panel in panels(facts)) < 2:
            return "every task was asked at one length only; its score is in the map"
        return None

    def size(self, facts: Facts) -> tuple[float, float]:
        shown = panels(facts)[:MOST]
        return (9.6 if len(shown) > 1 else 8.6, 1.6 + 2.1 * math.ceil(len(shown) / PER_ROW))

    def draw(self, figure: Any, facts: Facts, theme: Theme) -> None:
        shown = panels(facts)[:MOST]
        columns = min(PER_ROW, len(shown))
        grid = figure.subplots(math.ceil(len(shown) / columns), columns, squeeze=False, sharey=True)
        drawn: dict[str, Any] = {}
        for index, axes in enumerate(grid.ravel()):
            if index >= len(shown):
                axes.set_axis_off()
                continue
            drawn |= draw_panel(axes, shown[index], facts, theme)
            if index % columns == 0:
                axes.set_ylabel("share")
            if index + columns >= len(shown):
                axes.set_xlabel("length of the prompt (tokens)")
        order = [label for label in facts.labels if label in drawn]
        names = [method_name(label) for label in order]
        rest = [name for name in drawn if name not in order]
        handles = [drawn[name] for name in [*order, *rest]]
        legend_below(figure, handles, [*names, *rest])

    def caption(self, facts: Facts) -> str:
        text = (
            "Share of what was asked for that was found, over all depths; bands are 95% intervals that know that answers "
            f"of one haystack are not independent. Dashed: {THRESHOLD:.0%} of s0, the untouched model's short score, which "
            "an effective length must stay above with its whole interval."
        )
        if facts.window_known and any(max(p.lengths) > facts.trained_length for p in panels(facts)):
            text += f" Shaded: beyond the {tokens(facts.trained_length)} trained tokens."
        if any(panel.kind == "choice" for panel in panels(facts)):
            text += (
                " Where no method ever answers exactly, its choice is shown too: how often the true answer is "
                "the likeliest of the candidates. It is above zero by chance alone, and no effective length is made of it."
            )
        if any(panel.asked.control is not None for panel in panels(facts)):
            text += " Finely dotted: the same questions without the text, that is, guessed."
        drawn = panels(facts)[:MOST]
        gone = [panel.name for panel in panels(facts, every=True) if panel not in drawn]
        return text + (f" Not drawn, in the table: {listed(gone)}." if gone else "")

    def alt(self, facts: Facts) -> str:
        said = []
        for panel in panels(facts)[:MOST]:
            last = panel.lengths[-1]
            ends = [
                f"{label} {with_interval(panel.rows[label, last], 2)}"
                for label in facts.labels
                if (label, last) in panel.rows
            ]
            said.append(f"{panel.name} at {tokens(last)} tokens: {', '.join(ends)}")
        return f"Score against length: {'; '.join(said)}."

    def numbers(self, facts: Facts) -> Table:
        rows = []
        for panel in panels(facts, every=True):
            for length in panel.lengths:
                cells = [with_interval(panel.rows.get((label, length)), 2) for label in asked_labels(facts)]
                counts = {row.n for (_, n), row in panel.rows.items() if n == length}
                rows.append([panel.name, tokens(length), *cells, ", ".join(str(n) for n in sorted(counts))])
        return Table(
            columns=["task", "length", *asked_labels(facts), "n"],
            rows=rows,
            caption="Share over all depths; 95% intervals in brackets; n answers",
        )


def asked_labels(facts: Facts) -> list[str]:
    """The methods of the map, in the order shown."""
    asked = {method for one in facts.asked for method in one.methods()}
    return [label for label in facts.labels if label in asked]


def panels(facts: Facts, *, every: bool = False) -> list[Panel]:
    """A panel for what pictures show, and one of choices where nothing is ever answered."""
    found, some = [], facts.asked if every else for_pictures(facts.asked)
    for asked in some:
        kinds = ["score", "choice"] if asked.never else ["score"]
        name = title(asked, facts.asked)
        for kind in kinds:
            panel = Panel(asked=asked, kind=kind, name=name if kind == "score" else f"{name}, {NAMES[kind]}")
            found += [panel] if panel.rows else []
    return found


def draw_panel(axes: Any, panel: Panel, facts: Facts, theme: Theme) -> dict[str, Any]:
    """One panel; returns what its legend names."""
    drawn = {}
    for label in facts.labels:
        rows = [row for (method, _), row in sorted(panel.rows.items()) if method == label]
        if rows:
            drawn[label] = draw_method(axes, rows, strokes(facts.labels, theme)[label])
    length_axis(axes, facts, panel.lengths, theme)
    axes.set_ylim(-0.03, 1.03)
    axes.set_yticks([0, 0.5, 1])
    axes.tick_params(labelsize=8)
    axes.set_title(cut(printable(panel.name), TITLE), fontsize=9, fontweight="bold")
    short, control = short_score(facts, panel.asked), panel.asked.control
    if panel.kind == "score" and short and not panel.asked.never:
        line = axes.axhline(THRESHOLD * short, color=theme.muted, linewidth=1.0, linestyle=(0, (5, 3)))
        axes.plot([panel.lengths[0]], [short], marker="_", markersize=13, color=theme.ink, linestyle="none")
        axes.annotate(
            f"s0 {number(short, 2)}", (0.98, THRESHOLD * short), xycoords=("axes fraction", "data"), va="bottom",
            xytext=(0, 1), textcoords="offset points", ha="right", fontsize=7, color=theme.muted,
        )  # fmt: skip
        drawn[f"{THRESHOLD:.0%} of s0"] = line
    if panel.kind == "score" and control is not None and control.value is not None:
        line = axes.axhline(control.value, color=theme.muted, linewidth=1.0, linestyle=(0, (1, 3)))
        drawn["without the text"] = line
    return drawn


def short_score(facts: Facts, asked: Asked) -> float | None:
    """s0: of the untouched model in this run, else as the effective length says it was held against."""
    if asked.short is not None:
        return asked.short.value
    rows = facts.record.rows("effective_length", task=asked.task, protocol=asked.protocol)
    return next((value for row in rows if (value := reading(row).short_value) is not None), None)


def draw_method(axes: Any, rows: list[Measurement], stroke: Stroke) -> Any:
    """A method's line, with its band where every point has an interval."""
    x, y = [row.length for row in rows], [row.value for row in rows]
    lows = [row.ci_low for row in rows if row.ci_low is not None]
    highs = [row.ci_high for row in rows if row.ci_high is not None]
    if len(lows) == len(highs) == len(rows):
        axes.fill_between(x, lows, highs, color=stroke.colour, alpha=0.14, linewidth=0)
        if len(rows) == 1:
            axes.plot([x[0], x[0]], [lows[0], highs[0]], color=stroke.colour, alpha=0.5, linewidth=2.4)
    (line,) = axes.plot(
        x, y, color=stroke.colour, linestyle=stroke.dash, marker=stroke.marker, markersize=3.8, linewidth=1.5
    )
    return line


CURVES: Plot = _Curves()
