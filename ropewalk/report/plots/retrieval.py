"""The retrieval map: what is found, by depth and by length, task by task and method by method.

Shares have one colour scale for the whole picture, so that panels can be compared by eye. The control without the text
stands under each map: what a model answers when it has not read is no reading.
"""

from typing import Any

from ropewalk.report.facts import Facts
from ropewalk.report.html import Table
from ropewalk.report.plots.heat import PER_ROW, Band, draw_band
from ropewalk.report.plots.plot import Plot
from ropewalk.report.scores import Asked, for_pictures, title
from ropewalk.report.theme import Theme
from ropewalk.report.words import MISSING, listed, number, tokens, with_interval

TALLEST = 12.5
"""Inches of maps before the rest is left to the table."""
MOST_DEPTHS = 24
"""Depths that the table has columns for."""
FEW = 3
"""With more tasks than these the cells are low and carry their share alone."""


class _Retrieval(Plot):
    """Heat maps, depth by length."""

    name = "retrieval"
    title = "Does it find what it has read? Retrieval by depth and length"

    def missing(self, facts: Facts) -> str | None:
        if maps(facts):
            return None
        return "no task was asked by depth" if facts.asked else "retrieval was not measured"

    def size(self, facts: Facts) -> tuple[float, float]:
        found = maps(facts)
        width = 1.5 + (2.05 if max(len(b.lengths) for b in found) < 4 else 2.7) * num_columns(found)
        return (min(9.8, max(7.4, width)), 1.5 + sum(b.height * b.num_rows for b in found))

    def draw(self, figure: Any, facts: Facts, theme: Theme) -> None:
        found = maps(facts)
        heights = [b.height for b in found for _ in range(b.num_rows)]
        panels = figure.subplots(len(heights), num_columns(found), squeeze=False, height_ratios=heights)
        first, shares = 0, []
        for band in found:
            cells = panels[first : first + band.num_rows]
            first += band.num_rows
            draw_band(figure, cells, band, facts, theme)
            shares += list(cells.ravel()) if band.is_share else []
        if shares:
            colour_bar(figure, shares)

    def caption(self, facts: Facts) -> str:
        found = maps(facts)
        forced = any(row.metric == "retrieval_exact" for band in found for row in band.cells.values())
        text = "Each cell: the share of what was asked for that was found"
        if forced:
            text += " (exact, teacher-forced where the note does not say generated: every token is the first choice)"
        text += (
            ", with the number of answers n. Depth 0 is the start of the text. Hatched: not measured. One colour scale for "
            "all shares."
        )
        if any(band.kind == "choice" for band in found):
            text += (
                " Choice: how often the true answer is the likeliest of the candidates, which chance alone does sometimes."
            )
        if any(band.kind == "logprob" for band in found):
            text += " Log-probability: mean of the answers, nats."
        if any(band.protocol == "multikey-grow" for band in found):
            text += (
                " Under multikey-grow the text grows and is asked as it does: the axis is the distance back to the key, "
                "(1 - depth) times the length, and longer texts hold more needles."
            )
        if facts.window_known and any(max(band.lengths) > facts.trained_length for band in found):
            text += (
                f" Lengths beyond {tokens(facts.trained_length)} tokens are beyond the trained length, and there crop "
                "cannot see keys that it cut away."
            )
        if any(asked.control is not None for asked in facts.asked):
            text += " The row no text asks the same questions without the text: what is answered there was guessed."
        gone = not_drawn(facts)
        return text + (f" Not drawn, in the table: {listed(gone)}." if gone else "")

    def alt(self, facts: Facts) -> str:
        said = []
        for asked in facts.asked:
            last = asked.lengths()[-1:]
            said += [
                f"{title(asked, facts.asked)}, {label} {with_interval(row, 2)} at {tokens(length)} tokens"
                for length in last
                for label in facts.labels
                if (row := asked.at(label, length)) is not None
            ]
        return f"Share found, by task, method, depth and length; over all depths: {'; '.join(said) or 'see the table'}."

    def numbers(self, facts: Facts) -> Table:
        depths = sorted({depth for asked in facts.asked for depth in asked.depths()})
        # A table of many tasks at depths of their own would be wider than anything.
        depths = depths if len(depths) <= MOST_DEPTHS else []
        rows = []
        for asked in facts.asked:
            places = [(label, n) for n in asked.lengths() for label in facts.labels if asked.at(label, n) is not None]
            rows += [table_row(asked, label, n, depths) for label, n in places]
            if asked.control is not None:
                row = asked.control
                found = [with_interval(row, 2), MISSING, MISSING, str(row.n), *[""] * len(depths)]
                rows.append([asked.task, "no-context", row.method, "no text", *found])
        columns = ["task", "protocol", "method", "length", "share found", "choice", "log-probability", "n"]
        heads = [f"at {depth:.2g}" for depth in depths]
        caption = "Retrieval over all depths with 95% intervals, then by depth"
        return Table(columns=[*columns, *heads], rows=rows, caption=caption)


def table_row(asked: Asked, label: str, length: int, depths: list[float]) -> list[str]:
    """One method at one length: over all depths, then depth by depth."""
    row = asked.at(label, length)
    over = [with_interval(row, 2), *(with_interval(asked.at(label, length, kind), 2) for kind in ("choice", "logprob"))]
    cells = [asked.of("score").get((label, length, depth)) for depth in depths]
    by_depth = ["" if cell is None else number(cell.value, 2) for cell in cells]
    return [asked.task, asked.protocol, label, tokens(length), *over, "" if row is None else str(row.n), *by_depth]


def num_columns(found: list[Band]) -> int:
    """Maps side by side."""
    return min(PER_ROW, max(len(band.labels) for band in found))


def candidates(facts: Facts) -> list[Band]:
    """Every map there is: scores first, then choices and log-probabilities, which are the first to be left out."""
    tasks = [asked for asked in for_pictures(facts.asked) if asked.depths()]
    low = len(tasks) > FEW
    kinds = [(asked, "score") for asked in tasks]
    kinds += [(asked, "choice") for asked in tasks if asked.never]
    # One key's log-probabilities stand in the table: a further map says little that the score's does not.
    kinds += [(a, "logprob") for a in tasks if len({t.task for t in tasks}) == 1 and a.protocol != "single-key"]
    return [found for asked, kind in kinds if (found := band(facts, asked, kind, low=low)) is not None]


def maps(facts: Facts) -> list[Band]:
    """What is drawn: as many maps as a page can hold, shares before log-probabilities."""
    kept: list[Band] = []
    for found in candidates(facts):
        if sum(b.height * b.num_rows for b in [*kept, found]) <= TALLEST or not kept:
            kept.append(found)
    return kept


def not_drawn(facts: Facts) -> list[str]:
    """Tasks with a map that there was no room for."""
    drawn = maps(facts)
    names = [title(asked, facts.asked) for asked in facts.asked if asked.depths()]
    return [name for name in names if name not in {b.name for b in drawn}]


def band(facts: Facts, asked: Asked, kind: str, *, low: bool) -> Band | None:
    """The maps of one task, with the control's row where it was run."""
    cells = {key: row for key, row in asked.of(kind).items() if key[2] is not None}
    if not cells:
        return None
    labels = tuple(label for label in facts.labels if label in {method for method, _, _ in cells})
    lengths = tuple(sorted({length for _, length, _ in cells}))
    depths: list[float | None] = [*sorted({depth for _, _, depth in cells if depth is not None})]
    control = asked.control if kind == "score" else None
    if control is not None and control.method in labels:
        depths.append(None)
        # One control is asked for all lengths: without a text there is none.
        cells[control.method, control.length if control.length in lengths else lengths[0], None] = control
    return Band(
        name=title(asked, facts.asked), kind=kind, protocol=asked.protocol, labels=labels, lengths=lengths,
        depths=tuple(depths), cells=cells, low=low,
    )  # fmt: skip


def colour_bar(figure: Any, axes: list[Any]) -> None:
    """One scale for every share of the picture."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    mappable = ScalarMappable(norm=Normalize(0.0, 1.0), cmap=colormaps["cividis"])
    bar = figure.colorbar(mappable, ax=axes, pad=0.01, aspect=30, fraction=0.03, shrink=0.9 if len(axes) < 9 else 0.5)
    bar.outline.set_visible(False)
    bar.set_label("share", fontsize=8)
    bar.ax.tick_params(labelsize=7.5)


RETRIEVAL: Plot = _Retrieval()
