"""Pictures of the key tables: NLL against position, and against steps. Means over seeds; a band is the seeds' range."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.miniature.arms import Line, Table
from experiments.miniature.cells import Cells

BY_POSITION = ("stretched", "train-short", "dynamic", "s2", "pose", "abf")
POINTS = 48
"""Bins of equal width that a curve of positions has."""


def pictures(cells: Cells, seeds: tuple[int, ...], table: Table, folder: Path) -> list[tuple[Path, str]]:
    """Draws what there is of a table; path and words of each picture."""
    drawn = []
    if table.id in BY_POSITION and (path := positions(cells, seeds, table, folder)):
        drawn.append((path, f"{table.title}: NLL against position, relative to cropping"))
    if table.curves and table.id == "steps" and (path := curves(cells, seeds, table, folder)):
        drawn.append((path, f"{table.title}: NLL beyond the window against steps, relative to the untrained YaRN"))
    return drawn


def _by_position(cells: Cells, seeds: tuple[int, ...], line: Line) -> NDArray[np.float64] | None:
    """[num_seeds, POINTS]: the line's NLL minus its cropping's."""
    found = [(cells.read(seed, line.cell), cells.read(seed, line.crop)) for seed in seeds]
    differences = [
        (own - crop).astype(np.float64).mean(axis=0) for own, crop in found if own is not None and crop is not None
    ]
    if not differences:
        return None
    bins = np.array_split(np.arange(1, cells.sizes.longest), POINTS)
    return np.stack([[curve[part].mean() for part in bins] for curve in differences])


def positions(cells: Cells, seeds: tuple[int, ...], table: Table, folder: Path) -> Path | None:
    """NLL of each line at the longest length, minus cropping's, against position."""
    lines = [line for line in table.lines if line.length == cells.sizes.longest and "crop" not in line.label]
    found = [(line.label, values) for line in lines if (values := _by_position(cells, seeds, line)) is not None]
    if not found:
        return None
    figure, axes = _axes("token of the document", "NLL minus cropping's, nats")
    bins = np.array_split(np.arange(1, cells.sizes.longest), POINTS)
    at = [float(part.mean()) for part in bins]
    # A method has one colour, dashed where it is untuned.
    arms = list(dict.fromkeys(_arm(label) for label, _ in found))
    for label, values in found:
        color, style = f"C{arms.index(_arm(label)) % 10}", "--" if "untuned" in label else "-"
        axes.plot(at, values.mean(axis=0), label=label, color=color, linestyle=style)
        axes.fill_between(at, values.min(axis=0), values.max(axis=0), color=color, alpha=0.15, linewidth=0)
    axes.axhline(0.0, color="black", linewidth=0.8)
    axes.axvline(cells.sizes.window, color="grey", linestyle=":", linewidth=0.8)
    # What breaks down would flatten all the rest.
    middle = sorted(float(values.mean()) for _, values in found)[len(found) // 2]
    low = min(float(values.min()) for _, values in found)
    high = max(float(values.max()) for _, values in found)
    axes.set_ylim(max(-0.4, min(-0.05, low - 0.05)), min(high + 0.05, max(0.6, min(3.0, 3 * middle))))
    return _saved(figure, axes, folder / f"miniature-{table.id}.png")


def _arm(label: str) -> str:
    return label.removesuffix(", untuned").removesuffix(", tuned")


def curves(cells: Cells, seeds: tuple[int, ...], table: Table, folder: Path) -> Path | None:
    """NLL of the validation documents against steps, minus that of the untrained YaRN of the same seed and length.

    Bases differ by more than methods do, so plain NLL would be a band over all curves.
    """
    figure, axes = _axes("step", "NLL beyond the window minus untrained YaRN's, nats")
    drawn = False
    for index, (label, arm) in enumerate(table.curves):
        _, yarn = table.curves[index | 1]
        pairs = [(cells.validations(seed, arm), cells.validations(seed, yarn)) for seed in seeds]
        found = [(own, first[0][1]) for own, first in pairs if own and first]
        if not found:
            continue
        drawn = True
        values = np.asarray([[nll - zero for _, nll in curve] for curve, zero in found])
        at = [step for step, _ in found[0][0]]
        axes.plot(at, values.mean(axis=0), label=label, color=f"C{index}")
        axes.fill_between(at, values.min(axis=0), values.max(axis=0), color=f"C{index}", alpha=0.15, linewidth=0)
    axes.axhline(0.0, color="black", linewidth=0.8)
    return _saved(figure, axes, folder / f"miniature-{table.id}.png") if drawn else None


def _axes(across: str, up: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(alpha=0.25)
    return figure, axes


def _saved(figure: Any, axes: Any, path: Path) -> Path:
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize="small", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    return path
