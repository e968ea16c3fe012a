"""Paired differences in retrieval: every method against cropping and against the untouched model, on identical prompts.

A forest plot. Each method earns its name on a task where its line is right of zero against cropping; left of zero against
the untouched model, inside the window, is what it costs there.
"""

from dataclasses import dataclass
from typing import Any

from ropewalk.core.record import Measurement
from ropewalk.report.facts import Facts
from ropewalk.report.html import Table
from ropewalk.report.plots.plot import Plot, legend_below, method_name
from ropewalk.report.scores import for_pictures, title
from ropewalk.report.theme import Theme, printable, strokes
from ropewalk.report.words import cut, listed, number, short_tokens, tokens, with_interval

TITLE = 36
"""Letters of a task's name with its length."""
MOST = 28
"""Lines drawn; the longest lengths come first where there are more."""
REFERENCES = {"crop": "minus crop, beyond the trained length", "none": "minus untouched, all lengths"}


@dataclass(frozen=True, kw_only=True)
class Place:
    """A line of the plot: one task at one length."""

    name: str
    length: int


class _Paired(Plot):
    """Differences with intervals, and a line at zero."""

    name = "retrieval-gain"
    title = "Does it find more than cropping does? Paired differences"

    def missing(self, facts: Facts) -> str | None:
        if places(facts):
            return None
        return "no method was asked the same prompts as crop or as the untouched model"

    def size(self, facts: Facts) -> tuple[float, float]:
        return (9.2, 1.75 + 0.2 * num_lines(facts, shown(facts)) + 0.1 * len(shown(facts)))

    def draw(self, figure: Any, facts: Facts, theme: Theme) -> None:
        panels = figure.subplots(1, len(sides(facts)), sharey=True, squeeze=False)[0]
        found, y, marks = rows(facts), 0.0, []
        at = methods_by_place(facts)
        for place in shown(facts):
            labels = at[place]
            marks.append((y + (len(labels) - 1) / 2, f"{place.name}, {short_tokens(place.length)}"))
            for label in labels:
                for axes, reference in zip(panels, sides(facts), strict=True):
                    row = found.get((place, label, reference))
                    if row is not None:
                        draw_row(axes, row, y, strokes(facts.labels, theme)[label])
                y += 1.0
            y += 0.5
        for axes, text in zip(panels, sides(facts).values(), strict=True):
            axes.axvline(0.0, color=theme.ink, linewidth=1.1)
            axes.set_title(text, fontsize=9, fontweight="bold")
            axes.set_xlabel("difference in the share found")
            axes.grid(axis="y", visible=False)
            axes.set_xlim(-1.05, 1.05)
            axes.tick_params(labelsize=8)
        panels[0].set_yticks([place for place, _ in marks], [cut(printable(name), TITLE) for _, name in marks])
        panels[0].set_ylim(y - 0.6, -0.9)
        legend(figure, facts, theme)

    def caption(self, facts: Facts) -> str:
        text = (
            "Share found by the method minus share found by the baseline, on identical prompts, with 95% intervals over "
            "haystacks. Right of zero the method finds more. A hollow mark has no interval: too few haystacks."
        )
        if facts.window_known:
            text += (
                f" At or below {tokens(facts.trained_length)} tokens cropping crops nothing, so only the untouched model "
                "stands there: left of zero is the price in retrieval inside the window."
            )
        drawn = shown(facts)
        gone = [f"{p.name} at {tokens(p.length)}" for p in places(facts) if p not in drawn]
        rest = f"{listed(gone[:3])} and {len(gone) - 3} more" if len(gone) > 4 else listed(gone) if gone else ""
        return text + (f" Not drawn, in the table: {rest}." if gone else "")

    def alt(self, facts: Facts) -> str:
        drawn = shown(facts)
        said = [
            f"{label} minus {reference} on {place.name} at {tokens(place.length)} tokens {with_interval(row, 2, sign=True)}"
            for (place, label, reference), row in rows(facts).items()
            if place in drawn
        ]
        return f"Paired differences in the share found: {'; '.join(said)}."

    def numbers(self, facts: Facts) -> Table:
        found = [
            [
                place.name,
                tokens(place.length),
                label,
                reference,
                with_interval(row, 3, sign=True),
                str(row.n),
                str(row.num_clusters),
            ]
            for (place, label, reference), row in rows(facts).items()
        ]
        columns = ["task", "length", "method", "minus", "difference", "prompts", "haystacks"]
        return Table(columns=columns, rows=found, caption="Difference in the share found on identical prompts")


def rows(facts: Facts) -> dict[tuple[Place, str, str], Measurement]:
    """The differences that can tell something, longest texts first within a task."""
    found = []
    names = {(asked.task, asked.protocol): title(asked, facts.asked) for asked in facts.asked}
    for row in facts.record.rows("retrieval_gain"):
        if row.value is None or row.length is None or row.reference not in REFERENCES:
            continue
        # Where nothing is cropped, crop is the untouched model.
        if row.reference == "crop" and facts.window_known and row.length <= facts.trained_length:
            continue
        name = names.get((row.task or "", row.protocol), row.task or "retrieval")
        found.append(((Place(name=name, length=row.length), row.method, row.reference), row))
    tasks = {name: i for i, name in enumerate(dict.fromkeys(key[0].name for key, _ in found))}
    order = {label: i for i, label in enumerate(facts.labels)}
    found.sort(key=lambda item: (tasks[item[0][0].name], -item[0][0].length, order[item[0][1]], item[0][2]))
    return dict(found)


def places(facts: Facts) -> list[Place]:
    """Every line's task and length."""
    return list(dict.fromkeys(place for place, _, _ in rows(facts)))


def methods_by_place(facts: Facts) -> dict[Place, list[str]]:
    """The methods compared at each place."""
    found: dict[Place, list[str]] = {}
    for place, label, _ in rows(facts):
        here = found.setdefault(place, [])
        here += [] if label in here else [label]
    return found


def num_lines(facts: Facts, some: list[Place]) -> int:
    """Lines of these places."""
    at = methods_by_place(facts)
    return sum(len(at[place]) for place in some)


def shown(facts: Facts) -> list[Place]:
    """The places drawn: of every task the longest length first, then the next, while there is room."""
    names = {title(asked, facts.asked) for asked in for_pictures(facts.asked)}
    at = methods_by_place(facts)
    kept: set[Place] = set()
    every, left = [place for place in at if place.name in names], MOST
    rank = {place: [p for p in every if p.name == place.name].index(place) for place in every}
    for place in sorted(every, key=lambda p: rank[p]):
        left -= len(at[place])
        if left >= 0 or not kept:
            kept.add(place)
    return [place for place in every if place in kept]


def draw_row(axes: Any, row: Measurement, y: float, stroke: Any) -> None:
    """A mark with its interval; hollow without one."""
    bare = row.ci_low is None or row.ci_high is None
    if not bare:
        axes.plot([row.ci_low, row.ci_high], [y, y], color=stroke.colour, linewidth=2.4, alpha=0.5)
    fill = {"markerfacecolor": "none"} if bare else {}
    axes.plot([row.value], [y], color=stroke.colour, marker=stroke.marker, markersize=5.5, linestyle="none", **fill)
    right = row.value is not None and 0.0 <= row.value < 0.55
    axes.annotate(
        number(row.value, 2, sign=True).replace("\N{MINUS SIGN}", "-"),
        (max(e for e in (row.value, row.ci_high) if e is not None) if right else min(
            e for e in (row.value, row.ci_low) if e is not None), y),
        xytext=(6 if right else -6, 0), textcoords="offset points", va="center", fontsize=7.2,
        ha="left" if right else "right",
    )  # fmt: skip


def sides(facts: Facts) -> dict[str, str]:
    """The baselines that some method was paired with, and what their panels show."""
    present = {reference for _, _, reference in rows(facts)}
    return {reference: text for reference, text in REFERENCES.items() if reference in present}


def legend(figure: Any, facts: Facts, theme: Theme) -> None:
    """Which colour is whose, where there are several."""
    from matplotlib.lines import Line2D

    found = strokes(facts.labels, theme)
    labels = list(dict.fromkeys(label for _, label, _ in rows(facts)))
    handles = [Line2D([], [], color=found[n].colour, marker=found[n].marker, linewidth=2.0) for n in labels]
    legend_below(figure, handles, [method_name(n) for n in labels])


PAIRED: Plot = _Paired()
