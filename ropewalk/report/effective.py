"""Effective lengths as a run wrote them, read for people: certified, certified to the end of the grid, or refused and why.

What has no column of its own (whether it is censored, RULER's rule, the family) is in the note, whose parts are in words and
separated by semicolons; a part that is not there is left out, never guessed.
"""

import re
from dataclasses import dataclass

from ropewalk.core.record import Measurement
from ropewalk.report.words import MISSING, tokens

SHORT = re.compile(r"s0 \d")
"""How the part with the short score begins; other parts speak of s0 too."""
CENSORED = ("at least:", "the longest that was tested: at least")
THRESHOLD = 0.85
"""Share of the untouched model's short score that counts as reading."""
LIKELIHOOD = {"safe_length": "likelihood: safe", "use_length": "likelihood: use"}
"""Lengths from the likelihood side, as they stand beside those from tasks."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How far one method reads on one task, or one family of tasks."""

    row: Measurement
    title: str
    """The task or family; the name of the length on the likelihood side."""
    family: str | None
    members: tuple[str, ...]
    """The tasks it is of."""

    @property
    def plain(self) -> str:
        """The task or family as a sentence says it, without the protocol."""
        if self.is_family:
            return f"{self.family} together ({', '.join(self.members)})"
        return self.members[0] if self.members else self.title

    @property
    def method(self) -> str:
        """The method's label."""
        return self.row.method

    @property
    def is_family(self) -> bool:
        """Whether it is of several tasks together."""
        return len(self.members) > 1

    @property
    def value(self) -> int | None:
        """Certified tokens; 0 where not even the shortest length is, None where it is refused."""
        return None if self.row.value is None else round(self.row.value)

    @property
    def refused(self) -> bool:
        """Whether it is an effective length that could not be had."""
        return self.value is None and self.row.metric not in LIKELIHOOD

    @property
    def high(self) -> int | None:
        """The longest tested length that is not ruled out."""
        return None if self.row.ci_high is None else round(self.row.ci_high)

    @property
    def censored(self) -> bool:
        """Whether the longest tested length is certified: it may read further."""
        return any(part.startswith(CENSORED) for part in parts(self.row))

    @property
    def reason(self) -> str:
        """Why it is refused."""
        return (
            "; ".join(p for p in parts(self.row) if not p.startswith(("family ", "weights: ", "s0 is ")))
            or "no reason was written"
        )

    @property
    def ruler(self) -> str:
        """The longest length by RULER's rule, or a dash."""
        found = self._part("RULER's rule")
        return MISSING if found is None else "none" if found == "None" else tokens(int(found)) if found.isdigit() else found

    @property
    def short_score(self) -> str:
        """s0 with its interval and length, as written."""
        found = next((p for p in parts(self.row) if SHORT.match(p)), None)
        return MISSING if found is None else found.removeprefix("s0 ")

    @property
    def short_value(self) -> float | None:
        """s0 itself."""
        found = re.match(r"s0 (\d+(?:\.\d+)?) ", next((p for p in parts(self.row) if SHORT.match(p)), ""))
        return None if found is None else float(found.group(1))

    @property
    def point(self) -> str:
        """The same rule on point estimates, without any interval."""
        found = self._part("point estimates alone")
        return MISSING if found is None else "none" if found == "None" else tokens(int(found)) if found.isdigit() else found

    @property
    def worst(self) -> str:
        """The worst depth at the longest length, as written."""
        found = next((p for p in parts(self.row) if p.startswith("worst depth")), None)
        return MISSING if found is None else found.removeprefix("worst depth at ")

    def _part(self, name: str) -> str | None:
        found = next((p for p in parts(self.row) if p.startswith(name)), None)
        return None if found is None else found.rpartition(": ")[2]

    @property
    def said(self) -> str:
        """The number in a few words: `at least 16,384`, `8,192 (12,288 not ruled out)`, `refused`."""
        if self.value is None:
            # A length from the likelihood side is not refused: nothing of the kind was found.
            return f"none{self._open_end()}" if self.row.metric in LIKELIHOOD else "refused"
        if self.value == 0:
            return f"not certified at {self.shortest}" + self._open_end()
        if self.censored:
            return f"at least {tokens(self.value)}"
        return tokens(self.value) + self._open_end()

    def _open_end(self) -> str:
        open_end = self.high is not None and self.high > (self.value or 0)
        return f" ({tokens(self.high or 0)} not ruled out)" if open_end else ""

    @property
    def shortest(self) -> str:
        """The shortest tested length, as a number in words, where nothing is certified."""
        found = self._part_number("not certified at the shortest tested length")
        return "any tested length" if found is None else tokens(found)

    def _part_number(self, name: str) -> int | None:
        part = next((p for p in parts(self.row) if p.startswith(name)), "")
        found = re.search(r"(\d+)$", part)
        return None if found is None else int(found.group(1))

    @property
    def interval(self) -> str:
        """`[8,192, 12,288]`; an open upper end where it is censored."""
        if self.value is None or self.high is None:
            return ""
        return f"[{tokens(self.value)}, {'end of the grid' if self.censored else tokens(self.high)}]"


def parts(row: Measurement) -> list[str]:
    """The parts of a note."""
    return [part.strip() for part in (row.note or "").split("; ") if part.strip()]


def reading(row: Measurement) -> Reading:
    """A row of an effective length, or of a length from the likelihood side."""
    found = next((p.removeprefix("family ") for p in parts(row) if p.startswith("family ")), "")
    family, _, members = found.partition(": ")
    names = tuple(name for name in members.split(", ") if name)
    title = LIKELIHOOD.get(row.metric) or row.task or "retrieval"
    if len(names) > 1:
        title = f"all {family}"
    return Reading(row=row, title=title, family=family or None, members=names or ((row.task,) if row.task else ()))


def readings(rows: list[Measurement]) -> list[Reading]:
    """Every effective length: families before their tasks, as written otherwise; then the likelihood's."""
    found = [reading(row) for row in rows if row.metric == "effective_length"]
    beside = [reading(row) for row in rows if row.metric in LIKELIHOOD]
    protocols = {r.row.protocol for r in found}
    order = {name: i for i, name in enumerate(dict.fromkeys(r.family or "" for r in found))}
    found.sort(key=lambda r: (order[r.family or ""], not r.is_family, r.title, r.row.protocol))
    if len(protocols) > 1:
        found = [_with_protocol(r, found) for r in found]
    return [*found, *beside]


def _with_protocol(one: Reading, every: list[Reading]) -> Reading:
    """The protocol stands beside the name where a task was asked under several."""
    alike = {r.row.protocol for r in every if r.title == one.title}
    if len(alike) == 1:
        return one
    named = f"{one.title} ({one.row.protocol})"
    return Reading(row=one.row, title=named, family=one.family, members=one.members)
