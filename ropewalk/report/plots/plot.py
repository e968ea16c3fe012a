"""What a picture of the report must say: itself, in words for those who cannot see it, and in numbers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from ropewalk.report.facts import Facts
from ropewalk.report.html import Table
from ropewalk.report.theme import Theme, printable
from ropewalk.report.words import short_tokens

MOST_TICKS = 6


class Plot(ABC):
    """One picture."""

    name: ClassVar[str]
    """Its file's stem and its section's id."""
    title: ClassVar[str]
    tabled: ClassVar[bool] = False
    """Whether its numbers stand open on the page, also where there is nothing to draw."""

    @abstractmethod
    def missing(self, facts: Facts) -> str | None:
        """Why this picture cannot be drawn from these facts, or None where it can."""

    @abstractmethod
    def size(self, facts: Facts) -> tuple[float, float]:
        """Width and height in inches, its heading included."""

    @abstractmethod
    def draw(self, figure: Any, facts: Facts, theme: Theme) -> None:
        """Fills a matplotlib Figure."""

    @abstractmethod
    def caption(self, facts: Facts) -> str:
        """What is shown and how to read it."""

    @abstractmethod
    def alt(self, facts: Facts) -> str:
        """The picture in words, with its main numbers."""

    @abstractmethod
    def numbers(self, facts: Facts) -> Table:
        """The numbers behind the picture."""


def position_axis(axes: Any, facts: Facts, label: str | None) -> None:
    """Token positions as x: ticks at even steps, the trained length marked, what lies beyond it shaded."""
    step = tick_step(facts.length)
    ticks = range(0, facts.length + 1, step)
    axes.set_xticks(list(ticks), [short_tokens(tick) for tick in ticks])
    axes.set_xlim(0, facts.length)
    if label is not None:
        axes.set_xlabel(label)


def tick_step(length: int) -> int:
    """The power of two that cuts `length` into four to eight steps."""
    step = 1
    while length / step > 8:
        step *= 2
    return step


def mark_trained(axes: Any, facts: Facts, theme: Theme, *, text: bool = True) -> None:
    """The trained length as a line, what lies beyond it shaded."""
    if facts.length <= facts.trained_length:
        return
    axes.axvline(facts.trained_length, color=theme.muted, linewidth=1.1, linestyle=(0, (1, 1.5)), zorder=1.5)
    axes.axvspan(facts.trained_length, facts.length, color=theme.shade, zorder=0, linewidth=0)
    if text:
        axes.annotate(
            f"trained to {facts.trained_length:,}",
            (facts.trained_length, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2),
            textcoords="offset points",
            va="bottom",
            ha="center",
            fontsize=8.5,
            color=theme.muted,
        )


def length_axis(axes: Any, facts: Facts, lengths: Sequence[int], theme: Theme) -> None:
    """Lengths of a grid as x, each step of the grid the same width, what is beyond the trained length shaded.

    Few enough are named that the names do not touch: powers of two before the lengths between them.
    """
    from matplotlib.ticker import NullLocator

    ticks = [n for n in lengths if n & (n - 1) == 0] or list(lengths)
    step = -(-len(ticks) // MOST_TICKS)
    shown = ticks[::-step][::-1]
    axes.set_xscale("log", base=2)
    axes.set_xticks(shown, [short_tokens(n) for n in shown])
    axes.xaxis.set_minor_locator(NullLocator())
    low, high = min(lengths) / 1.12, max(lengths) * 1.12
    axes.set_xlim(low, high)
    if facts.window_known and facts.trained_length < max(lengths):
        axes.axvline(facts.trained_length, color=theme.muted, linewidth=1.1, linestyle=(0, (1, 1.5)), zorder=1.5)
        axes.axvspan(facts.trained_length, high, color=theme.shade, zorder=0, linewidth=0)


def method_name(label: str) -> str:
    """A label as a picture shows it: what the two baselines are is said."""
    return {"none": "none (untouched)", "crop": "crop (last tokens only)"}.get(label, printable(label))


def legend_beside(axes: Any) -> None:
    """The legend to the right of the axes, level with their top."""
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), borderaxespad=0.0)


def legend_below(figure: Any, handles: Sequence[Any], names: Sequence[str]) -> None:
    """One legend for all panels, in as many columns as its longest name lets stand side by side."""
    longest = max((len(name) for name in names), default=1)
    room = figure.get_size_inches()[0] / (0.078 * longest + 0.55)
    figure.legend(handles, names, loc="outside lower center", ncols=max(1, min(len(names), int(room))))


def plain_ticks(axis: Any) -> None:
    """Plain numbers on a logarithmic axis, no minor ones."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1000 else f"{value:g}"))
    axis.set_minor_locator(NullLocator())
