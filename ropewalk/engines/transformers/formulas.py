"""What stock transformers computes from a set of rope parameters, in float64.

Each type follows the same steps as transformers 5.23 does, rounding of ramp ends and treatment of null and zero included,
so that reading a config gives the numbers of the model. `linear` is position interpolation (arXiv:2306.15595, eq. 4),
`dynamic` the NTK-aware base at the current length, `yarn` arXiv:2309.00071 (eq. 22-23 with ramp over dimension indices),
`longrope` arXiv:2402.13753, `llama3` the wavelength rule of Llama 3.1, `proportional` Gemma 4's.

Hosts compute in float32. That is within 5e-7 of a frequency, except where a ramp is blended: what is kept of a slow
frequency is a difference of two numbers near one, and its rounding is multiplied by the factor. `rounded` says how much.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropewalk.core.errors import SourceError, UnsupportedError, near
from ropewalk.core.geometry import Vector, geometric
from ropewalk.engines.transformers.checks import LARGEST

TYPES = ("default", "linear", "dynamic", "yarn", "longrope", "llama3", "proportional")
NEEDED: dict[str, tuple[str, ...]] = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "longrope": ("short_factor", "long_factor"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
}
"""Fields without which transformers does not start. `yarn` needs `factor` too, but takes null for "derive it"."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """What a formula must know beside the rope parameters."""

    head_dim: int
    """Dimensions that may be rotated: of a head, or of the rotated part under MLA."""
    partial: bool
    """Whether the family's unscaled vector honours `partial_rotary_factor` (scaled ones always do)."""
    declared_length: int
    truncate: bool = True
    """YaRN's rounding of the ramp's ends. Stock code reads it from the outer dict only, never per layer type."""


def rotary_dim(params: Mapping[str, Any], head: Head) -> int:
    """How many dimensions of a head are rotated."""
    if params["rope_type"] == "proportional" or (params["rope_type"] == "default" and not head.partial):
        return head.head_dim
    share = params.get("partial_rotary_factor")
    return int(head.head_dim * (1.0 if share is None else float(share)))


def compute(params: Mapping[str, Any], head: Head, length: int | None = None) -> tuple[Vector, float]:
    """The frequencies, float64 [rotary_dim/2] radians per token, and what multiplies cos and sin.

    `length` (tokens) matters for `dynamic` and `longrope` only; None is what a model holds before it has read anything.
    Raises `SourceError` for missing or senseless fields, `UnsupportedError` for an unknown type.
    """
    kind = params["rope_type"]
    if kind not in TYPES:
        raise UnsupportedError(f"rope_type {kind!r} is not one that transformers knows; {near(str(kind), TYPES)}")
    for key in NEEDED.get(kind, ()):
        if params.get(key) is None:
            raise SourceError(f"rope_parameters of type {kind} lack {key!r}; add it")
    dim = rotary_dim(params, head)
    if dim < 2 or dim % 2:
        raise SourceError(f"a head would rotate {dim} dimensions, expected an even number from 2; check head_dim")
    base = number(params, "rope_theta", above=1.0)
    if kind == "default":
        return geometric(base, dim), 1.0
    if kind == "linear":
        return geometric(base, dim) / number(params, "factor"), 1.0
    if kind == "dynamic":
        return geometric(_dynamic_base(params, head, base, dim, length), dim), 1.0
    if kind == "yarn":
        return _yarn(params, head, geometric(base, dim), base, dim)
    if kind == "longrope":
        return _longrope(params, head, base, dim, length)
    if kind == "llama3":
        return _llama3(params, geometric(base, dim)), 1.0
    return _proportional(params, head, base), 1.0


def rounded(params: Mapping[str, Any], head: Head) -> list[Vector]:
    """The frequencies of a blend as float32 may give them, powers a bit up or down; empty for types without a ramp.

    Call after `compute`, which checks the fields.
    """
    if params["rope_type"] not in ("yarn", "llama3"):
        return []
    dim, base = rotary_dim(params, head), float(params["rope_theta"])
    plain = 1.0 / np.float32(base) ** (np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim))
    found = []
    for last_bit in (1.0 - 2.0**-23, 1.0, 1.0 + 2.0**-23):
        moved = (plain * last_bit).astype(np.float32)
        blend = _llama3(params, moved) if params["rope_type"] == "llama3" else _yarn(params, head, moved, base, dim)[0]
        found.append(blend.astype(np.float64))
    return found


def temperature(factor: float, coefficient: float = 1.0) -> float:
    """YaRN's m(s, c) = 0.1 c ln s + 1, and 1 for s <= 1 (arXiv:2309.00071, eq. 22, with DeepSeek's coefficient)."""
    return 1.0 if factor <= 1.0 else 0.1 * coefficient * math.log(factor) + 1.0


def logit_scale(params: Mapping[str, Any]) -> float:
    """What DeepSeek's attention multiplies its softmax scale with: m(factor, mscale_all_dim)^2 for any scaled type."""
    coefficient = params.get("mscale_all_dim")
    if params["rope_type"] == "default" or not coefficient:
        return 1.0
    return temperature(number(params, "factor"), float(coefficient)) ** 2


def stretch(params: Mapping[str, Any], declared_length: int) -> float:
    """`factor`, or declared/original length where it is null or left out."""
    if params.get("factor") is not None:
        return number(params, "factor")
    return declared_length / number(params, "original_max_position_embeddings")


def _dynamic_base(params: Mapping[str, Any], head: Head, base: float, dim: int, length: int | None) -> float:
    if dim == 2:
        raise SourceError("dynamic scaling has no formula for heads that rotate 2 dimensions; check head_dim")
    factor, known = number(params, "factor"), head.declared_length
    grown = max(length or known, known)
    return float(base * ((factor * grown / known) - (factor - 1.0)) ** (dim / (dim - 2)))


def _yarn(params: Mapping[str, Any], head: Head, plain: NDArray[Any], base: float, dim: int) -> tuple[Vector, float]:
    if "factor" not in params:
        raise SourceError("rope_parameters of type yarn lack 'factor'; add it")
    factor, original = stretch(params, head.declared_length), number(params, "original_max_position_embeddings")
    # A beta of zero means "not given" to transformers, as null does.
    fast, slow = float(params.get("beta_fast") or 32), float(params.get("beta_slow") or 1)

    def dimension(turns: float) -> float:
        return (dim * math.log(original / (turns * 2 * math.pi))) / (2 * math.log(base))

    low, high = dimension(fast), dimension(slow)
    if head.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001
    kept = 1.0 - np.clip((np.arange(dim // 2, dtype=plain.dtype) - low) / (high - low), 0.0, 1.0)
    # In the order in which stock code computes it, for the sake of its rounding.
    return plain / factor * (1.0 - kept) + plain * kept, _yarn_attention(params, factor)


def _yarn_attention(params: Mapping[str, Any], factor: float) -> float:
    if params.get("attention_factor") is not None:
        return number(params, "attention_factor")
    top, bottom = params.get("mscale"), params.get("mscale_all_dim")
    if top and bottom:
        return temperature(factor, float(top)) / temperature(factor, float(bottom))
    return temperature(factor)


def _longrope(params: Mapping[str, Any], head: Head, base: float, dim: int, length: int | None) -> tuple[Vector, float]:
    original = number(params, "original_max_position_embeddings")
    factor = stretch(params, head.declared_length)
    attention = params.get("attention_factor")
    if attention is not None:
        attention = number(params, "attention_factor")
    elif factor <= 1.0:
        attention = 1.0
    else:
        attention = math.sqrt(1 + math.log(factor) / math.log(number(params, "original_max_position_embeddings", above=1.0)))
    chosen = "long_factor" if length is not None and length > original else "short_factor"
    return geometric(base, dim) / _divisors(params, chosen, dim // 2), attention


def _divisors(params: Mapping[str, Any], key: str, count: int) -> Vector:
    listed = params[key]
    if not isinstance(listed, list | tuple | np.ndarray):
        raise SourceError(f"{key} is a list of {count} numbers; got {listed!r:.99}")
    if not all(isinstance(x, int | float) and not isinstance(x, bool) for x in listed):
        raise SourceError(f"{key} is a list of {count} numbers; got {listed!r:.99}")
    # NaN is above nothing, infinity is not below the largest.
    if len(listed) != count or not all(0.0 < x <= LARGEST for x in listed):
        raise SourceError(f"{key} must be a list of {count} positive numbers, got {len(listed)}: {listed!r:.99}")
    return np.asarray(listed, dtype=np.float64)


def _llama3(params: Mapping[str, Any], plain: NDArray[Any]) -> Vector:
    factor, original = number(params, "factor"), number(params, "original_max_position_embeddings")
    low, high = number(params, "low_freq_factor"), number(params, "high_freq_factor")
    wavelength = 2 * math.pi / plain
    # Llama 4 has 1 and 1: nothing lies between the two, so nothing is blended; nor where they are the wrong way round.
    smooth = (original / wavelength - low) / (high - low if high != low else 1.0)
    between = (1 - smooth) * plain / factor + smooth * plain
    scaled = np.where(wavelength > original / low, plain / factor, plain)
    return np.where((wavelength >= original / high) & (wavelength <= original / low), between, scaled)


def _proportional(params: Mapping[str, Any], head: Head, base: float) -> Vector:
    share = params.get("partial_rotary_factor")
    num_rotated = int((1.0 if share is None else float(share)) * head.head_dim // 2)
    vector = geometric(base, head.head_dim)
    vector[num_rotated:] = 0.0
    return vector / (number(params, "factor") if params.get("factor") is not None else 1.0)


def number(params: Mapping[str, Any], key: str, *, above: float = 0.0) -> float:
    """The number under `key`. Raises `SourceError` where it is none or not above a bound."""
    value = params.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not above < value <= LARGEST:
        raise SourceError(f"{key} must be a number above {above:g} and at most {LARGEST:g}, got {value!r:.40}")
    return float(value)
