"""The cos/sin tables that vLLM wrote and SGLang took over: one formula for each rope type, in float64.

Both engines turn rope parameters into a table of cos and sin rows when a model is built. The formulas are those of the
methods' papers (YaRN arXiv:2309.00071, LongRoPE arXiv:2402.13753, Llama 3.1's wavelength rule); what differs from
transformers is which fields are read, how many rows a table has, and what stops the engine. A field that would stop it is
a `SourceError` here, which the engine's file turns into `Computed.refuses`; a field that it would compute nonsense from is
an `UnsupportedError`.

Given up: float32 rounding of the frequencies, below 1e-6 of each.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ropewalk.core.errors import SourceError, UnsupportedError
from ropewalk.core.geometry import Vector, geometric
from ropewalk.core.plan import Frequencies
from ropewalk.engines.transformers.checks import LARGEST, SMALLEST
from ropewalk.engines.transformers.formulas import temperature

ORIGINAL = "original_max_position_embeddings"


def spelled(text: Mapping[str, Any], label: str, key: str, absent: Any = None) -> Any:
    """A rope field of one group as the config has it, before anything is filled in; `absent` where it is not there."""
    scaling, parameters = text.get("rope_scaling"), text.get("rope_parameters")
    if label:
        inner = parameters.get(label) if isinstance(parameters, Mapping) else None
        sections = [scaling if label == "full_attention" else None, inner]
    else:
        sections = [scaling or parameters]
    for section in sections:
        if isinstance(section, Mapping) and key in section:
            return section[key]
    return absent


@dataclass(frozen=True, kw_only=True)
class Head:
    """What a table is made for, beside the rope parameters."""

    base: float
    rotary_dim: int
    head_dim: int
    max_position: int
    """`max_position_embeddings`, tokens."""

    @property
    def plain(self) -> Vector:
        """The unscaled vector, float64 [rotary_dim/2]."""
        if self.rotary_dim < 2 or self.rotary_dim % 2:
            raise SourceError(f"a head would rotate {self.rotary_dim} dimensions, expected an even number from 2")
        return vector(self.base, self.rotary_dim)


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table of cos and sin."""

    inv_freq: Vector
    """float64 [rotary_dim/2], radians per token."""
    attention_factor: float = 1.0
    rows: int
    """Positions it is made for; what lies beyond is up to the engine."""

    def word(self, logit_scale: float = 1.0) -> Frequencies:
        """The table as a word of a plan."""
        return Frequencies(inv_freq=self.inv_freq, attention_factor=self.attention_factor, logit_scale=logit_scale)


def number(values: Mapping[str, Any], key: str) -> float:
    """The number under `key`. `SourceError` where there is none, `UnsupportedError` where it cannot be meant."""
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SourceError(f"rope_parameters of type {values.get('rope_type')} need a number as {key}, got {value!r:.40}")
    if not 0.0 < value <= LARGEST:
        raise UnsupportedError(f"{key} is {value!r:.40}, expected a number above 0")
    return float(value)


def vector(base: float, rotary_dim: int) -> Vector:
    """The geometric vector of a base, which may be one that an engine has made."""
    if not SMALLEST <= base <= LARGEST * LARGEST:
        raise UnsupportedError(f"the base becomes {base:g}, which gives no frequencies")
    return geometric(base, rotary_dim)


def share(value: Any) -> float:
    """A rotated share. Raises `SourceError` where it is none."""
    found = number({"partial_rotary_factor": value}, "partial_rotary_factor")
    if found > 1.0:
        raise SourceError(f"partial_rotary_factor is {found:g}, expected a share of at most 1")
    return found


def default(head: Head) -> Table:
    """No scaling."""
    return Table(inv_freq=head.plain, rows=head.max_position)


def linear(values: Mapping[str, Any], head: Head) -> Table:
    """Position interpolation. Both engines loop over the factor unless it is a float."""
    factor = number(values, "factor")
    if not isinstance(values["factor"], float):
        raise SourceError(
            f"linear scaling with the whole number {values['factor']} as factor stops it at load: write {factor}"
        )
    return Table(inv_freq=head.plain / factor, rows=math.ceil(head.max_position * factor))


def alpha(values: Mapping[str, Any], head: Head) -> Table:
    """`dynamic` with `alpha`: the base times alpha^(d/(d-2)), the same for every text."""
    return rebased(head, number(values, "alpha"), head.max_position)


def rebased(head: Head, stretch: float, rows: int) -> Table:
    """NTK-aware scaling: the base times stretch^(d/(d-2))."""
    if head.rotary_dim == 2:
        raise SourceError("dynamic scaling divides by zero where a head rotates 2 dimensions")
    base = head.base * stretch ** (head.rotary_dim / (head.rotary_dim - 2))
    return Table(inv_freq=vector(base, head.rotary_dim), rows=rows)


def proportional(head: Head) -> Table:
    """Gemma 4's vector: exponents over the whole head, zeros where nothing turns. Neither engine reads a factor."""
    plain = vector(head.base, head.head_dim)
    plain[head.rotary_dim // 2 :] = 0.0
    return Table(inv_freq=plain, rows=head.max_position)


def llama3(values: Mapping[str, Any], head: Head) -> Table:
    """The wavelength rule of Llama 3.1, without transformers' demand that the two factors differ."""
    factor, original = number(values, "factor"), number(values, ORIGINAL)
    low, high = number(values, "low_freq_factor"), number(values, "high_freq_factor")
    plain = head.plain
    turns = original * plain / (2.0 * math.pi)
    smooth = (turns - low) / (high - low) if low != high else np.zeros_like(plain)
    between = (1.0 - smooth) * plain / factor + smooth * plain
    scaled = np.where(turns > high, plain, np.where(turns < low, plain / factor, between))
    return Table(inv_freq=scaled, rows=head.max_position)


def yarn(values: Mapping[str, Any], head: Head, *, attention_factor: float, truncate: bool = True) -> Table:
    """YaRN's ramp over dimension indices (eq. 13 of the paper in DeepSeek's form); the engine says the attention factor."""
    factor, original = number(values, "factor"), number(values, ORIGINAL)
    fast, slow = (_beta(values, key, usual) for key, usual in (("beta_fast", 32.0), ("beta_slow", 1.0)))
    if head.base == 1.0:
        raise SourceError("yarn divides by the logarithm of the base, got rope_theta 1")
    plain, dim = head.plain, head.rotary_dim
    low, high = (dim * math.log(original / (2.0 * math.pi * beta)) / (2.0 * math.log(head.base)) for beta in (fast, slow))
    if truncate:
        low, high = float(math.floor(low)), float(math.ceil(high))
    low, high = max(low, 0.0), min(high, dim - 1.0)
    width = high - low if high != low else 0.001
    ramp = np.clip((np.arange(dim // 2) - low) / width, 0.0, 1.0)
    scaled = plain / factor * ramp + plain * (1.0 - ramp)
    return Table(inv_freq=scaled, attention_factor=attention_factor, rows=math.ceil(original * factor))


def pair(values: Mapping[str, Any], factor: float) -> float:
    """The attention factor of an `mscale` pair: m(s, mscale) / m(s, mscale_all_dim), as DeepSeek writes it."""
    top, bottom = (_coefficient(values, key, 0.0) for key in ("mscale", "mscale_all_dim"))
    return temperature(factor, top) / temperature(factor, bottom)


def latent(values: Mapping[str, Any], head: Head, *, extra: float = 1.0) -> Table:
    """DeepSeek's table: YaRN whatever the type says, `mscale` 1 and `mscale_all_dim` 0 where left out, never truncate."""
    factor = number(values, "factor")
    top, bottom = _coefficient(values, "mscale", 1.0), _coefficient(values, "mscale_all_dim", 0.0)
    both = temperature(factor, top) / temperature(factor, bottom) * extra
    return yarn(values, head, attention_factor=both)


def latent_scale(values: Mapping[str, Any]) -> float:
    """What both engines multiply the softmax scale of latent attention with: m(factor, mscale_all_dim)^2."""
    return temperature(number(values, "factor"), _coefficient(values, "mscale_all_dim", 0.0)) ** 2


def longrope(values: Mapping[str, Any], head: Head, *, long: bool) -> Table:
    """One regime of LongRoPE. `attention_factor` and `factor` are not read: an own mscale, else the paper's formula."""
    original = number(values, ORIGINAL)
    kind = "long" if long else "short"
    divisors, other = (_divisors(values, f"{name}_factor", head) for name in (kind, "short" if long else "long"))
    assert divisors.shape == other.shape
    scale = head.max_position / original
    own = values.get(f"{kind}_mscale")
    if own is not None:
        attention = number(values, f"{kind}_mscale")
    elif scale <= 1.0:
        attention = 1.0
    elif original <= 1.0:
        raise SourceError(f"longrope divides by the logarithm of {ORIGINAL}, got {original:g}, which stops it at load")
    else:
        attention = math.sqrt(1.0 + math.log(scale) / math.log(original))
    rows = head.max_position if long else int(original)
    return Table(inv_freq=head.plain / divisors, attention_factor=attention, rows=rows)


def two_regimes(values: Mapping[str, Any]) -> bool:
    """Whether LongRoPE's two tables differ."""
    return values.get("short_factor") != values.get("long_factor") or values.get("short_mscale") != values.get("long_mscale")


def _divisors(values: Mapping[str, Any], key: str, head: Head) -> Vector:
    given, expected = values.get(key), head.plain.size
    if not isinstance(given, list) or len(given) != expected:
        got = f"{len(given)} numbers" if isinstance(given, list) else f"{given!r:.40}"
        raise SourceError(f"{key} has {got}, expected a list of {expected}, one for each frequency")
    if not all(isinstance(x, int | float) and not isinstance(x, bool) for x in given):
        raise SourceError(f"{key} holds something that is not a number")
    divisors = np.asarray(given, dtype=np.float64)
    if not np.all((divisors >= SMALLEST) & (divisors <= LARGEST)):
        raise UnsupportedError(f"{key} holds a number that is not above 0")
    return divisors


def _beta(values: Mapping[str, Any], key: str, usual: float) -> float:
    if key not in values:
        return usual
    if values[key] == 0:
        raise SourceError(f"yarn divides by {key}, got 0; transformers takes 0 for {usual:g}: write {usual}")
    if values[key] is None:
        raise SourceError(f"yarn reads {key} as it stands, got null; transformers takes null for {usual:g}: write {usual}")
    return number(values, key)


def _coefficient(values: Mapping[str, Any], key: str, usual: float) -> float:
    value = values.get(key, usual)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SourceError(f"{key} is {value!r:.40}, expected a number")
    if not 0.0 <= value <= LARGEST:
        raise UnsupportedError(f"{key} is {value!r:.40}, expected a number from 0")
    return float(value)
