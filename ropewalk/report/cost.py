"""What a run cost: seconds, prompts and tokens, by method.

Seconds are those of the cells, so loading and drawing are not in them. A prompt's tokens count its whole length although
branches of one haystack are read once: it is what separate prompts would have read.
"""

from ropewalk.core.record import Measurement
from ropewalk.report.facts import Facts
from ropewalk.report.html import Table
from ropewalk.report.words import MISSING, counted, tokens

ONCE = ("retrieval_exact", "retrieval_flips")
"""Metrics that each answered prompt is in exactly once: the others are of the same prompts."""


def cost(facts: Facts) -> Table:
    """One line a method, and their sum."""
    answers = [r for r in facts.record.measurements if r.metric in ONCE and r.depth is None]
    rows, total = [], [0.0, 0.0, 0.0, 0.0, 0.0]
    for label in facts.labels:
        mine = [row for row in answers if row.method == label]
        scored = likelihood(facts, label)
        numbers = [
            scored.seconds or 0.0 if scored else 0.0,
            float(scored_tokens(facts, label)),
            sum(row.seconds or 0.0 for row in mine),
            float(sum(row.n for row in mine)),
            float(sum(row.num_tokens for row in mine)),
        ]
        total = [a + b for a, b in zip(total, numbers, strict=True)]
        rows.append([label, *written(numbers)])
    columns = ["method", "likelihood, seconds", "tokens scored", "tasks, seconds", "prompts", "tokens in prompts"]
    return Table(columns=columns, rows=[*rows, ["all", *written(total)]], caption="Cost of the run")


def written(numbers: list[float]) -> list[str]:
    """Seconds and counts; a dash where nothing was done."""
    seconds = (0, 2)
    return [MISSING if not value else f"{value:,.1f}" if i in seconds else tokens(value) for i, value in enumerate(numbers)]


def likelihood(facts: Facts, label: str) -> Measurement | None:
    """The row with the seconds of a method's likelihood: of several that carry them, one."""
    rows = [row for metric in ("nll_beyond", "nll_inside") for row in facts.record.rows(metric, method=label)]
    return next((row for row in rows if row.seconds), None)


def scored_tokens(facts: Facts, label: str) -> int:
    """Tokens whose likelihood was taken."""
    found = facts.tokens.get(label)
    return 0 if found is None else round(float(found.count.sum()))


def total_line(facts: Facts) -> str:
    """The sum in a sentence, for the terminal and above the table."""
    _, scoring, scored, asking, prompts, read = cost(facts).rows[-1]
    spent = [value for value in (scoring, asking) if value != MISSING]
    seconds = sum(float(value.replace(",", "")) for value in spent)
    parts = [f"{counted(round(seconds), 'second')} of measuring" if spent else "seconds were not written"]
    parts += [f"{scored} tokens scored"] if scored != MISSING else []
    parts += [f"{prompts} prompts of {read} tokens in all"] if prompts != MISSING else []
    return f"This run took {', '.join(parts)}."
