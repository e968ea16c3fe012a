"""A `Plan` is what a method says and what a host carries: for each group of layers, the words that change it.

The one word so far is `Frequencies`. A plan is `static` (one set of numbers), `switched` (one set up to a length and another
beyond it, LongRoPE's two regimes) or `dynamic` (numbers that depend on the current length); `plan.at(length)` is always the
static plan for that length. Numbers are float64; hosts cast last.
"""

import hashlib
import json
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from ropewalk.core.errors import LengthError, PlanError, RopewalkError
from ropewalk.core.geometry import Geometry, Vector

Kind = Literal["static", "switched", "dynamic"]
LARGEST = 1e18
"""No factor of a real model comes near; beyond it float64 overflows in the powers that methods take."""
LONGEST = 2**31 - 1
"""No position id of any host goes beyond a signed 32-bit integer."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Frequencies:
    """How fast each pair of dimensions turns, and how strong the attention is."""

    inv_freq: Vector
    """float64 [rotary_dim/2], radians per token."""
    attention_factor: float = 1.0
    """Multiplies cos and sin, so q.k of the rotated dimensions by its square."""
    logit_scale: float = 1.0
    """Multiplies the whole q.k, unrotated dimensions included."""

    def __post_init__(self) -> None:
        inv_freq = _vector(self.inv_freq)
        if inv_freq.ndim != 1 or inv_freq.size == 0:
            raise PlanError(f"inv_freq must be a vector of rotary_dim/2 numbers, got shape {inv_freq.shape}")
        if not np.all(np.isfinite(inv_freq)) or np.any(inv_freq < 0.0):
            raise PlanError("inv_freq must be finite and not negative; check the method's options")
        for name in ("attention_factor", "logit_scale"):
            object.__setattr__(self, name, _positive(name, getattr(self, name)))
        inv_freq = inv_freq.copy()
        inv_freq.setflags(write=False)
        object.__setattr__(self, "inv_freq", inv_freq)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Frequencies):
            return NotImplemented
        return (
            np.array_equal(self.inv_freq, other.inv_freq)
            and self.attention_factor == other.attention_factor
            and self.logit_scale == other.logit_scale
        )

    def __hash__(self) -> int:
        return hash((self.inv_freq.tobytes(), self.attention_factor, self.logit_scale))

    def difference(self, other: "Frequencies") -> float:
        """Largest relative difference over all frequencies, the attention factor and the logit scale; inf on shapes."""
        if self.inv_freq.shape != other.inv_freq.shape:
            return float("inf")
        mine = np.append(self.inv_freq, [self.attention_factor, self.logit_scale])
        theirs = np.append(other.inv_freq, [other.attention_factor, other.logit_scale])
        scale = np.maximum(np.abs(mine), np.abs(theirs))
        return float(np.max(np.abs(mine - theirs) / np.where(scale == 0.0, 1.0, scale)))

    def to_dict(self) -> dict[str, Any]:
        """JSON form; floats survive it exactly."""
        return {
            "inv_freq": [float(x) for x in self.inv_freq],
            "attention_factor": self.attention_factor,
            "logit_scale": self.logit_scale,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Frequencies":
        """Back from `to_dict`."""
        return cls(
            inv_freq=content["inv_freq"],
            attention_factor=content["attention_factor"],
            logit_scale=content["logit_scale"],
        )


def _vector(value: Any) -> Vector:
    """Numbers as float64. Text that looks like numbers is none: it comes from a file that somebody edited."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise PlanError(f"inv_freq must be a vector of rotary_dim/2 numbers, got {value!r:.40}") from error
    if array.size and array.dtype.kind not in "fiu":
        raise PlanError(f"inv_freq must be a vector of rotary_dim/2 numbers, got {value!r:.40}")
    return array.astype(np.float64)


def _positive(name: str, value: Any) -> float:
    # numpy's scalars are floats or integers to `numbers`, and plans are made with them.
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not 0.0 < value <= LARGEST:
        raise PlanError(f"{name} must be a positive number, got {value!r:.40}")
    return float(value)


Words = Mapping[str, Frequencies | None]
"""Group label to its word; None for a group left alone."""


@dataclass(frozen=True, kw_only=True)
class Native:
    """A claim of a method: "the world calls this plan `name`, with these options". Hosts check it before they use it."""

    name: str
    """`default`, `linear`, `yarn`, `llama3` or `longrope`."""
    options: dict[str, Any] = field(default_factory=dict)
    """In our own words; `engines` knows the foreign spelling."""


@dataclass(frozen=True, kw_only=True)
class Regime:
    """One stage of a switched plan: its words hold for texts up to `longest` tokens (None: no end)."""

    longest: int | None
    groups: Words

    def __post_init__(self) -> None:
        if self.longest is not None:
            check_length(self.longest)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A change to a model's position encoding, in numbers. Made by `Method.plan`, carried by hosts."""

    method: str
    """Id, such as `yarn` or `dynamic:ntk`."""
    options: dict[str, Any]
    """Complete, defaults included."""
    kind: Kind
    original_length: int
    trained_length: int
    length: int
    """The length that was asked for, tokens."""
    factor: float
    """length / original_length when planned from the origin, else length / trained_length; 1 for the identity."""
    groups: Words
    """The words at `length`."""
    regimes: tuple[Regime, ...] = ()
    """Stages of a switched plan, shortest first; empty otherwise."""
    geometry: Geometry | None = field(default=None, compare=False, repr=False)
    """What a dynamic plan is planned from again at each length; None otherwise."""
    native: Native | None = field(default=None, compare=False)
    """The method's claim of a native spelling, unverified; not part of equality."""

    def __post_init__(self) -> None:
        if not isinstance(self.method, str):
            raise PlanError(f"a plan's method is an id such as yarn, got {self.method!r:.40}")
        if self.kind not in ("static", "switched", "dynamic"):
            raise PlanError(f"a plan is static, switched or dynamic, got kind {self.kind!r}")
        if self.kind == "switched" and not self.regimes:
            raise PlanError("a switched plan needs its regimes")
        if self.kind == "dynamic" and self.geometry is None:
            raise PlanError("a dynamic plan needs the geometry that it is planned from at each length")
        for name in ("original_length", "trained_length", "length"):
            object.__setattr__(self, name, check_length(getattr(self, name)))
        _positive("a plan's factor", self.factor)

    @property
    def key(self) -> str:
        """A hash of what makes plans equal: what a cache may be keyed by."""
        content = {key: value for key, value in self.to_dict().items() if key not in ("geometry", "native")}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def __hash__(self) -> int:
        return hash(self.key)

    def difference(self, other: "Plan") -> float:
        """Largest relative difference over the words of all groups; inf where one changes a group the other leaves."""
        if set(self.groups) != set(other.groups):
            return float("inf")
        worst = 0.0
        for label, word in self.groups.items():
            theirs = other.groups[label]
            if word is None or theirs is None:
                worst = worst if word is theirs else float("inf")
            else:
                worst = max(worst, word.difference(theirs))
        return worst

    @property
    def frequencies(self) -> Frequencies:
        """The single extended group's word.

        Raises `PlanError` where there are several: ask `plan.groups` then.
        """
        words = [word for word in self.groups.values() if word is not None]
        if len(words) != 1:
            raise PlanError(
                f"this plan extends {len(words)} groups ({', '.join(self.groups)}); ask plan.groups for each of them"
            )
        return words[0]

    def at(self, length: int) -> "Plan":
        """The static plan for a text of `length` tokens. A static plan is its own answer."""
        check_length(length)
        if self.kind == "static":
            return self
        if self.kind == "switched":
            for regime in self.regimes:
                if regime.longest is None or length <= regime.longest:
                    return replace(self, kind="static", groups=regime.groups, regimes=())
            raise LengthError(f"this plan's last regime ends at {self.regimes[-1].longest} tokens, got {length}")
        from ropewalk.core.method import find  # late: method.py needs Plan

        assert self.geometry is not None
        planned = find(self.method, self.options).plan(self.geometry, length)
        return replace(planned, kind="static", geometry=None)

    def to_dict(self) -> dict[str, Any]:
        """The document of `extend --dry-run --json`; `from_dict` gives an equal plan back."""
        content: dict[str, Any] = {
            "method": self.method,
            "options": self.options,
            "kind": self.kind,
            "original_length": self.original_length,
            "trained_length": self.trained_length,
            "length": self.length,
            "factor": self.factor,
            "groups": _words_to_dict(self.groups),
        }
        if self.regimes:
            content["regimes"] = [{"longest": r.longest, "groups": _words_to_dict(r.groups)} for r in self.regimes]
        if self.geometry is not None:
            content["geometry"] = self.geometry.to_dict()
        if self.native is not None:
            content["native"] = {"name": self.native.name, "options": self.native.options}
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Plan":
        """Back from `to_dict`. Raises `PlanError` on a document that is not a plan."""
        if not isinstance(content, Mapping):
            raise PlanError(
                f"this document is not a plan but a {type(content).__name__}; expected what Plan.to_dict() writes"
            )
        try:
            geometry, native = content.get("geometry"), content.get("native")
            return cls(
                method=content["method"],
                options=dict(content["options"]),
                kind=content["kind"],
                original_length=content["original_length"],
                trained_length=content["trained_length"],
                length=content["length"],
                factor=content["factor"],
                groups=_words_from_dict(content["groups"]),
                regimes=tuple(
                    Regime(longest=r["longest"], groups=_words_from_dict(r["groups"])) for r in content.get("regimes", ())
                ),
                geometry=None if geometry is None else _geometry(geometry),
                native=None if native is None else Native(name=native["name"], options=dict(native["options"])),
            )
        except RopewalkError:
            raise
        except (AssertionError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise PlanError(f"this document is not a plan ({error!r}); expected what Plan.to_dict() writes") from error


def _geometry(content: Mapping[str, Any]) -> Geometry:
    """The geometry of a dynamic plan, which is planned from again: what methods compute with is checked."""
    geometry = Geometry.from_dict(content)
    for length in (geometry.original_length, geometry.trained_length, geometry.declared_length):
        check_length(length)
    for group in geometry.groups:
        for name in ("base", "origin_base"):
            value = getattr(group, name)
            if value is not None:
                _positive(name, value)
        for vector in (group.inv_freq, group.origin_inv_freq):
            if vector is not None:
                Frequencies(inv_freq=vector, attention_factor=group.attention_factor, logit_scale=group.logit_scale)
        _positive("origin_attention_factor", group.origin_attention_factor)
        _positive("origin_logit_scale", group.origin_logit_scale)
    return geometry


def _words_to_dict(words: Words) -> dict[str, Any]:
    return {label: None if word is None else {"frequencies": word.to_dict()} for label, word in words.items()}


def _words_from_dict(content: Mapping[str, Any]) -> dict[str, Frequencies | None]:
    return {label: None if word is None else Frequencies.from_dict(word["frequencies"]) for label, word in content.items()}


def check_length(length: int) -> int:
    """`length` itself, or `LengthError` where it is no possible number of tokens."""
    if isinstance(length, bool) or not isinstance(length, int | np.integer):
        raise LengthError(f"a length is a whole number of tokens, got {length!r}")
    if not 1 <= length <= LONGEST:
        raise LengthError(f"a length lies between 1 and {LONGEST} tokens, got {length}")
    return int(length)


def parse_length(text: str | int) -> int:
    """A length as people write it: `65536`, `64k` or `1m`, where k = 1024 and m = 1024 * 1024."""
    if not isinstance(text, str):
        return check_length(text)
    body = text.strip().lower().replace("_", "")
    unit = {"k": 1024, "m": 1024 * 1024}.get(body[-1:], 1)
    digits = body if unit == 1 else body[:-1]
    if not digits.isascii() or not digits.isdigit():
        raise LengthError(f"a length looks like 65536 or 64k (k = 1024), got {text!r}")
    if len(digits) > 12:
        raise LengthError(f"a length lies between 1 and {LONGEST} tokens, got {text!r}")
    return check_length(int(digits) * unit)
