"""The price inside the old window: what a stretch costs the texts that the model could read anyway.

The control (the same model in float32 against the working precision) is the difference that means nothing.
"""

from typing import Any

from ropewalk.core.record import Measurement
from ropewalk.report.facts import Facts
from ropewalk.report.html import Table
from ropewalk.report.plots.plot import Plot, plain_ticks
from ropewalk.report.theme import Theme, printable, strokes
from ropewalk.report.words import number, percent, small, tokens, with_interval

PANELS = (
    ("price_nll", "NLL above untouched\n(nats per token)"),
    ("price_kl_mean", "KL to untouched,\nmean (nats)"),
    ("price_kl_p999", "KL to untouched,\n99.9th percentile (nats)"),
    ("price_top1", "first choice agrees\n(share of positions)"),
)


class _Price(Plot):
    """Paired NLL, KL and top-1 agreement inside the trained length, with the control beside them."""

    name = "price"
    title = "What it costs inside the trained length"

    def missing(self, facts: Facts) -> str | None:
        return None if priced(facts) else "no method has been compared with the untouched model inside the old window"

    def size(self, facts: Facts) -> tuple[float, float]:
        return (9.6, 2.2 + 0.42 * len(priced(facts)))

    def draw(self, figure: Any, facts: Facts, theme: Theme) -> None:
        labels = priced(facts)
        panels = figure.subplots(1, len(PANELS), sharey=True)
        for axes, (metric, heading) in zip(panels, PANELS, strict=True):
            rows = {label: row for label in labels if (row := valued(facts.row(metric, label))) is not None}
            draw_panel(axes, metric, facts, labels, rows, theme)
            draw_control(axes, valued(facts.control(metric)), theme)
            scale_axis(axes, metric, rows, valued(facts.control(metric)))
            axes.set_xlabel(heading, fontsize=8.5)
            axes.tick_params(axis="x", labelsize=8)
        panels[0].set_yticks(range(len(labels)), [printable(label) for label in labels])
        panels[0].set_ylim(len(labels) - 0.5, -0.75)
        handles, names = panels[1].get_legend_handles_labels()
        if handles:
            figure.legend(handles, names, loc="outside lower right")

    def caption(self, facts: Facts) -> str:
        text = (
            f"Each method against the untouched model on the first {tokens(facts.trained_length)} positions, same tokens. "
            "To the right of zero it reads worse than the untouched model; the further left in the KL panels and the "
            "further right in the last one, the less was changed."
        )
        if any(facts.control(metric) for metric, _ in PANELS):
            text += f" The dashed line is {control_name(facts)}: a difference no larger than that means nothing."
        else:
            text += " No control was run, so nothing here says how small a difference means nothing."
        return text

    def alt(self, facts: Facts) -> str:
        parts = [f"{label} {with_interval(facts.row('price_nll', label), sign=True)}" for label in priced(facts)]
        return f"Price inside the trained length, NLL in nats per token above the untouched model: {'; '.join(parts)}."

    def numbers(self, facts: Facts) -> Table:
        rows = [[label, *(cell(metric, facts.row(metric, label)) for metric, _ in PANELS)] for label in priced(facts)]
        if any(facts.control(metric) for metric, _ in PANELS):
            rows.append([f"control: {control_name(facts)}", *(cell(metric, facts.control(metric)) for metric, _ in PANELS)])
        columns = ["method", "NLL above untouched", "KL mean", "KL 99.9th percentile", "first choice agrees"]
        return Table(columns=columns, rows=rows, caption="Price inside the trained length")


def priced(facts: Facts) -> list[str]:
    """The methods with a price."""
    return [label for label in facts.labels if any(facts.row(metric, label) for metric, _ in PANELS)]


def control_name(facts: Facts) -> str:
    """What the control compares, in words."""
    return f"the untouched model in {facts.record.card.dtype} against itself in float32"


def valued(row: Measurement | None) -> Measurement | None:
    """A row that has a number."""
    return row if row is not None and row.value is not None else None


def cell(metric: str, row: Measurement | None) -> str:
    """A number of the table, with its interval."""
    if metric == "price_nll" or row is None or row.value is None:
        return with_interval(row, 4, sign=True)
    ends = (row.ci_low, row.ci_high)
    show = percent if metric == "price_top1" else small
    return show(row.value) if None in ends else f"{show(row.value)} [{show(ends[0])}, {show(ends[1])}]"


def write(metric: str, value: float) -> str:
    """A number beside its dot."""
    if metric == "price_nll":
        return number(value, 3, sign=True)
    return number(value) if metric == "price_top1" else small(value)


def draw_panel(axes: Any, metric: str, facts: Facts, labels: list[str], rows: dict[str, Measurement], theme: Theme) -> None:
    """One dot and its interval for each method."""
    for label, row in rows.items():
        stroke, y = strokes(facts.labels, theme)[label], labels.index(label)
        assert row.value is not None
        if row.ci_low is not None and row.ci_high is not None:
            axes.plot([row.ci_low, row.ci_high], [y, y], color=stroke.colour, linewidth=2.6, alpha=0.5)
        axes.plot([row.value], [y], color=stroke.colour, marker=stroke.marker, markersize=6.5, linestyle="none")
        axes.annotate(
            write(metric, row.value),
            (row.value, y),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=7.5,
            bbox={"facecolor": theme.surface, "edgecolor": "none", "pad": 0.4},
        )
    axes.grid(axis="y", visible=False)


def draw_control(axes: Any, row: Measurement | None, theme: Theme) -> None:
    """The difference that means nothing."""
    if row is not None:
        axes.axvline(
            row.value, color=theme.muted, linestyle=(0, (4, 2)), linewidth=1.3, label="control: this far apart means nothing"
        )


def scale_axis(axes: Any, metric: str, rows: dict[str, Measurement], control: Measurement | None) -> None:
    """Logarithmic for KL where all is above zero; from zero for the NLL; up to one for shares."""
    values = [row.value for row in rows.values() if row.value is not None]
    values += [control.value] if control is not None and control.value is not None else []
    if metric.startswith("price_kl") and values and min(values) > 0.0:
        axes.set_xscale("log")
        low, high = min(values), max(values)
        axes.set_xlim(low / 3, high * 3)
        plain_ticks(axes.xaxis)
    elif metric == "price_nll":
        axes.axvline(0.0, color=axes.xaxis.label.get_color(), linewidth=0.9)
        axes.margins(x=0.18)
    else:
        axes.margins(x=0.18)


PRICE: Plot = _Price()
