"""Short tasks: each score of lm-eval's beside the untouched model's, and what the method costs on the same documents."""

import textwrap
from dataclasses import dataclass

from ropewalk.core.record import Measurement
from ropewalk.report.facts import Facts
from ropewalk.report.html import Html, Table, element
from ropewalk.report.words import MISSING, cut, judged, with_interval

PROTOCOL = "lm-eval"
GAIN = "_gain"
TASK, METRIC, METHOD = 24, 18, 22
"""Columns of a terminal that a name may use."""
MOST = 8
"""Scores that the verdict speaks of one by one."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One metric of one task, by method."""

    task: str
    metric: str
    """As lm-eval calls it."""
    scores: dict[str, Measurement]
    gains: dict[str, Measurement]


def short_lines(facts: Facts) -> list[Line]:
    """Every metric of every task, in the order of the run."""
    rows = [row for row in facts.record.measurements if row.protocol == PROTOCOL]
    found: dict[tuple[str, str], Line] = {}
    for row in rows:
        metric = row.metric.removeprefix("short_").removesuffix(GAIN)
        key = (row.task or "", metric)
        line = found.setdefault(key, Line(task=key[0], metric=metric, scores={}, gains={}))
        (line.gains if row.metric.endswith(GAIN) else line.scores)[row.method] = row
    return list(found.values())


def short_section(facts: Facts) -> list[Html]:
    """The table with how to read it; nothing where no short task was asked."""
    found = short_lines(facts)
    if not found:
        return []
    columns, rows = _columns(facts, found), []
    for line in found:
        how = next(iter(line.scores.values())).note or ""
        cells = [with_interval(row, 4, sign=row is not None and _is_gain(row)) for row in _cells(columns, line)]
        # The interval under its value: side by side the table would not fit the page.
        rows.append([line.task, line.metric, *(cell.replace(" [", "\n[") for cell in cells), how])
    heads = ["task", "metric", *(_head(*column) for column in columns), "how"]
    return [Table(columns=heads, rows=rows, caption=heading(facts)).html(), element("p", READING, class_="note")]


READING = (
    "Scores are lm-eval's own, on prompts inside the old window; intervals are over documents and say nothing of other "
    "wordings. A gain is paired on the same documents: above 0 the method is better, below 0 is what the stretch costs."
)


def short_text(facts: Facts, width: int) -> list[str]:
    """The table for a terminal; empty where no short task was asked."""
    found = short_lines(facts)
    if not found:
        return []
    columns = _columns(facts, found)
    gained = [label for label, gain in columns if gain]
    said = f"{heading(facts)}" + ("; gains are paired, above 0 where the method is better" if gained else "")
    lines = ["", *textwrap.wrap(said, width)]
    # A table for each method: beside each other they would not fit.
    for chosen in [[column for column in columns if column[0] in ("none", label)] for label in gained] or [columns]:
        lines += _drawn(found, chosen)
    return lines


def _drawn(found: list[Line], columns: list[tuple[str, bool]]) -> list[str]:
    rows = [["task", "metric", *(cut(_head(*column), METHOD) for column in columns)]]
    for line in found:
        cells = [with_interval(row, 3, sign=row is not None and _is_gain(row)) for row in _cells(columns, line)]
        rows.append([cut(line.task, TASK), cut(line.metric, METRIC), *cells])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    drawn = [
        "  ".join(cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    drawn.insert(1, "-" * len(drawn[0]))
    return drawn


def short_sentences(facts: Facts, label: str) -> list[str]:
    """What the short tasks say of a method, a sentence each; nothing where it was not paired."""
    words = {"above": "better", "below": "worse", "undecided": "undecided", "unknown": "not known"}
    pairs = [(line, line.gains[label]) for line in short_lines(facts) if label in line.gains]
    # Of a group with fifty tasks the reader wants the whole, and what is decided.
    told = [(line, row) for line, row in pairs if line.task.startswith("group:") or judged(row) in ("above", "below")]
    told = pairs if len(pairs) <= MOST else told[:MOST]
    said = [
        f"On {line.task} ({line.metric}) it is {words[judged(row)]} against the untouched model: "
        f"{with_interval(row, 4, sign=True)} {row.unit}."
        for line, row in told
    ]
    rest = len(pairs) - len(told)
    return [*said, f"{rest} more scores of short tasks are in the table."] if rest else said


def heading(facts: Facts) -> str:
    """What the table is of."""
    versions = facts.record.card.versions
    return f"Short tasks by lm-eval {versions.get('lm_eval', MISSING)}, inside {facts.trained_length:,} tokens"


def _columns(facts: Facts, found: list[Line]) -> list[tuple[str, bool]]:
    """A column for each method's scores, and one for its gains where it has any."""
    scored = [label for label in facts.labels if any(label in line.scores for line in found)]
    gained = {label for line in found for label in line.gains}
    return [(label, gain) for label in scored for gain in (False, True) if not gain or label in gained]


def _cells(columns: list[tuple[str, bool]], line: Line) -> list[Measurement | None]:
    return [(line.gains if gain else line.scores).get(label) for label, gain in columns]


def _head(label: str, gain: bool) -> str:
    return f"{label} gain" if gain else label


def _is_gain(row: Measurement) -> bool:
    return row.metric.endswith(GAIN)
