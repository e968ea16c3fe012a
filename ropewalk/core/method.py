"""What a method is, how it is found, and how its options are read.

A method is a frozen dataclass whose fields are its options. It turns a `Geometry` and a length into a `Plan`, in float64
numpy. All it must write is `frequencies(start, factor)`: the word for one group. Everything else - which groups, from
which vector, identity at and below the trained length, complete options in the plan - is done here, once, for every method.

Methods are found through the entry point group `ropewalk.methods`; ours come in by the same door as a stranger's.
"""

import ast
import dataclasses
import inspect
import itertools
import math
import textwrap
import types
import typing
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar

from ropewalk.core.errors import LengthError, MethodError, UnsupportedError, near
from ropewalk.core.geometry import Geometry, Start
from ropewalk.core.plan import Frequencies, Kind, Native, Plan, Regime, check_length

ENTRY_POINTS = "ropewalk.methods"
ORDER = (
    "none", "crop", "pi", "ntk", "ntk-fixed", "ntk-mixed", "ntk-by-parts", "yarn", "abf", "llama3", "longrope", "dynamic",
)  # fmt: skip
LARGEST_FACTOR = 4096.0
"""Beyond this a length is taken for a slip of the finger."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """Base of all methods. Subclasses are frozen keyword-only dataclasses with a docstring under each option."""

    id: ClassVar[str]
    """What users type."""
    summary: ClassVar[str]
    """One line for `ropewalk methods`."""
    paper: ClassVar[str]
    """Where it comes from, with its equation."""
    kind: ClassVar[Kind] = "static"

    def frequencies(self, start: Start, factor: float) -> Frequencies:
        """The word for one group that departs from `start` and is stretched by `factor` >= 1."""
        raise NotImplementedError

    def native(self, geometry: Geometry, factor: float) -> Native | None:
        """The name the world has for this plan, or None. Claimed only for a start that is plain."""
        return None

    @property
    def name(self) -> str:
        """The id as a plan records it; a wrapping method adds what it wraps (`dynamic:yarn`)."""
        return self.id

    @property
    def fixes_strength(self) -> bool:
        """Whether an option sets the strength, so that the length does not (and short lengths are no identity)."""
        return getattr(self, "factor", None) is not None

    def strength(self, geometry: Geometry, length: int) -> float:
        """The factor this method stretches by for `length`; below 1 means: nothing to do."""
        fixed = getattr(self, "factor", None)
        return float(fixed) if fixed is not None else length / geometry.start_length

    def plan(self, geometry: Geometry, length: int) -> Plan:
        """The plan for `length` tokens. At or below the length of the start: the identity, unless an option fixes it.

        The start is the trained length, or the original one where a stretch was put on without training: there a plan from
        the origin takes the place of that stretch, so it may be a smaller one.

        Raises `LengthError`, `UnsupportedError` (nothing to extend, lineage unknown), `MethodError`.
        """
        check_length(length)
        check_extendable(geometry)
        if length <= geometry.start_length and not self.fixes_strength:
            return self.make_plan(geometry, length, 1.0, identity(geometry))
        factor = self.strength(geometry, length)
        words: dict[str, Frequencies | None] = {group.label: None for group in geometry.groups}
        for group in geometry.extended_groups:
            words[group.label] = self.frequencies(geometry.start(group), factor)
        native = self.native(geometry, factor) if is_plain_start(geometry) else None
        return self.make_plan(geometry, length, factor, words, native=native)

    def make_plan(
        self,
        geometry: Geometry,
        length: int,
        factor: float,
        words: Mapping[str, Frequencies | None],
        *,
        native: Native | None = None,
        regimes: tuple[Regime, ...] = (),
    ) -> Plan:
        """A `Plan` with this method's id and complete options."""
        return Plan(
            method=self.name,
            options=self.options(),
            kind=self.kind,
            original_length=geometry.original_length,
            trained_length=geometry.trained_length,
            length=length,
            factor=factor,
            groups=dict(words),
            regimes=regimes,
            native=native,
        )

    def options(self) -> dict[str, Any]:
        """All options with their values, defaults included, in JSON types."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def check_extendable(geometry: Geometry) -> None:
    """Raises `UnsupportedError` where no group can be extended, with the reason."""
    if geometry.extended_groups:
        return
    windows = sorted({g.window for g in geometry.groups if g.rotated and g.window is not None})
    free = [g for g in geometry.groups if g.label == "none"]
    if windows and free:
        raise UnsupportedError(
            f"the layers of this {geometry.model_type} that rotate see at most {windows[-1]} tokens (sliding window), and "
            f"its {sum(len(g.layers) for g in free)} layers that see the whole text have no positions: no plan changes how "
            "far it reads; serve it as it is, and measure how far it reads"
        )
    if windows:
        raise UnsupportedError(
            f"every layer of this {geometry.model_type} looks back at most {windows[-1]} tokens (sliding window), so no "
            "frequency sees a longer distance; set sliding_window to null in config.json first"
        )
    raise UnsupportedError(f"this {geometry.model_type} rotates nothing; there are no frequencies to plan")


def identity(geometry: Geometry) -> dict[str, Frequencies | None]:
    """The words that leave the model as it is."""
    words: dict[str, Frequencies | None] = {group.label: None for group in geometry.groups}
    for group in geometry.extended_groups:
        assert group.inv_freq is not None
        words[group.label] = Frequencies(
            inv_freq=group.inv_freq, attention_factor=group.attention_factor, logit_scale=group.logit_scale
        )
    return words


def is_plain_start(geometry: Geometry) -> bool:
    """Whether every extended group departs from an unscaled geometric vector, so that a native name can mean the same."""
    starts = [geometry.start(group) for group in geometry.extended_groups]
    return all(s.base is not None and s.attention_factor == 1.0 and s.logit_scale == 1.0 for s in starts)


# --- finding a method and reading its options -----------------------------------------------------------------------


@cache
def methods() -> dict[str, type[Method]]:
    """All known methods by id. Raises `MethodError` naming the entry point that does not load."""
    return {name: _load(name) for name in sorted(_entries(), key=_rank)}


@cache
def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}


def _rank(name: str) -> tuple[int, str]:
    """The order in which people meet the methods: ours as the contract lists them, then others' by name."""
    return (ORDER.index(name) if name in ORDER else len(ORDER), name)


@cache
def _load(name: str) -> type[Method]:
    entry = _entries()[name]
    try:
        cls = entry.load()
    except (ImportError, AttributeError) as error:
        raise MethodError(
            f"the method {name!r} ({entry.value}) cannot be loaded: {error}; reinstall what ships it"
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, Method) and cls.id == name):
        raise MethodError(f"the entry point {name!r} ({entry.value}) is not a Method whose id is {name!r}")
    return cls


def find(spec: str, options: Mapping[str, Any] | None = None) -> Method:
    """The method that `spec` names, such as `pi`, `yarn:ramp=rotations,beta_fast=16` or `dynamic:yarn:beta_slow=2`.

    `options` add to those in `spec`. Raises `MethodError` for an unknown id, an option the method does not take, a value
    of the wrong kind, or an option given twice.
    """
    name, _, tail = spec.strip().partition(":")
    known = _entries()
    if name not in known:
        raise MethodError(f"unknown method {name!r}; {near(name, known)}")
    cls = _load(name)
    given: dict[str, Any] = {}
    inner = getattr(cls, "wraps", None)
    if inner is not None:
        wrapped, _, tail = tail.partition(":")
        given[inner] = wrapped
    for item in filter(None, (part.strip() for part in tail.split(","))):
        key, equals, value = item.partition("=")
        if not equals:
            raise MethodError(f"an option of {name} looks like key=value, got {item!r}")
        if key in given:
            raise MethodError(f"option {key!r} of {name} is given twice in {spec!r}")
        given[key] = value
    for key, value in (options or {}).items():
        if key in given and given[key] != value:
            raise MethodError(f"option {key!r} of {name} is given twice, as {given[key]!r} and as {value!r}")
        given[key] = value
    return build(cls, given)


def build(cls: type[Method], given: Mapping[str, Any]) -> Method:
    """An instance of `cls` with the options `given`, as text or as values. Raises `MethodError`."""
    if hasattr(cls, "build"):
        return typing.cast(Method, cls.build(given))
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in fields:
            known = f"{near(key, fields)}" if fields else f"{cls.id} takes none"
            raise MethodError(f"{cls.id} does not take the option {key!r}; {known}")
        values[key] = _convert(cls.id, key, value, hints[key])
    missing = [n for n, f in fields.items() if f.default is dataclasses.MISSING and n not in values]
    if missing:
        raise MethodError(f"{cls.id} needs the option {' and '.join(missing)}; say {cls.id}:{missing[0]}=...")
    return cls(**values)


def _convert(method: str, key: str, value: Any, hint: Any) -> Any:
    """`value` as the option's type. Text comes from the command line, values from Python or from a plan."""
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if typing.get_origin(hint) is typing.Literal:
        if value in typing.get_args(hint):
            return value
        raise MethodError(f"{method}:{key} is one of {', '.join(map(str, typing.get_args(hint)))}, got {value!r}")
    if value is None and type(None) in kinds:
        return None
    if bool in kinds:
        truth = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
        if isinstance(value, bool):
            return value
        if str(value).lower() in truth:
            return truth[str(value).lower()]
        raise MethodError(f"{method}:{key} is true or false, got {value!r}")
    if float in kinds or int in kinds:
        try:
            number = float(value) if not isinstance(value, bool) else math.nan
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise MethodError(f"{method}:{key} is a number, got {value!r}")
        if float not in kinds:
            if number != int(number):
                raise MethodError(f"{method}:{key} is a whole number, got {value!r}")
            return int(number)
        return number
    if any(typing.get_origin(kind) is tuple for kind in kinds):
        try:
            items = value.split("|") if isinstance(value, str) else list(value)
            return tuple(float(item) for item in items)
        except (TypeError, ValueError) as error:
            raise MethodError(f"{method}:{key} is a list of numbers joined by '|', got {value!r}") from error
    return value


def describe(cls: type[Method]) -> dict[str, Any]:
    """A method for people and tables: id, summary, paper, kind, and each option with its default and docstring."""
    return {"id": cls.id, "summary": cls.summary, "paper": cls.paper, "kind": cls.kind, "options": option_docs(cls)}


def option_docs(cls: type[Method]) -> list[dict[str, Any]]:
    """Each option's name, default and the docstring under its field, from the source of the class and its bases."""
    helps: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            helps |= _field_docs(base)
    rows = []
    for field in dataclasses.fields(cls):
        default = None if field.default is dataclasses.MISSING else field.default
        rows.append({"name": field.name, "default": default, "help": helps.get(field.name, "")})
    return rows


def _field_docs(cls: type) -> dict[str, str]:
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(tree, ast.ClassDef)
    docs: dict[str, str] = {}
    for field, below in itertools.pairwise(tree.body):
        is_text = (
            isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str)
        )
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
            docs[field.target.id] = " ".join(str(below.value.value).split())  # type: ignore[attr-defined]
    return docs


def require(method: str, key: str, value: float, *, above: float, inclusive: bool = False) -> None:
    """Raises `MethodError` unless `value` is above a bound. For `__post_init__` of methods."""
    if value < above or (value == above and not inclusive):
        raise MethodError(f"{method}:{key} must be {'at least' if inclusive else 'above'} {above:g}, got {value:g}")


def check_stretch(geometry: Geometry, length: int) -> None:
    """Raises `LengthError` unless `length` goes beyond what a plan departs from: what `extend` and `compare` demand.

    That is the trained length, or the original one where a stretch was put on without training and is planned anew.
    """
    if geometry.from_origin and length <= geometry.original_length:
        raise LengthError(
            f"length {length} is not above the original length {geometry.original_length} of this model, from which a "
            "stretch without training is planned; give a longer --length"
        )
    if length <= geometry.trained_length and not geometry.from_origin:
        if geometry.lineage == "unknown" and length > geometry.original_length:
            raise LengthError(
                f"length {length} is not above the trained length {geometry.trained_length} of this model; give a longer "
                f"--length, or --lineage runtime to plan anew from its original length {geometry.original_length}"
            )
        raise LengthError(
            f"length {length} is not above the trained length {geometry.trained_length} of this model; "
            "give a longer --length"
        )
    if length > LARGEST_FACTOR * geometry.trained_length:
        raise LengthError(
            f"length {length} is over {LARGEST_FACTOR:.0f} times the trained length {geometry.trained_length}; "
            "give a length that can be meant"
        )
