"""How numbers are written, the same way in tables, sentences and pictures."""

from ropewalk.core.record import Measurement
from ropewalk.report.facts import is_within_document

MISSING = "–"
MINUS = "\N{MINUS SIGN}"


def number(value: float | None, digits: int = 3, *, sign: bool = False) -> str:
    """A number with a fixed count of decimals, a dash for None; a real minus sign, and never a negative zero."""
    if value is None:
        return MISSING
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    if float(text) == 0.0:
        text = text.lstrip("+-")
    return text.replace("-", MINUS)


def small(value: float | None) -> str:
    """A number that may be tiny: three digits that matter."""
    if value is None:
        return MISSING
    if value != 0.0 and abs(value) < 1e-4:
        return f"{value:.1e}".replace("e-0", "e-").replace("-", MINUS)
    return f"{value:.3g}".replace("-", MINUS)


def percent(value: float | None) -> str:
    """A share as a percentage."""
    return MISSING if value is None else f"{100 * value:.1f} %"


def tokens(count: int | float) -> str:
    """A count of tokens with thousands apart."""
    return f"{round(count):,}"


def short_tokens(count: float) -> str:
    """A length as an axis shows it: `8k` where k = 1024 divides it, else the number."""
    whole = round(count)
    return f"{whole // 1024}k" if whole and whole % 1024 == 0 else f"{whole:,}"


def interval(row: Measurement | None, digits: int = 3, *, sign: bool = False) -> str:
    """`[low, high]`, or nothing where a row has no interval."""
    if row is None or row.ci_low is None or row.ci_high is None:
        return ""
    return f"[{number(row.ci_low, digits, sign=sign)}, {number(row.ci_high, digits, sign=sign)}]"


def with_interval(row: Measurement | None, digits: int = 3, *, sign: bool = False) -> str:
    """A value with its interval; for a row without a value, the reason."""
    if row is None:
        return MISSING
    if row.value is None:
        return f"{MISSING} ({row.note})"
    return f"{number(row.value, digits, sign=sign)} {interval(row, digits, sign=sign)}".strip()


def counted(count: int, thing: str) -> str:
    """`1 document`, `6 documents`."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def basis(row: Measurement, thing: str = "document") -> str:
    """What an interval rests on: `within-document, 16 blocks` or `6 documents`."""
    if is_within_document(row):
        return f"within-document, {counted(row.num_clusters, 'block')}"
    return counted(row.num_clusters, thing)


def listed(names: list[str] | tuple[str, ...]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def judged(row: Measurement | None) -> str:
    """`above`, `below` or `undecided` against zero; `unknown` where there is no number."""
    if row is None or row.value is None:
        return "unknown"
    if row.ci_low is None or row.ci_high is None or row.ci_low <= 0.0 <= row.ci_high:
        return "undecided"
    return "above" if row.ci_low > 0.0 else "below"


def cut(text: str, room: int) -> str:
    """A name cut in its middle, as its end tells variants apart as well as its beginning."""
    return text if len(text) <= room else f"{text[: room - 3 - room // 3]}...{text[-(room // 3) :]}"
