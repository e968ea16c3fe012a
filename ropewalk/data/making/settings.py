"""What is asked of a writer, and who a writer is to this room.

A **writer** is a callable from a prompt and a seed to a text; where it comes from (a local model, a server, a function of
the user's) is known to whoever hands it in, and is told here as plain JSON, since a run that goes on must have the same one.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ropewalk.core.errors import InputError, near
from ropewalk.core.plan import check_length

REWRITES = ("rephrase", "self-verification", "fobar")
"""Ways to make another question of one: MetaMath's (arXiv:2309.12284), but for its several answers to one question."""
ROOM = 512
"""Tokens of a writer's window, at most half of them, that are kept for wording, question and answer when it reads much."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a writer answers."""

    text: str
    cut: bool = False
    """Whether it was stopped before its end."""


Writer = Callable[[str, int], "Written | str"]
"""(prompt, seed) -> text. Raises `UnwrittenError` for a prompt that it does not take, `MachineError` where it is gone."""


class UnwrittenError(Exception):
    """A writer does not take one prompt; the next one it may."""


@dataclass(frozen=True, kw_only=True)
class Writing:
    """A writer, and what is known of it."""

    write: Writer
    identity: Mapping[str, Any] = field(default_factory=dict)
    """Model, its fingerprint or server, sampling settings: JSON, on every item; another one is another question."""
    longest: int | None = None
    """Tokens of prompt and answer that it takes; None where nobody knows."""
    at_once: int = 1
    """Prompts that it may be asked at once; changes no item."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is made."""

    length: int
    """Tokens of a whole conversation, at most: text, question, answer, and what the chat template puts between."""
    num_spans: int
    """Spans that are asked about. A larger number begins with the same ones."""
    span_tokens: int = 256
    """Of a span, about: it ends with a sentence."""
    rewrites: Sequence[str] = ()
    distractors: bool = True
    """Whether other documents stand beside one that is shorter than the length."""
    check_length: int | None = None
    """Tokens that the writer reads at most when it is asked without the span; None is what it takes."""
    agreement: float = 0.6
    """From which F1 two answers agree, and which share of an answer gives it away."""
    seed: int = 0
    max_broken: int = 10
    """Broken records that are left out before the work stops."""

    def __post_init__(self) -> None:
        check_length(self.length)
        if self.num_spans < 1 or self.span_tokens < 8:
            raise InputError(
                f"--spans is at least 1 and --span-tokens at least 8, got {self.num_spans} and {self.span_tokens}"
            )
        if self.length < 2 * self.span_tokens:
            raise InputError(
                f"a --length of {self.length} has no room for a span of about {self.span_tokens} tokens with a text around "
                f"it; give at least {2 * self.span_tokens}, or a smaller --span-tokens"
            )
        if self.check_length is not None and self.check_length < 1:
            raise InputError(f"--check-length is at least 1 token, got {self.check_length}")
        if not 0.0 < self.agreement <= 1.0:
            raise InputError(f"--agreement lies above 0 and up to 1, got {self.agreement}")
        if self.seed < 0 or self.max_broken < 0:
            raise InputError(f"--seed and --max-broken are at least 0, got {self.seed} and {self.max_broken}")
        for name in self.rewrites:
            if name not in REWRITES:
                raise InputError(f"unknown rewriting {name!r}; {near(name, REWRITES)}")

    def reads(self, longest: int | None) -> int:
        """Tokens that the writer is shown when it is asked without the span. Raises `InputError` where it takes too few."""
        asked = self.length if self.check_length is None else min(self.length, self.check_length)
        if longest is None:
            return asked
        taken = longest - min(ROOM, longest // 2)
        if taken < self.span_tokens:
            raise InputError(
                f"the writer takes {longest} tokens, too few to read around a span of {self.span_tokens}; start it with a "
                "longer context, take another one, or give a smaller --span-tokens"
            )
        return min(asked, taken)

    def to_dict(self) -> dict[str, Any]:
        """JSON form of what decides an item: not how many spans there are, nor when the work stops."""
        said = dataclasses.asdict(self) | {"rewrites": sorted(set(self.rewrites))}
        return {key: value for key, value in said.items() if key not in ("num_spans", "max_broken")}
