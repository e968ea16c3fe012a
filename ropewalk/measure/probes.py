"""Likelihood protocols with options of their own: `longppl`, `repeated-text`, `byod-sensitivity`, `sensitivity-by-distance`.

They are asked for as methods are, options after a colon: `--protocol longppl:context=2048,alpha=2`. This module says what
can be asked and reads it; what each does is in `key_tokens`, `repetition`, `sensitivity` and `distance`. It imports nothing
heavy, so a wrong option is told before a model is loaded.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from ropewalk.core.errors import InputError, near
from ropewalk.core.method import build, require

LONGPPL, REPEATED = "longppl", "repeated-text"
BYOD, BY_DISTANCE = "byod-sensitivity", "sensitivity-by-distance"


@dataclass(frozen=True, kw_only=True)
class KeyTokens:
    """`longppl`: perplexity of the tokens that need more than a short context."""

    id: ClassVar[str] = LONGPPL
    context: int | None = None
    """K, the short context in tokens; the old window where nothing is said."""
    shared: int = 1024
    """d: how many tokens share one short context."""
    alpha: float = 2.0
    """Nats that the long context must gain over the short one."""
    beta: float = -2.0
    """Log-probability that the long context must reach."""
    evaluator: str = "none"
    """The method that says which tokens are key; the untouched model where nothing is said."""

    def __post_init__(self) -> None:
        require(self.id, "shared", self.shared, above=1, inclusive=True)
        if self.context is not None:
            require(self.id, "context", self.context, above=1, inclusive=True)


@dataclass(frozen=True, kw_only=True)
class RepeatedText:
    """`repeated-text`: a text that repeats its first `period` tokens, against the text as it goes on."""

    id: ClassVar[str] = REPEATED
    period: int | None = None
    """Tokens; the old window where nothing is said."""

    def __post_init__(self) -> None:
        if self.period is not None:
            require(self.id, "period", self.period, above=2, inclusive=True)


@dataclass(frozen=True, kw_only=True)
class Passages:
    """`byod-sensitivity`: short passages whose earlier sentences are replaced."""

    id: ClassVar[str] = BYOD
    examples: int = 1000
    """Passages read at most."""

    def __post_init__(self) -> None:
        require(self.id, "examples", self.examples, above=1, inclusive=True)


@dataclass(frozen=True, kw_only=True)
class ByDistance:
    """`sensitivity-by-distance`: one sentence of the long text is replaced, and what follows at each distance compared."""

    id: ClassVar[str] = BY_DISTANCE
    swaps: int = 4
    """Sentences replaced in each document, one at a time."""
    shortest: int = 64
    """The shortest distance, tokens; further ones follow the grid 2^k, 3 * 2^(k-1)."""

    def __post_init__(self) -> None:
        require(self.id, "swaps", self.swaps, above=1, inclusive=True)
        require(self.id, "shortest", self.shortest, above=1, inclusive=True)


Probe = KeyTokens | RepeatedText | Passages | ByDistance
KINDS: dict[str, type[Probe]] = {kind.id: kind for kind in (KeyTokens, RepeatedText, Passages, ByDistance)}


@dataclass(frozen=True, kw_only=True)
class Probes:
    """What was asked for; None where it was not."""

    longppl: KeyTokens | None = None
    repeated_text: RepeatedText | None = None
    byod_sensitivity: Passages | None = None
    sensitivity_by_distance: ByDistance | None = None

    @property
    def asked(self) -> tuple[Probe, ...]:
        """Those that were asked for, in a fixed order."""
        found = [getattr(self, field.name) for field in dataclasses.fields(self)]
        return tuple(probe for probe in found if probe is not None)


def split_protocols(specs: Sequence[str], windowed: tuple[str, ...]) -> tuple[tuple[str, ...], Probes]:
    """The protocols of `windowed` that `specs` name, and the probes with their options. Raises `InputError`."""
    plain: list[str] = []
    found: dict[str, Probe] = {}
    for spec in specs:
        name, colon, tail = spec.partition(":")
        if name not in (*windowed, *KINDS):
            known = ", ".join((*windowed, *KINDS))
            raise InputError(f"unknown protocol {name!r}; known are prefix (always), {known}")
        if name in windowed:
            if colon:
                raise InputError(f"the protocol {name} takes no options after a colon, got {spec!r}; see --window, --stride")
            plain.append(name)
            continue
        field = name.replace("-", "_")
        if field in found:
            raise InputError(f"the protocol {name} is asked for twice; ask for it once, with all its options")
        found[field] = _read(name, tail)
    return tuple(dict.fromkeys(plain)), Probes(**cast(dict[str, Any], found))


def _read(name: str, tail: str) -> Probe:
    given: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in tail.split(","))):
        key, equals, value = item.partition("=")
        if not equals:
            raise InputError(f"an option of {name} looks like key=value, got {item!r}")
        if key in given:
            raise InputError(f"option {key!r} of {name} is given twice")
        given[key] = value
    return cast(Probe, build(cast(Any, KINDS[name]), given))


def check_evaluator(label: str, labels: tuple[str, ...]) -> None:
    """Raises `InputError` unless the evaluator of key tokens is among the methods that read a whole text."""
    if label not in labels:
        raise InputError(
            f"longppl's evaluator {label!r} is not among the methods that read the whole text; {near(label, labels)}"
        )
