"""One number a document from a reading: what a column of a table, and a claim, is about."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from experiments.miniature import probe, reading
from experiments.miniature.arms import Claim, Line
from experiments.miniature.cells import Cells, Reading
from experiments.miniature.intervals import Estimate, over_documents, over_seeds

Figure = Callable[[NDArray[np.float32]], NDArray[np.float64]]


def figure(cells: Cells, name: str, length: int) -> Figure:
    """The figure of a name as a function from a reading to one number a document."""
    sizes = cells.sizes
    known: dict[str, Figure] = {
        "inside": lambda curves: reading.inside(curves, sizes),
        "beyond": lambda curves: reading.beyond(curves, sizes, length),
        "octave": lambda curves: reading.octave(curves, length),
        "probe": lambda found: probe.saved(found, sizes, length),
    }
    return known[name]


def per_seed(cells: Cells, seeds: tuple[int, ...], cell: Reading, name: str, length: int) -> dict[int, NDArray[np.float64]]:
    """One number a document for every seed whose reading is there, or can be made."""
    take, found = figure(cells, name, length), {seed: cells.read(seed, cell) for seed in seeds}
    return {seed: take(curves) for seed, curves in found.items() if curves is not None}


def value(cells: Cells, seeds: tuple[int, ...], cell: Reading, name: str, length: int) -> Estimate | None:
    """A figure over seeds."""
    return over_seeds([float(numbers.mean()) for numbers in per_seed(cells, seeds, cell, name, length).values()])


def difference(
    cells: Cells, seeds: tuple[int, ...], high: Reading, low: Reading, name: str, length: int
) -> tuple[Estimate, Estimate] | None:
    """`high` minus `low`, paired in each seed and document: over seeds, and over documents. None without a seed of both."""
    above, below = (per_seed(cells, seeds, cell, name, length) for cell in (high, low))
    both = [above[seed] - below[seed] for seed in above if seed in below]
    by_seed, by_document = over_seeds([float(numbers.mean()) for numbers in both]), over_documents(both)
    return None if by_seed is None or by_document is None else (by_seed, by_document)


def gain(cells: Cells, seeds: tuple[int, ...], line: Line) -> Estimate | None:
    """NLL beyond the window under the line's cropping, minus the line's own: above 0 where reading all helps."""
    found = difference(cells, seeds, line.crop, line.cell, "beyond", line.length)
    return None if found is None else found[0]


def verdict(cells: Cells, seeds: tuple[int, ...], claim: Claim) -> tuple[str, str, str]:
    """What becomes of a claim: agrees, disagrees or open; the difference in its favour over seeds; over documents."""
    # A probe counts up, an NLL down.
    cells_of = (claim.better, claim.worse) if claim.figure == "probe" else (claim.worse, claim.better)
    found = difference(cells, seeds, *cells_of, claim.figure, claim.length)
    if found is None:
        return "not run", "", ""
    by_seed, by_document = found
    if by_seed.num_seeds < 2:
        word = "one seed, no interval"
    elif by_seed.low > 0:
        word = "agrees"
    elif by_seed.high < 0:
        word = "disagrees"
    else:
        word = "open: the interval holds 0"
    return word, by_seed.text("+.3f"), f"[{by_document.low:+.3f}, {by_document.high:+.3f}]"
