"""Effective lengths for the terminal: a line a task, a column a method, and the reasons of what is refused below."""

import textwrap

from ropewalk.report.cost import total_line
from ropewalk.report.effective import LIKELIHOOD, THRESHOLD, Reading
from ropewalk.report.facts import Facts
from ropewalk.report.inside import not_asked, priced
from ropewalk.report.plots.effective import every
from ropewalk.report.words import cut, short_tokens

MOST_COLUMNS = 4
"""Methods side by side; with more the table begins anew below."""
ROOM = 34
"""Columns that a task's name may use."""


def effective_lines(facts: Facts, width: int) -> list[str]:
    """The table with its heading and its reasons; empty where no task was asked."""
    found = every(facts)
    if not found:
        return []
    reasons = list(dict.fromkeys(r.reason for r in found if r.value is None))
    labels = [label for label in facts.labels if any(r.method == label for r in found)]
    lines = ["", *textwrap.wrap(heading(found), width)]
    for first in range(0, len(labels), MOST_COLUMNS):
        lines += table(found, labels[first : first + MOST_COLUMNS], reasons)
    for index, reason in enumerate(reasons):
        lines += textwrap.wrap(f"({index + 1}) {reason}", width, subsequent_indent="    ")
    return [*lines, *short(facts, width), *textwrap.wrap(total_line(facts), width)]


def heading(found: list[Reading]) -> str:
    """What the numbers are: lengths of tasks, and those from the likelihood where they stand beside."""
    texts = ["certified tokens [longest not ruled out]"]
    if any(r.row.metric == "effective_length" for r in found):
        rule = f"every tested length up to it keeps {THRESHOLD:.0%} of the untouched model's short score with 95% confidence"
        texts = [f"effective length: {texts[0]}", rule]
    if any(r.row.metric in LIKELIHOOD for r in found):
        texts.append("likelihood: safe, nowhere worse than cropping up to it; use, the longest better than cropping")
    return "; ".join(texts)


def table(found: list[Reading], labels: list[str], reasons: list[str]) -> list[str]:
    """Some methods side by side."""
    rows = [["task", *labels]]
    for name in dict.fromkeys(r.title for r in found):
        mine = {r.method: r for r in found if r.title == name}
        rows.append([name, *(written(mine.get(label), reasons) for label in labels)])
    rows = [[cut(row[0], ROOM), *(cut(cell, 18) for cell in row[1:])] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    drawn = [
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    drawn.insert(1, "-" * len(drawn[0]))
    return drawn


def written(one: Reading | None, reasons: list[str]) -> str:
    """A length in a cell: `>= 16k`, `8k [12k]`, `none [2k]`, `refused (1)`."""
    if one is None:
        return "-"
    if one.value is None:
        return f"{one.said.partition(' ')[0]} ({reasons.index(one.reason) + 1})"
    if one.censored:
        return f">= {short_tokens(one.value)}"
    open_end = "" if one.high is None else f" [{short_tokens(one.high)}]"
    return (short_tokens(one.value) if one.value else "none") + open_end


def short(facts: Facts, width: int) -> list[str]:
    """What is not known of the price inside the window."""
    if not facts.extensions or not facts.window_known:
        return []
    texts = [] if priced(facts) else ["The price inside the window was not measured in likelihood."]
    texts += [not_asked(facts)] if not_asked(facts) else []
    return [line for text in texts for line in textwrap.wrap(text, width)]
