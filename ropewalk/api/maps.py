"""What a user asks of a retrieval map, checked and put into settings."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ropewalk.core.errors import InputError, near
from ropewalk.core.geometry import Geometry
from ropewalk.core.plan import parse_length

if TYPE_CHECKING:
    from ropewalk.measure.settings import MapSettings

SHORTEST_HAYSTACK = 1024
"""Below this no haystack is built unless its length was asked for, or is a part of the window."""
SHORTEST_INSIDE = 512
"""Below this not even a part of the window is asked: needles and a question leave no text."""
PARTS = (4, 2)
"""A quarter and a half of the window: there price is measured, and s0."""
MODES = ("fixed", "grow", "single")
CHOICES = {"scoring": ("auto", "forced", "generate"), "template": ("raw", "chat")}


def split_tasks(given: str | Iterable[str]) -> tuple[str, ...]:
    """Task ids from repeated flags and comma-separated lists, each known. Raises `InputError`."""
    from ropewalk.data.tasks.task import find_task

    items = [given] if isinstance(given, str) else given
    names = [name.strip() for item in items for name in item.split(",") if name.strip()]
    return tuple(find_task(name).id for name in dict.fromkeys(names))


def map_lengths(
    found: Geometry, names: Sequence[str], lengths: Sequence[int | str] | None, length: int | str | None
) -> tuple[int, ...]:
    """The lengths of the map, rising; by default the grid from a quarter of the trained length to `length`."""
    if not names:
        if lengths:
            raise InputError("--lengths are those of --tasks; name the tasks, or leave the lengths out")
        return ()
    if lengths:
        return tuple(sorted({parse_length(n) for n in lengths}))
    from ropewalk.measure.effective import grid

    longest = found.window_length if length is None else parse_length(length)
    shortest = max(SHORTEST_HAYSTACK, min(found.window_length, longest) // 4)
    return grid(shortest, longest) or (longest,)


def lengths_inside(window: int, longest: int) -> tuple[int, ...]:
    """A quarter and a half of a window, as far as they are long enough for a haystack and no longer than the plan is for."""
    return tuple(n for part in PARTS if SHORTEST_INSIDE <= (n := window // part) <= longest)


@dataclass(frozen=True, kw_only=True)
class Tasks:
    """The map as the user asked for it."""

    names: tuple[str, ...]
    lengths: tuple[int, ...]
    """Those that the user named, or the default ones."""
    window: int
    """The untouched model's."""
    depths: int
    samples: int
    modes: tuple[str, ...] = ("fixed",)
    scoring: str = "auto"
    template: str = "raw"
    stop_early: bool = False
    handed_in: Mapping[str, str | Path] = field(default_factory=dict)
    """`questions`, `conversations`, `templates` -> file."""

    def settings(self, labels: Sequence[str], longest: int) -> "MapSettings | None":
        """The settings of the map, None where no task was asked; the plans are for `longest` tokens.

        Raises `InputError` for a word that is not known.
        """
        from ropewalk.measure.settings import MapSettings

        if not self.names:
            return None
        for mode in self.modes:
            if mode not in MODES:
                raise InputError(f"unknown mode {mode!r}; {near(mode, MODES)}")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise InputError(f"unknown {name} {getattr(self, name)!r}; known are {', '.join(known)}")
        parts = lengths_inside(self.window, longest)
        return MapSettings(
            methods=tuple(labels), lengths=tuple(sorted({*self.lengths, *parts})), window=self.window,
            inside=tuple(n for n in parts if n not in self.lengths), tasks=self.names, modes=self.modes,  # type: ignore[arg-type]
            num_depths=self.depths, num_haystacks=self.samples, scoring=self.scoring,  # type: ignore[arg-type]
            template=self.template, stop_early=self.stop_early,  # type: ignore[arg-type]
        )  # fmt: skip

    def sources(self) -> dict[str, Any]:
        """What the user handed in, read. Raises `InputError` where a file cannot be read or is not what it should be."""
        from ropewalk.data.sources import read_source

        return {kind: read_source(kind, path) for kind, path in self.handed_in.items() if path}

    def handed_files(self) -> dict[str, dict[str, str]]:
        """What the user handed in as the card has it: with another file a run asks other questions."""
        from ropewalk.api.provenance import handed_in

        return {kind: handed_in(path) for kind, path in sorted(self.handed_in.items()) if path}


def described_tasks() -> list[dict[str, Any]]:
    """Every task as `--tasks help` shows it."""
    from ropewalk.data.tasks.task import tasks

    return [
        {
            "id": task.id, "family": task.family, "summary": task.summary, "source": task.source,
            "needs": list(task.needs), "scoring": task.scoring, "depths": task.plants, "grows": task.grows,
        }
        for task in tasks().values()
    ]  # fmt: skip
