"""The ways in which transformers' words can say one group's numbers, the most readable first.

The method's native name; another base; `linear`; `proportional` with another base and a factor, for vectors that end in
zeros; a divisor for each dimension (`longrope` with both lists equal), which says any vector without zeros with any factor
on cos and sin. Behind them, for engines that read the first ones otherwise: a base rounded to a whole number, where that
moves nothing (SGLang cuts the bases of some families), and `llama3` with every wavelength in its slow band, which divides
all frequencies alike as `linear` does (arXiv:2306.15595) but lets the length be declared as it is and reaches GGUF files.

Nothing is checked here: `spelling` takes a candidate only if stock formulas give the plan's words. Given up: mixtures that
no engine needs, such as YaRN with a ramp that is nowhere.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ropewalk.core.geometry import geometric
from ropewalk.core.plan import Frequencies, Native
from ropewalk.engines.transformers import formulas
from ropewalk.engines.transformers.reading import Shape

ORIGINAL = "original_max_position_embeddings"
WHOLE = 5e-7
"""How far a base may be from a whole number to be written as one: half of what `exact` allows, float32 takes its part."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """One group's numbers, and what may be said of them."""

    word: Frequencies
    """At the plan's length."""
    short: Frequencies
    """Up to `switch`; the same as `word` for a static plan."""
    switch: int
    """Tokens up to which `short` holds; the plan's length for a static plan."""
    shape: Shape
    base: float
    """The base of the state that the plan departs from."""
    kept: dict[str, Any]
    factor: float
    """The plan's stretch, for fields that want one: at least 1."""
    length: int
    original_length: int
    """Of the state that the plan departs from."""
    native: Native | None

    @property
    def switched(self) -> bool:
        """Whether the numbers change at `switch`."""
        return self.short != self.word


def candidates(target: Target) -> Iterator[dict[str, Any]]:
    """Ways of writing a group's numbers, the most readable first."""
    first = []
    if target.native is not None and target.native.name != "longrope":
        first.append(_native(target, target.native))
    if not target.switched:
        first += [*_other_base(target), *_linear(target), *_proportional(target)]
    yield from first
    yield from _divisors(target)
    for candidate in first:
        yield from _whole_base(candidate)
        yield from _divided_alike(candidate, target)


def _native(target: Target, native: Native) -> dict[str, Any]:
    """The method's claim in foreign words. Temperatures are taken from the plan, whatever the claim says."""
    options = {key: value for key, value in native.options.items() if key not in ("attention_factor", "logit_scale")}
    base = float(options.pop("base", target.base))
    if "original_length" in options:
        options[ORIGINAL] = int(options.pop("original_length"))
    params = {"rope_type": native.name, "rope_theta": base, **target.kept, **_floats(options)}
    if native.name == "yarn":
        params.update(_yarn_temperature(target))
        if params.get("truncate") is True:
            del params["truncate"]
    return params


def _yarn_temperature(target: Target) -> dict[str, float]:
    """The fields that make YaRN's factor on cos and sin, and under MLA its scale of q.k, what the plan says.

    Under MLA the `mscale` pair says both, as DeepSeek writes it. Elsewhere `attention_factor` is for transformers and
    newer vLLM, and `attn_factor`, a multiple of YaRN's own, for SGLang and older vLLM.
    """
    word, usual = target.word, formulas.temperature(target.factor)
    if target.shape.family.mla and word.logit_scale != 1.0 and target.factor > 1.0:
        strength = 0.1 * math.log(target.factor)
        both = (math.sqrt(word.logit_scale) - 1.0) / strength
        rotated = (word.attention_factor * math.sqrt(word.logit_scale) - 1.0) / strength
        if rotated != 0.0:
            return {"mscale": rotated, "mscale_all_dim": both}
        return {"attention_factor": word.attention_factor, "mscale_all_dim": both}
    if math.isclose(word.attention_factor, usual, rel_tol=1e-9):
        return {}
    return {"attention_factor": word.attention_factor, "attn_factor": word.attention_factor / usual}


def _other_base(target: Target) -> Iterator[dict[str, Any]]:
    word = target.word
    if word.attention_factor != 1.0 or word.logit_scale != 1.0 or np.any(word.inv_freq <= 0.0):
        return
    count = word.inv_freq.size
    base = target.base if count == 1 else float(word.inv_freq[-1] ** (-count / (count - 1)))
    # Rounded to 12 digits, so that a base of 500000 is found again as that number.
    yield {"rope_type": "default", "rope_theta": float(f"{base:.12g}"), **target.kept}


def _linear(target: Target) -> Iterator[dict[str, Any]]:
    word = target.word
    if word.attention_factor != 1.0 or word.logit_scale != 1.0 or word.inv_freq[0] <= 0.0:
        return
    factor = float(1.0 / word.inv_freq[0])
    if factor >= 1.0:
        yield {"rope_type": "linear", "factor": factor, "rope_theta": target.base, **target.kept}


def _whole_base(candidate: dict[str, Any]) -> Iterator[dict[str, Any]]:
    base = candidate["rope_theta"]
    if candidate["rope_type"] == "default" and 0.0 < abs(base - round(base)) <= WHOLE * base:
        yield {**candidate, "rope_theta": float(round(base))}


def _divided_alike(candidate: dict[str, Any], target: Target) -> Iterator[dict[str, Any]]:
    """`linear` in the words of Llama 3.1: no wavelength is below 2 pi tokens, and its slow band begins at 1."""
    if candidate["rope_type"] == "linear":
        slow = float(target.original_length)
        bands = {"low_freq_factor": slow, "high_freq_factor": 2.0 * slow, ORIGINAL: target.original_length}
        yield {**candidate, "rope_type": "llama3", **bands}


def _proportional(target: Target) -> Iterator[dict[str, Any]]:
    """A geometric vector that ends in zeros, under any base and any factor: Gemma 4's type."""
    word = target.word
    turning = word.inv_freq[word.inv_freq > 0.0]
    if word.attention_factor != 1.0 or word.logit_scale != 1.0 or turning.size in (0, word.inv_freq.size):
        return
    base, factor = target.base, float(1.0 / turning[0])
    if turning.size > 1:
        base = float((turning[-1] * factor) ** (-word.inv_freq.size / (turning.size - 1)))
    params = {"rope_type": "proportional", "rope_theta": float(f"{base:.12g}"), **target.kept}
    yield params if factor == 1.0 else {**params, "factor": factor}


def _divisors(target: Target) -> Iterator[dict[str, Any]]:
    """`longrope`: any vector without zeros, any factor on cos and sin; one regime where both lists are the same."""
    word, short = target.word, target.short
    if np.any(word.inv_freq <= 0.0) or np.any(short.inv_freq <= 0.0):
        return
    plain = geometric(target.base, 2 * word.inv_freq.size)
    with np.errstate(over="ignore"):
        lists = {"short_factor": plain / short.inv_freq, "long_factor": plain / word.inv_freq}
    if not all(np.all(np.isfinite(divisors)) for divisors in lists.values()):
        return
    params: dict[str, Any] = {
        "rope_type": "longrope",
        "rope_theta": target.base,
        **target.kept,
        "factor": target.factor,
        **{key: [float(x) for x in divisors] for key, divisors in lists.items()},
        "attention_factor": word.attention_factor,
        "short_mscale": word.attention_factor,
        "long_mscale": word.attention_factor,
        ORIGINAL: target.switch,
    }
    if target.shape.family.mla and word.logit_scale != 1.0:
        # Only the logarithm of this factor counts, since the attention factor is spelled out.
        factor = target.factor if target.factor > 1.0 else 2.0
        params["factor"] = factor
        params["mscale_all_dim"] = (math.sqrt(word.logit_scale) - 1.0) / (0.1 * math.log(factor))
    yield params


def _floats(options: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers as floats, but for lengths: an engine takes 4 for something else than 4.0."""
    return {
        key: float(value) if isinstance(value, int) and not isinstance(value, bool) and key != ORIGINAL else value
        for key, value in options.items()
    }
