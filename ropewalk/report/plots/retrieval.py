"""The retrieval map: which keys are found, by depth and by length, method by method.

The control without the text stands under each map: what a model answers when it has not read is no reading.
"""

import math
from dataclasses import dataclass
from typing import Any

from ropewalk.core.record import Measurement
from ropewalk.report.facts import Facts
from ropewalk.report.html import Table
from ropewalk.report.plots.plot import Plot
from ropewalk.report.theme import Theme, printable
from ropewalk.report.words import number, short_tokens, tokens, with_interval

PROTOCOLS = ("multikey-branch", "multikey-grow", "single-key")
METRICS = ("retrieval_exact", "retrieval_logprob")
CONTROL = "no-context"
PER_ROW = 4
"""Maps side by side before a new row begins."""


class _Retrieval(Plot):
    """Heat maps of exact answers and of their log-probability."""

    name = "retrieval"
    title = "Does it find what it has read? Retrieval by depth and length"

    def missing(self, facts: Facts) -> str | None:
        return None if maps(facts) else "retrieval was not measured"

    def size(self, facts: Facts) -> tuple[float, float]:
        found = maps(facts)
        columns = min(PER_ROW, max(len(band.labels) for band in found))
        heights = [0.6 + 0.24 * len(band.depths) for band in found for _ in range(band.num_rows)]
        return (max(6.4, 1.5 + 2.05 * columns), 1.5 + sum(heights))

    def draw(self, figure: Any, facts: Facts, theme: Theme) -> None:
        found = maps(facts)
        columns = min(PER_ROW, max(len(band.labels) for band in found))
        heights = [0.6 + 0.24 * len(band.depths) for band in found for _ in range(band.num_rows)]
        panels = figure.subplots(len(heights), columns, squeeze=False, height_ratios=heights)
        first = 0
        for band in found:
            cells = panels[first : first + band.num_rows]
            draw_band(figure, cells, band, facts, theme)
            first += band.num_rows

    def caption(self, facts: Facts) -> str:
        text = (
            "Each cell: the share of answers that are exactly right (teacher-forced: every token of the answer is the first "
            "choice), with the number of questions n; below it the mean log-probability of the answers. Depth 0 is the "
            f"start of the text. Lengths beyond {tokens(facts.trained_length)} tokens are beyond the trained length, and "
            "there crop cannot see keys that it cut away."
        )
        if facts.record.rows("retrieval_exact", protocol=CONTROL):
            text += " The row no text asks the same questions without the text: what is answered there was guessed."
        return text

    def alt(self, facts: Facts) -> str:
        rows = [row for row in summary_rows(facts) if row.metric == "retrieval_exact"]
        parts = [f"{row.method} {with_interval(row, 2)} at {tokens(row.length or 0)} tokens" for row in rows]
        return f"Share of keys found, by method and length, over all depths: {'; '.join(parts) or 'see the table'}."

    def numbers(self, facts: Facts) -> Table:
        rows = []
        for row in summary_rows(facts):
            length = MISSING_LENGTH if row.length is None else tokens(row.length)
            what = row.metric.removeprefix("retrieval_")
            rows.append([row.method, row.protocol, length, what, with_interval(row, 2), str(row.n)])
        columns = ["method", "protocol", "length", "measure", "value", "n"]
        return Table(columns=columns, rows=rows, caption="Retrieval over all depths")


MISSING_LENGTH = "any"


@dataclass(frozen=True, kw_only=True)
class Band:
    """The maps of one metric under one protocol."""

    metric: str
    protocol: str
    labels: tuple[str, ...]
    lengths: tuple[int, ...]
    depths: tuple[float | None, ...]
    """From the start of the text to its end; None last, for the control without the text."""
    cells: dict[tuple[str, int, float | None], Measurement]

    @property
    def num_rows(self) -> int:
        """Rows of maps."""
        return math.ceil(len(self.labels) / PER_ROW)

    @property
    def heading(self) -> str:
        """What the maps of this band show."""
        unit = {"retrieval_exact": "exact", "retrieval_logprob": "mean log-probability\n(nats)"}[self.metric]
        return f"{unit}, {self.protocol}"


def maps(facts: Facts) -> list[Band]:
    """Every protocol's map of exact answers, then its map of log-probabilities."""
    found = [band(facts, metric, p) for p in PROTOCOLS for metric in METRICS]
    # One key's log-probabilities stand in the table: a fourth map says little that the third does not.
    found = [b for b in found if b is None or b.metric == "retrieval_exact" or b.protocol != "single-key"]
    return [b for b in found if b is not None]


def band(facts: Facts, metric: str, protocol: str) -> Band | None:
    """The maps of one metric under one protocol, with the control's row where it was run."""
    rows = [
        row
        for row in facts.record.rows(metric, protocol=protocol)
        if row.depth is not None and row.length is not None and row.value is not None
    ]
    if not rows:
        return None
    cells: dict[tuple[str, int, float | None], Measurement] = {
        (row.method, row.length, row.depth): row for row in rows if row.length is not None
    }
    labels = tuple(label for label in facts.labels if any(row.method == label for row in rows))
    lengths = tuple(sorted({row.length for row in rows if row.length is not None}))
    depths: list[float | None] = [*sorted({row.depth for row in rows if row.depth is not None})]
    controls = {
        (label, length, None): row
        for label in labels
        for length in lengths
        if (row := control_row(facts, metric, label, length)) is not None
    }
    if controls:
        depths.append(None)
    return Band(
        metric=metric, protocol=protocol, labels=labels, lengths=lengths, depths=tuple(depths), cells=cells | controls
    )


def control_row(facts: Facts, metric: str, label: str, length: int) -> Measurement | None:
    """The same questions without the text: of this length where it says so, else of any."""
    rows = [row for row in facts.record.rows(metric, protocol=CONTROL, method=label, depth=None) if row.value is not None]
    exact = [row for row in rows if row.length == length]
    return next(iter(exact or [row for row in rows if row.length is None]), None)


def summary_rows(facts: Facts) -> list[Measurement]:
    """The rows over all depths."""
    metrics = ("retrieval_exact", "retrieval_logprob", "retrieval_rank")
    rows = [row for metric in metrics for row in facts.record.rows(metric, depth=None)]
    order = {label: index for index, label in enumerate(facts.labels)}
    return sorted(rows, key=lambda row: (row.protocol, row.metric, row.length or 0, order[row.method]))


def length_name(facts: Facts, length: int) -> str:
    """A length under a map, with a word where it is beyond the trained one."""
    return f"{short_tokens(length)}, beyond" if length > facts.trained_length else short_tokens(length)


def draw_band(figure: Any, panels: Any, band: Band, facts: Facts, theme: Theme) -> None:
    """The maps of a band, one for each method, one colour bar for all."""
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    values = [row.value for row in band.cells.values() if row.value is not None]
    exact = band.metric == "retrieval_exact"
    norm = Normalize(0.0, 1.0) if exact else Normalize(min(values), max(max(values), min(values) + 1e-6))
    colours = colormaps["cividis"]
    flat = panels.ravel()
    for index, axes in enumerate(flat):
        if index >= len(band.labels):
            axes.set_axis_off()
            continue
        draw_map(axes, band, band.labels[index], colours, norm, facts)
        axes.set_title(printable(band.labels[index]), fontsize=9, fontweight="bold")
        if index % panels.shape[1]:
            axes.set_yticklabels([])
        else:
            axes.set_ylabel("depth")
    from matplotlib.cm import ScalarMappable

    bar = figure.colorbar(ScalarMappable(norm=norm, cmap=colours), ax=list(flat), pad=0.01, aspect=14, shrink=0.9)
    bar.outline.set_visible(False)
    bar.set_label(band.heading, fontsize=8)
    bar.ax.tick_params(labelsize=7.5)


def draw_map(axes: Any, band: Band, label: str, colours: Any, norm: Any, facts: Facts) -> None:
    """One method's map: a coloured cell with its value and n, hatched nothing where nothing was asked."""
    from matplotlib.patches import Rectangle

    for x, length in enumerate(band.lengths):
        for y, depth in enumerate(band.depths):
            row = band.cells.get((label, length, depth))
            if row is None or row.value is None:
                continue
            colour = colours(norm(row.value))
            # The control is set apart by a gap: it is no depth.
            top = y - 0.5 + (0.15 if depth is None else 0.0)
            axes.add_patch(Rectangle((x - 0.48, top + 0.03), 0.96, 0.94, facecolor=colour, linewidth=0))
            light = sum(w * c for w, c in zip((0.299, 0.587, 0.114), colour[:3], strict=True)) > 0.5
            text = f"{number(row.value, 2)}  n={row.n}"
            axes.text(x, top + 0.5, text, ha="center", va="center", fontsize=7, color="#111111" if light else "#fefefe")
    axes.grid(visible=False)
    axes.set_xticks(range(len(band.lengths)), [length_name(facts, length) for length in band.lengths])
    marks = ["no text" if depth is None else f"{depth:g}" for depth in band.depths]
    axes.set_yticks([y + (0.15 if d is None else 0.0) for y, d in enumerate(band.depths)], marks)
    axes.tick_params(length=0, labelsize=8)
    axes.set_xlim(-0.5, len(band.lengths) - 0.5)
    axes.set_ylim(len(band.depths) - 0.3, -0.5)
    for side in axes.spines.values():
        side.set_visible(False)


RETRIEVAL: Plot = _Retrieval()
