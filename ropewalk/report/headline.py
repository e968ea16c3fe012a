"""The headline table, one row a method: what the page shows first and what the terminal shows at all."""

import textwrap
from dataclasses import dataclass

from ropewalk.core.record import Measurement, Record
from ropewalk.report.facts import Facts
from ropewalk.report.short_tasks import short_text
from ropewalk.report.terminal import effective_lines
from ropewalk.report.words import MINUS, MISSING, basis, counted, cut, interval, number, short_tokens, tokens

WIDTH = 120
"""Columns of a terminal that the table may use."""
SHORTEST_LABEL = 12
"""Columns that a method's name keeps however wide the numbers are."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """What one method comes to."""

    label: str
    factor: float | None
    inside: float | None
    """Mean NLL within the trained length, nats per token."""
    inside_row: Measurement | None
    """The same with its interval, where the run has ended."""
    beyond: float | None
    """Mean NLL beyond it, on crop's targets."""
    beyond_all: Measurement | None
    net_gain: Measurement | None
    price: Measurement | None
    retrieval: Measurement | None
    seconds: float | None

    @property
    def cropped(self) -> bool:
        """Whether this is the baseline itself, whose gain and price are zero by definition."""
        return self.label == "crop"


def lines(facts: Facts) -> list[Line]:
    """One line for each method of the run."""
    return [
        Line(
            label=label,
            factor=facts.factor(label),
            inside=facts.inside(label),
            inside_row=facts.row("nll_inside", label) if facts.inside(label) is not None else None,
            beyond=facts.beyond(label),
            beyond_all=facts.row("nll_beyond", label) if facts.beyond_all(label) is not None else None,
            net_gain=facts.net_gain(label),
            price=facts.row("price_nll", label),
            retrieval=facts.retrieval(label),
            seconds=next((row.seconds for row in facts.record.rows("nll_beyond", method=label) if row.seconds), None),
        )
        for label in facts.labels
    ]


def factor_text(line: Line) -> str:
    """The stretch: `2`, `1.5`."""
    return MISSING if line.factor is None else f"{line.factor:g}"


def gain_text(line: Line) -> str:
    """Net gain with its interval."""
    return "baseline" if line.cropped else _valued(line.net_gain)


def price_text(line: Line) -> str:
    """The paired price with its interval; the baselines do not change the model."""
    return "unchanged" if line.label in ("none", "crop") and line.price is None else _valued(line.price)


def retrieval_text(line: Line) -> str:
    """Share of keys found in the longest texts, with its interval."""
    row = line.retrieval
    return MISSING if row is None or row.value is None else f"{number(row.value, 2)} {interval(row, 2)}".strip()


def _valued(row: Measurement | None) -> str:
    if row is None or row.value is None:
        return MISSING
    return f"{number(row.value, sign=True)} {interval(row, sign=True)}".strip()


# --- for the terminal -------------------------------------------------------------------------------------------------


def terminal_table(record: Record) -> str:
    """The headline table and the effective lengths as plain ASCII text, aligned, at most 120 columns wide."""
    facts = Facts.of(record)
    short = [ascii_text(line).rstrip() for line in short_text(facts, WIDTH)]
    likelihood = _likelihood_lines(facts) if facts.tokens or not (facts.asked or short) else []
    reach = [ascii_text(line).rstrip() for line in effective_lines(facts, WIDTH)]
    tables = [line for table in (likelihood, reach, short) for line in table]
    text = [*_head(facts), *(tables if likelihood else tables[1:])]
    return "\n".join(text) + "\n"


def _likelihood_lines(facts: Facts) -> list[str]:
    table = _terminal_rows(facts)
    others = [max(len(row[i]) for row in table) for i in range(1, len(table[0]))]
    room = max(SHORTEST_LABEL, WIDTH - sum(others) - 2 * len(others))
    table = [[cut(row[0], room), *row[1:]] for row in table]
    widths = [max(len(row[0]) for row in table), *others]
    drawn = [
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in table
    ]
    drawn.insert(2, "-" * len(drawn[0]))
    return [*(line.rstrip() for line in drawn), *_foot(facts)]


def _terminal_rows(facts: Facts) -> list[list[str]]:
    length = facts.retrieval_length
    above = ["", "", "NLL", "NLL", "net gain over crop", "price inside", "retrieval"]
    below = [
        "method",
        "factor",
        "inside",
        "beyond",
        "(> 0: better)",
        "(paired NLL)",
        f"at {short_tokens(length)}" if length else "",
    ]
    rows = [
        [
            line.label,
            factor_text(line),
            number(line.inside),
            number(line.beyond),
            gain_text(line),
            price_text(line),
            retrieval_text(line),
        ]
        for line in lines(facts)
    ]
    # A column for something that was not measured is left out.
    keep = [i for i in range(len(above)) if i < 4 or any(row[i] not in (MISSING, "baseline", "unchanged") for row in rows)]
    return [[ascii_text(row[i]) for i in keep] for row in [above, below, *rows]]


def _head(facts: Facts) -> list[str]:
    card = facts.record.card
    made = f" ({card.quantisation})" if card.quantisation else ""
    trained = f"trained to {tokens(facts.trained_length)}" if facts.window_known else "trained length not known"
    lengths = f"{trained}, read to {tokens(facts.length)}"
    head = f"{card.model}{made}, {card.dtype} on {card.device}: {lengths} tokens"
    unfinished = [] if card.status == "done" else [f"UNFINISHED: this run is {card.status}; what follows is what is there."]
    return [*textwrap.wrap(ascii_text(head), WIDTH), *unfinished, ""]


def _foot(facts: Facts) -> list[str]:
    words = [f"NLL in nats per token, mean over {counted(facts.num_documents, 'document')}"]
    if "crop" in facts.tokens:
        words.append("beyond: on the tokens that crop scored, the same for all")
    row = next(
        (row for label in facts.labels if (row := facts.net_gain(label)) is not None and row.ci_low is not None), None
    )
    if row is not None:
        words.append(f"intervals: 95%, net gain {basis(row)}")
    return ["", *textwrap.wrap(ascii_text("; ".join(words) + "."), WIDTH)]


def ascii_text(text: str) -> str:
    """For terminals of any encoding: our own dashes as hyphens, what is left of other scripts as question marks."""
    plain = text.replace(MINUS, "-").replace(MISSING, "-")
    return "".join(c if c.isprintable() else " " for c in plain).encode("ascii", "replace").decode()
