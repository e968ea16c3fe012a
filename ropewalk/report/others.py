"""Numbers that no picture shows: whatever a run wrote beside likelihood by position, prices and tasks.

A row that nobody sees is a number lost, so what this page does not know by name it shows as a table.
"""

from ropewalk.core.record import Measurement
from ropewalk.report.facts import Facts
from ropewalk.report.html import Html, Table, element
from ropewalk.report.words import MISSING, tokens, with_interval

SHOWN = ("nll", "nll_inside", "nll_beyond", "perplexity", "net_gain", "effective_length", "safe_length", "use_length")
FAMILIES = ("price_", "control_", "retrieval_", "short_")
"""Beginnings of metrics that stand elsewhere on the page."""
PROTOCOLS = ("disjoint", "sliding-press", "yarn-truncate")
"""Likelihood under these is in no picture."""
MOST = 400
"""Rows in the table; a file is the place for more."""


def others(facts: Facts) -> list[Html]:
    """The table, or nothing where every row stands elsewhere."""
    found = [row for row in facts.record.measurements if is_other(row)]
    if not found:
        return []
    rows = [
        [
            row.metric,
            row.protocol,
            row.method,
            row.task or row.reference or "",
            where(row),
            said(row),
            row.unit,
            row.note or "",
        ]
        for row in found[:MOST]
    ]
    columns = ["metric", "protocol", "method", "of", "length or positions", "value", "unit", "note"]
    table = Table(columns=columns, rows=rows, caption="Other numbers of this run").html()
    rest = f" {len(found) - MOST} more rows are in measurements.jsonl." if len(found) > MOST else ""
    return [element("details", element("summary", f"{len(found)} rows"), table), *([element("p", rest)] if rest else [])]


def is_other(row: Measurement) -> bool:
    """Whether a row stands nowhere else."""
    if row.value is None:
        return False
    return row.protocol in PROTOCOLS or (row.metric not in SHOWN and not row.metric.startswith(FAMILIES))


def said(row: Measurement) -> str:
    """A value with its interval."""
    return with_interval(row, 4)


def where(row: Measurement) -> str:
    """The length, or the positions."""
    if row.length is not None:
        return tokens(row.length)
    if row.position_low is None or row.position_high is None:
        return MISSING
    return f"{tokens(row.position_low)}-{tokens(row.position_high)}"
