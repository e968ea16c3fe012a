"""Scores of a retrieval map, by what was asked: which tasks under which protocols, and the rows of each cell.

A task's *score* is the share of references found; where that is the share of exact answers, the run writes it once, under
that name. *Choice* is the share of questions at which the true answer was the likeliest of the candidates: what a small
model may be able to show that never answers exactly.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from ropewalk.core.record import Measurement

PROTOCOLS = ("multikey-branch", "one-question", "multikey-grow", "single-key")
CONTROL = "no-context"
KINDS = {
    "score": ("retrieval_found", "retrieval_exact"),
    "choice": ("retrieval_choice",),
    "logprob": ("retrieval_logprob",),
}
"""What is shown of an answer, and the metrics that say it, the first that a cell has."""
NEVER = 0.1
"""A task whose score is nowhere above this is shown by its choice too."""
Cell = tuple[str, int, float | None]
"""Method, length, depth; None is over all depths."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One task under one protocol, with its rows."""

    task: str
    protocol: str
    cells: dict[str, dict[Cell, Measurement]] = field(default_factory=dict, repr=False)
    """Kind -> cell -> row, for the rows that have a value."""
    control: Measurement | None = None
    """The score without the text."""

    def of(self, kind: str) -> dict[Cell, Measurement]:
        """The rows of a kind; empty where it was not measured."""
        return self.cells.get(kind, {})

    def lengths(self, kind: str = "score") -> list[int]:
        """Every length asked, rising."""
        return sorted({length for _, length, _ in self.of(kind)})

    def depths(self, kind: str = "score") -> list[float]:
        """Every depth asked, from the start of the text to its end; empty for a task that has none."""
        return sorted({depth for _, _, depth in self.of(kind) if depth is not None})

    def methods(self, kind: str = "score") -> set[str]:
        """The methods asked."""
        return {method for method, _, _ in self.of(kind)}

    def at(self, method: str, length: int, kind: str = "score") -> Measurement | None:
        """A method's row at a length, over all depths."""
        return self.of(kind).get((method, length, None))

    @property
    def short(self) -> Measurement | None:
        """s0: the untouched model at the shortest length."""
        lengths = self.lengths()
        return self.at("none", lengths[0]) if lengths else None

    @property
    def never(self) -> bool:
        """Whether no method ever answers, at any length."""
        rows = [row.value for (_, _, depth), row in self.of("score").items() if depth is None and row.value is not None]
        return bool(rows) and max(rows) < NEVER and bool(self.of("choice"))


def gather(rows: Iterable[Measurement], order: Iterable[str] = ()) -> list[Asked]:
    """What was asked, in the order of the tasks, each protocol of a task after the other."""
    found: dict[tuple[str, str], dict[str, dict[Cell, Measurement]]] = {}
    controls: dict[str, Measurement] = {}
    places = {metric: (kind, place) for kind, metrics in KINDS.items() for place, metric in enumerate(metrics)}
    # The first metric of a kind comes first, and stays.
    for row in sorted((r for r in rows if r.metric in places), key=lambda r: places[r.metric][1]):
        kind = places[row.metric][0]
        if row.value is None or row.length is None:
            continue
        if row.protocol == CONTROL and kind == "score":
            controls.setdefault(row.task or "", row)
        elif row.protocol in PROTOCOLS:
            cells = found.setdefault((row.task or "", row.protocol), {}).setdefault(kind, {})
            cells.setdefault((row.method, row.length, row.depth), row)
    names = list(dict.fromkeys([*order, *(task for task, _ in found)]))
    keys = sorted(found, key=lambda key: (names.index(key[0]), PROTOCOLS.index(key[1])))
    return [Asked(task=t, protocol=p, cells=found[t, p], control=controls.get(t)) for t, p in keys]


def first_protocols(every: list[Asked]) -> list[Asked]:
    """Each task under its first protocol: what sentences speak of."""
    firsts = {asked.task: asked for asked in reversed(every)}
    return [asked for asked in every if asked is firsts[asked.task]]


def for_pictures(every: list[Asked], *, few: int = 6) -> list[Asked]:
    """What pictures show: all of it where it is little, else each task under its first protocol; tables have the rest."""
    return every if len(every) <= few else first_protocols(every)


def title(asked: Asked, every: list[Asked]) -> str:
    """A task's name, with the protocol where it was asked under several."""
    alike = [other for other in every if other.task == asked.task]
    return asked.task or "retrieval" if len(alike) == 1 else f"{asked.task} ({asked.protocol})"
