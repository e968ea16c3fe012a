"""How pictures look: colours, light and dark, and a figure as PNG or SVG bytes.

Colours are Okabe and Ito's, told apart by colour-blind readers; black is the untouched model, grey dashes are cropping.
Matplotlib is imported late, through its object interface with the Agg canvas: no window, no global figure. Its settings are
set back to its own defaults while we draw, so that a user's matplotlibrc changes nothing, and are put back afterwards.
"""

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ropewalk.core.errors import InputError

PREFERRED = {
    "yarn": "#d55e00",
    "ntk": "#0072b2",
    "pi": "#e69f00",
    "ntk-by-parts": "#009e73",
    "abf": "#56b4e9",
    "llama3": "#cc79a7",
    "longrope": "#b8a800",
}
"""Okabe-Ito; their yellow is darkened, since it cannot be seen on white paper."""
MARKERS = "osD^vPX<>*hp"
HEADER = 0.62
"""Inches above the axes, for the title and the line of provenance."""


@dataclass(frozen=True, kw_only=True)
class Theme:
    """Colours of one background."""

    name: str
    ink: str
    muted: str
    grid: str
    surface: str
    shade: str
    """Behind the positions beyond the trained length."""


LIGHT = Theme(name="light", ink="#1b1f24", muted="#5b6470", grid="#e4e7eb", surface="#ffffff", shade="#f5f3ee")
DARK = Theme(name="dark", ink="#e8eaed", muted="#a3abb5", grid="#2e343c", surface="#171a1f", shade="#1f2329")


@dataclass(frozen=True, kw_only=True)
class Stroke:
    """How one method is drawn in every picture of a run."""

    colour: str
    dash: Any
    marker: str


def strokes(labels: tuple[str, ...], theme: Theme) -> dict[str, Stroke]:
    """A stroke for each method. A bare id keeps its colour in every run; the others take what is free, in order.

    When the colours run out they come again with another dash and another marker.
    """
    colours = {"none": theme.ink, "crop": "#8a929c"} | {label: c for label, c in PREFERRED.items() if label in labels}
    free = [colour for label, colour in PREFERRED.items() if label not in labels]
    others = [label for label in labels if label not in colours]
    cycle = free + list(PREFERRED.values())
    colours |= {label: cycle[i % len(cycle)] for i, label in enumerate(others)}
    found: dict[str, Stroke] = {}
    for index, label in enumerate(labels):
        repeated = label in others[len(free) :]
        dash = (0, (4, 2)) if label == "crop" else (0, (6, 1.5, 1, 1.5)) if repeated else "-"
        found[label] = Stroke(colour=colours[label], dash=dash, marker=MARKERS[index % len(MARKERS)])
    return found


def printable(text: str) -> str:
    """User text as a picture can show it: one line of characters that matplotlib's own font has."""
    clean = re.sub(r"[\x00-\x1f\x7f-\x9f\xad]+", " ", text)
    return clean.encode("latin-1", "replace").decode("latin-1")


def require_matplotlib() -> Any:
    """The module `matplotlib`. Raises `InputError` where it is not installed."""
    try:
        import matplotlib
    except ImportError as error:
        raise InputError(
            f"the report draws with matplotlib, which cannot be imported here ({error}); run "
            "pip install '.[report]' in a checkout of ropewalk"
        ) from error
    return matplotlib


@contextmanager
def drawing(theme: Theme) -> Iterator[None]:
    """Matplotlib's settings for our pictures, put back afterwards."""
    matplotlib = require_matplotlib()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_settings(theme))
        yield


def _settings(theme: Theme) -> Mapping[str, Any]:
    return {
        "font.family": "DejaVu Sans",
        "font.size": 9.5,
        "text.color": theme.ink,
        # Names of models and methods are not formulas.
        "text.parse_math": False,
        "figure.facecolor": theme.surface,
        "savefig.facecolor": theme.surface,
        "axes.facecolor": theme.surface,
        "axes.edgecolor": theme.muted,
        "axes.labelcolor": theme.ink,
        "axes.titlesize": 9.5,
        "axes.titlelocation": "left",
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": theme.grid,
        "grid.linewidth": 0.7,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "xtick.labelcolor": theme.ink,
        "ytick.labelcolor": theme.ink,
        "lines.linewidth": 1.8,
        "lines.solid_capstyle": "round",
        "legend.frameon": False,
        "legend.fontsize": 9,
        "axes.unicode_minus": True,
        # Equal records give equal files.
        "svg.hashsalt": "ropewalk",
        # Text and not outlines: a heat map's numbers are most of a page.
        "svg.fonttype": "none",
    }


def new_figure(width: float, height: float, title: str, provenance: str, theme: Theme) -> Any:
    """A matplotlib Figure of `width` by `height` inches with its heading on; axes go below it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    engine = ConstrainedLayoutEngine(rect=(0.0, 0.0, 1.0, 1.0 - HEADER / height), w_pad=0.08, h_pad=0.06)
    figure = Figure(figsize=(width, height), layout=engine)
    FigureCanvasAgg(figure)
    left = 0.12 / width
    # About fifteen letters of the small type fit an inch.
    room = int(15 * width)
    provenance = provenance if len(provenance) <= room else f"{provenance[: room - 3]}..."
    figure.text(left, 1.0 - 0.12 / height, printable(title), va="top", ha="left", fontsize=12.5, fontweight="bold")
    figure.text(left, 1.0 - 0.38 / height, printable(provenance), va="top", ha="left", fontsize=8, color=theme.muted)
    return figure


def png(figure: Any) -> bytes:
    """The figure as a PNG file, 180 dots per inch. Its layout stays as it is from then on."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=180, metadata={"Software": None})
    figure.set_layout_engine("none")
    return buffer.getvalue()


def svg(figure: Any) -> bytes:
    """The figure without its heading, which the page has, as an SVG file; letters are text."""
    from matplotlib.transforms import Bbox

    buffer = io.BytesIO()
    width, height = figure.get_size_inches()
    box = Bbox([[0.0, 0.0], [width, height - HEADER + 0.1]])
    for text in figure.texts:
        text.set_visible(False)
    figure.savefig(buffer, format="svg", bbox_inches=box, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
