"""What a method costs inside the window, beside how far it reads: likelihood, and retrieval at a quarter and a half of it.

A length that was bought with what the model could do before is no gain, so the two never stand on different pages. What was
not measured is said to be so: an empty cell would look like nothing lost.
"""

from ropewalk.core.record import Measurement
from ropewalk.report.facts import Facts
from ropewalk.report.html import Html, Table, element
from ropewalk.report.plots.price import cell
from ropewalk.report.scores import Asked, for_pictures, title
from ropewalk.report.words import MISSING, listed, tokens, with_interval

LIKELIHOOD = {"price_nll": "NLL above untouched", "price_kl_mean": "mean KL", "price_top1": "first choice agrees"}
PARTS = {4: "a quarter", 2: "a half"}
CHECKS = {
    "retrieval_single_minus_multikey": "a key alone minus the same key among others, share found",
    "retrieval_flips": "answers that differ between a branch and its prompt alone",
}
GROW = "multikey-grow"
"""Protocol whose needles stand in one text for all lengths."""
NOT_MEASURED = "not measured"


def price_inside(facts: Facts) -> list[Html]:
    """The price of every extension, as two tables and what is missing from them; empty where no task was asked."""
    if not facts.asked or not facts.extensions or not facts.window_known:
        return []
    found = [element("h3", "The price inside the window")]
    found.append(likelihood(facts).html() if priced(facts) else element("p", no_likelihood(facts), class_="absent"))
    return [*found, *retrieval_inside(facts)]


def retrieval_inside(facts: Facts) -> list[Html]:
    """What tasks say of the price: a table, and what is missing from it; empty where no task was asked."""
    if not facts.asked or not facts.extensions or not facts.window_known:
        return []
    short, missing = retrieval(facts), not_asked(facts)
    return [*([short.html()] if short.rows else []), *([element("p", missing, class_="note")] if missing else [])]


def priced(facts: Facts) -> bool:
    """Whether any price in likelihood was measured."""
    return any(row.value is not None for metric in LIKELIHOOD for row in facts.record.rows(metric))


def no_likelihood(facts: Facts) -> str:
    """Why there is no price in likelihood."""
    if facts.record.card.documents:
        return "Likelihood inside the window was not compared with the untouched model: its price there is not known."
    return (
        "Likelihood was not measured, as no text was given: what the method costs inside the window in NLL, KL and first "
        "choices is not known."
    )


def likelihood(facts: Facts) -> Table:
    """NLL, KL and first choices against the untouched model."""
    rows = [[label, *(_price(facts, metric, label) for metric in LIKELIHOOD)] for label in facts.extensions]
    caption = f"Likelihood on the first {tokens(facts.trained_length)} tokens, against the untouched model, paired"
    return Table(columns=["method", *LIKELIHOOD.values()], rows=rows, caption=caption)


def _price(facts: Facts, metric: str, label: str) -> str:
    row = facts.row(metric, label)
    return NOT_MEASURED if row is None else cell(metric, row)


def retrieval(facts: Facts) -> Table:
    """Every task at a quarter and a half of the window: the untouched model's share, the method's, the paired difference."""
    rows = []
    for asked in for_pictures(facts.asked):
        for length in short_lengths(facts, asked):
            rows += [_short_row(facts, asked, length, label) for label in facts.extensions if label in asked.methods()]
    columns = ["task", "length", "method", "untouched", "method finds", "difference, identical prompts"]
    return Table(columns=columns, rows=rows, caption="Retrieval at a quarter and a half of the window")


def _short_row(facts: Facts, asked: Asked, length: int, label: str) -> list[str]:
    both = [with_interval(asked.at(method, length), 2) for method in ("none", label)]
    return [title(asked, facts.asked), tokens(length), label, *both, said(difference(facts, asked, length, label))]


def difference(facts: Facts, asked: Asked, length: int, label: str, reference: str = "none") -> Measurement | None:
    """The paired difference of a method at a length."""
    where = {
        "task": asked.task or None,
        "protocol": asked.protocol,
        "length": length,
        "method": label,
        "reference": reference,
    }
    return next(iter(facts.record.rows("retrieval_gain", **where)), None)


def said(row: Measurement | None) -> str:
    """A difference with its interval, or that it has none."""
    if row is None or row.value is None:
        return MISSING if row is None else with_interval(row)
    return with_interval(row, 2, sign=True) + ("" if row.ci_low is not None else ", no interval")


def short_lengths(facts: Facts, asked: Asked) -> list[int]:
    """Those of a quarter and a half of the window at which a task was asked."""
    return [n for part in PARTS if (n := facts.trained_length // part) in asked.lengths()]


def not_asked(facts: Facts) -> str:
    """Which tasks have no row at a quarter or a half of the window."""
    found = []
    for part, name in PARTS.items():
        length = facts.trained_length // part
        gone = [title(asked, facts.asked) for asked in for_pictures(facts.asked) if length not in asked.lengths()]
        if gone:
            found.append(f"at {name} of the window ({tokens(length)} tokens): {listed(gone)}")
    return f"Retrieval was not measured {'; '.join(found)}." if found else ""


def checks(facts: Facts) -> list[Html]:
    """What other needles in the text cost, and how often rounding flips an answer; empty where neither was measured."""
    rows = []
    for metric, name in CHECKS.items():
        for row in facts.record.rows(metric, depth=None):
            length = MISSING if row.length is None else tokens(row.length)
            value = with_interval(row, 3, sign=metric != "retrieval_flips")
            grown = ", in a text that grows" if row.reference == GROW else ""
            rows.append([name + grown, row.task or "", row.method, length, value, str(row.n)])
    columns = ["what", "task", "method", "length", "value", "n"]
    return [Table(columns=columns, rows=rows, caption="Checks of the answers").html()] if rows else []
