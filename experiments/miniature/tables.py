"""Tables as Markdown, from what is on disk: a line for each arm, the claims beside them, what was not run by name."""

from textwrap import fill

from experiments.miniature import crossings
from experiments.miniature.arms import CROP, NONE, TABLES, Line, Table
from experiments.miniature.cells import Cells, Reading, untrained
from experiments.miniature.figures import gain, value, verdict
from experiments.miniature.intervals import Estimate
from experiments.miniature.probe import lengths

NOT_RUN = "not run"
WIDTH = 125
"""Of a line of the page that is no table."""


def shown(estimate: Estimate | None, form: str = ".3f") -> str:
    """An estimate, or that there is none."""
    return NOT_RUN if estimate is None else estimate.text(form)


def heads(cells: Cells, table: Table) -> list[str]:
    """The column names."""
    window, spans = cells.sizes.window, lengths(cells.sizes)[1:]
    names = {
        "inside": ["inside"], "beyond": ["beyond"], "octave": ["last half"], "gain": ["gain over cropping"],
        "octaves": [f"{n // 2:,} to {n:,}" for n in spans], "probe": [f"first sentence at {n:,}" for n in (window, *spans)],
    }  # fmt: skip
    return [name for column in table.columns for name in names[column]]


def cells_of(cells: Cells, seeds: tuple[int, ...], table: Table, line: Line) -> list[str]:
    """A line's figures."""
    out: list[str] = []
    for column in table.columns:
        if column == "gain":
            out.append("0" if line.cell == line.crop else shown(gain(cells, seeds, line), "+.3f"))
        elif column == "octaves":
            out += [shown(value(cells, seeds, line.cell, "octave", n)) for n in lengths(cells.sizes)[1:]]
        elif column == "probe":
            out += [_probed(cells, seeds, line, n) for n in lengths(cells.sizes)]
        else:
            out.append(shown(value(cells, seeds, line.cell, column, line.length)))
    return out


def _probed(cells: Cells, seeds: tuple[int, ...], line: Line, length: int) -> str:
    if line.cell.method == "crop":
        # What is cropped away is not there to be asked for.
        return "0" if length > cells.sizes.window else "-"
    return shown(value(cells, seeds, _probe_of(line), "probe", length), "+.3f")


def _probe_of(line: Line) -> Reading:
    return Reading(arm=line.cell.arm, method=line.cell.method, length=line.cell.length, what="probe")


def rows(cells: Cells, seeds: tuple[int, ...], table: Table) -> list[str]:
    """All lines, the target length of each first."""
    names = ["to", "arm", *heads(cells, table)]
    out = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    for line in table.lines:
        out.append(f"| {line.length:,} | {line.label} | {' | '.join(cells_of(cells, seeds, table, line))} |")
    return out


def claims(cells: Cells, seeds: tuple[int, ...], table: Table) -> list[str]:
    """The papers' sentences and what becomes of them here."""
    if not table.claims:
        return []
    out = ["", "| claim | here | difference, over seeds | other documents |", "| --- | --- | --- | --- |"]
    return out + [f"| {c.says} | {' | '.join(verdict(cells, seeds, c))} |" for c in table.claims]


def names(table: Table) -> set[str]:
    """Of every cell that a table is made of."""
    lines = {reading for line in table.lines for reading in (line.cell, line.crop)}
    lines |= {reading for claim in table.claims for reading in (claim.better, claim.worse)}
    lines |= {_probe_of(line) for line in table.lines if "probe" in table.columns and line.cell.method != "crop"}
    lines |= {untrained(arm) for _, arm in table.curves}
    return {reading.name for reading in lines}


def missing(cells: Cells, seeds: tuple[int, ...], table: Table) -> dict[str, int]:
    """Lines of which some seed is not there, and how many are."""
    there = {
        f"{line.label} ({line.length:,})": sum(cells.path(seed, line.cell).is_file() for seed in seeds)
        for line in table.lines
    }
    return {label: count for label, count in there.items() if count < len(seeds)}


def begun(cells: Cells, seeds: tuple[int, ...], table: Table) -> bool:
    """Whether anything of a table's own is there: the baselines are those of all tables."""
    own = [line.cell for line in table.lines if line.cell not in (NONE, CROP)]
    return any(cells.path(seed, cell).is_file() for cell in own for seed in seeds)


def section(cells: Cells, seeds: tuple[int, ...], table: Table) -> list[str]:
    """A table's part of the page."""
    asks = f"`python -m experiments.miniature {table.id}`. {table.asks}"
    out = [f"## {table.title}", "", fill(asks, WIDTH, break_long_words=False, break_on_hyphens=False), ""]
    absent = missing(cells, seeds, table)
    if not begun(cells, seeds, table):
        return [*out, f"Not run. The papers: {table.published}", ""]
    out += rows(cells, seeds, table) + crossings.table(cells, seeds, table) + claims(cells, seeds, table)
    if absent:
        named = ", ".join(f"{label} {count} of {len(seeds)}" for label, count in absent.items())
        out += ["", f"Seeds that were run, where it is not all: {named}."]
    return [*out, "", f"**The papers.** {table.published}", ""]


def make(cells: Cells, seeds: tuple[int, ...], name: str) -> Table:
    """Makes every cell of a table: seed by seed, so that whole seeds are there early."""
    table = TABLES[name](cells.sizes)
    for seed in seeds:
        cells.base(seed)
        for line in table.lines:
            cells_of(cells, (seed,), table, line)
        claims(cells, (seed,), table)
        for _, arm in table.curves:
            if cells.folder(seed, arm).is_dir():
                cells.validations(seed, arm)
    return table
