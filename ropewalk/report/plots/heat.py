"""How a heat map is drawn: a coloured cell for what was measured, with its number where there is room, hatching elsewhere.

Cividis is told apart by colour-blind readers and keeps its order in grey print.
"""

import math
from dataclasses import dataclass
from typing import Any

from ropewalk.core.record import Measurement
from ropewalk.report.facts import Facts
from ropewalk.report.scores import Cell
from ropewalk.report.theme import Theme, printable
from ropewalk.report.words import MINUS, cut, number, short_tokens

PER_ROW = 4
"""Maps side by side before a new row begins."""
ROOM_BESIDE, ROOM_BELOW, ROOM_SHARE = 0.75, 0.34, 0.2
"""Inches a cell must be wide to hold share and n side by side, one above the other, or the share alone."""
KINDS = {"score": "share found", "choice": "choice", "logprob": "mean log-probability"}
LETTERS = 11
"""Letters of a title that fit an inch."""
LIGHTEST = 0.5
"""Luminance above which a cell's number is dark."""


@dataclass(frozen=True, kw_only=True)
class Band:
    """The maps of one task, one panel for each method."""

    name: str
    kind: str
    protocol: str
    labels: tuple[str, ...]
    lengths: tuple[int, ...]
    depths: tuple[float | None, ...]
    """From the start of the text to its end; None last, for the control without the text."""
    cells: dict[Cell, Measurement]
    low: bool
    """Whether its cells have room for one short number only."""

    @property
    def num_rows(self) -> int:
        """Rows of maps."""
        return math.ceil(len(self.labels) / PER_ROW)

    @property
    def height(self) -> float:
        """Inches of one row of maps."""
        return 0.6 + (0.145 if self.low else 0.27 if len(self.lengths) > 3 else 0.24) * len(self.depths)

    @property
    def is_share(self) -> bool:
        """Whether its values lie between 0 and 1."""
        return self.kind != "logprob"


def draw_band(figure: Any, panels: Any, band: Band, facts: Facts, theme: Theme) -> None:
    """The maps of a band, one for each method; log-probabilities have a colour bar of their own."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    values = [row.value for row in band.cells.values() if row.value is not None]
    norm = Normalize(0.0, 1.0) if band.is_share else Normalize(min(values), max(max(values), min(values) + 1e-6))
    colours, flat = colormaps["cividis"], panels.ravel()
    width = figure.get_size_inches()[0] / (panels.shape[1] + 0.55) / len(band.lengths)
    for index, axes in enumerate(flat):
        if index >= len(band.labels):
            axes.set_axis_off()
            continue
        draw_map(axes, band, band.labels[index], lambda value: colours(norm(value)), width, theme)
        first = index - index % panels.shape[1]
        control = any(
            (label, n, None) in band.cells for label in band.labels[first : first + panels.shape[1]] for n in band.lengths
        )
        label_axes(axes, band, facts, control=control)
        said = said_n(band, band.labels[index], width)
        room = max(8, int(LETTERS * width * len(band.lengths)) - len(said))
        axes.set_title(cut(printable(band.labels[index]), room) + said, fontsize=9, fontweight="bold")
        if index % panels.shape[1]:
            axes.set_yticklabels([])
        else:
            axes.set_ylabel(beside(band), fontsize=8 if not band.low else 7)
    if not band.is_share:
        bar = figure.colorbar(ScalarMappable(norm=norm, cmap=colours), ax=list(flat), pad=0.01, aspect=14, fraction=0.04)
        bar.outline.set_visible(False)
        bar.set_label("nats", fontsize=8)
        bar.ax.tick_params(labelsize=7.5)


def beside(band: Band) -> str:
    """What stands to the left of a band: the task, how it was asked, and what the axis is."""
    name = cut(printable(band.name), 34)
    protocol = "" if band.protocol in band.name else f"\n{band.protocol}"
    # A growing text has no end: what is asked is how far back the key stands.
    axis = "depth (distance back:\n(1 - depth) x length)" if band.protocol == "multikey-grow" else "depth of the key"
    return f"{name}{protocol}\n{KINDS[band.kind]}\n{axis}"


def said_n(band: Band, label: str, width: float) -> str:
    """How many answers a cell has, where the cells have no room to say it."""
    counts = sorted({row.n for (method, _, depth), row in band.cells.items() if method == label and depth is not None})
    if not counts or width >= ROOM_BESIDE or (width >= ROOM_BELOW and not band.low):
        return ""
    return f", n={counts[0]}" if len(counts) == 1 else f", n={counts[0]}-{counts[-1]}"


def draw_map(axes: Any, band: Band, label: str, colour_of: Any, width: float, theme: Theme) -> None:
    """One method's map. `width` is that of a cell, inches."""
    from matplotlib.patches import Rectangle

    for x, length in enumerate(band.lengths):
        for y, depth in enumerate(band.depths):
            # The control is set apart by a gap: it is no depth.
            top = y - 0.5 + (0.15 if depth is None else 0.0)
            row = band.cells.get((label, length, depth))
            if row is None or row.value is None:
                if depth is not None:
                    look: dict[str, Any] = {"facecolor": "none", "edgecolor": theme.muted, "hatch": "////", "linewidth": 0}
                    axes.add_patch(Rectangle((x - 0.48, top + 0.03), 0.96, 0.94, **look))
                continue
            colour = colour_of(row.value)
            axes.add_patch(Rectangle((x - 0.48, top + 0.03), 0.96, 0.94, facecolor=colour, linewidth=0))
            light = sum(w * c for w, c in zip((0.299, 0.587, 0.114), colour[:3], strict=True)) > LIGHTEST
            text, size = written(row, width, low=band.low)
            ink = "#111111" if light else "#fefefe"
            axes.text(x, top + 0.5, text, ha="center", va="center", fontsize=size, color=ink, linespacing=0.95)


def written(row: Measurement, width: float, *, low: bool) -> tuple[str, float]:
    """What stands in a cell, and how large: share and n where they fit."""
    share = number(row.value, 2).replace(MINUS, "-")
    if width >= ROOM_BESIDE:
        return f"{share}  n={row.n}", 5.6 if low else 7
    if width >= ROOM_BELOW and not low:
        return f"{share}\nn={row.n}", 6
    if width >= ROOM_SHARE:
        return share.replace("0.", ".", 1) if abs(row.value or 0.0) < 1 else share, 5.6
    return "", 5


def label_axes(axes: Any, band: Band, facts: Facts, *, control: bool) -> None:
    """Lengths below and depths beside; `control` says whether one of this row's maps has a line without the text."""
    names = []
    for index, n in enumerate(band.lengths):
        first = n > facts.trained_length and (index == 0 or band.lengths[index - 1] <= facts.trained_length)
        # Said once: it holds for all that follow.
        names.append(
            f"{short_tokens(n)}\nbeyond" + (" >" if index + 1 < len(band.lengths) else "") if first else short_tokens(n)
        )
    axes.grid(visible=False)
    axes.set_xticks(range(len(band.lengths)), names)
    marks = [("no text" if control else "") if depth is None else f"{depth:.2g}" for depth in band.depths]
    axes.set_yticks([y + (0.15 if d is None else 0.0) for y, d in enumerate(band.depths)], marks)
    axes.tick_params(length=0, labelsize=7.5 if len(band.lengths) < 7 else 6.5)
    axes.set_xlim(-0.5, len(band.lengths) - 0.5)
    axes.set_ylim(len(band.depths) - 0.3, -0.5)
    for side in axes.spines.values():
        side.set_visible(False)
