"""The metadata that llama.cpp's stock converter writes for a transformers config, and what of the config it leaves out.

Read in `convert_hf_to_gguf.py` and its `conversion/` at commit 0c1e57098 (October 2026). It loads the config through
transformers first, so rope parameters reach it in one spelling, ours. What it loses, it loses without a word: `truncate`,
`mscale` and a factor of null everywhere, the attention factor into a key that YaRN never reads, `dynamic` altogether,
LongRoPE's lists for all but Phi-3, Llama 3's wavelengths for all but the Llamas - and for five families every rope key, the
base included.

Given up: converters of families that ropewalk does not read, and Mistral's own `params.json`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ropewalk.core.geometry import Group, Vector, geometric
from ropewalk.engines.llamacpp.reading import DIVISORS, LONG, SHORT
from ropewalk.engines.transformers.checks import LARGEST
from ropewalk.engines.transformers.families import default
from ropewalk.engines.transformers.formulas import number
from ropewalk.engines.transformers.reading import Shape
from ropewalk.engines.transformers.spellings import FULL, SLIDING, Parameters

WITHOUT_ROPE = ("gemma", "gemma2", "gptneox", "phi2", "stablelm")
"""Architectures whose converter writes no rope key but the number of rotated dimensions."""
LLAMAS = ("llama", "granite", "smollm3", "llama4")
"""Architectures whose converter makes divisors of Llama 3's parameters."""
NAMED_DIVISORS = ("llama", "smollm3", "llama4")
"""Those of them for which the converter's own tables have a name for the tensor; for the others it stops."""


class Refused(Exception):  # noqa: N818 - it is caught inside this engine and becomes a field
    """The converter or the loader stops; the text says where."""


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What the converter writes of positions."""

    metadata: dict[str, Any]
    factors: dict[str, Vector]
    ignored: tuple[str, ...]
    """Fields that carry meaning and are lost, in the converter or behind it."""
    notes: tuple[str, ...]


def as_converted(architecture: str, shape: Shape, params: Parameters, groups: Sequence[Group]) -> Converted:
    """The positions in the GGUF file that the converter would write. Raises `Refused` where it would stop."""
    values = params.of(FULL)
    rotary_dim = next((group.rotary_dim for group in groups if group.rotated), 0)
    keys: dict[str, Any] = {
        "context_length": shape.declared,
        "block_count": shape.num_layers,
        "rope.dimension_count": rotary_dim,
    }
    factors: dict[str, Vector] = {}
    if architecture == "phi3":
        _phi3(keys, factors, values, shape, rotary_dim)
    elif architecture not in WITHOUT_ROPE:
        _scaling(keys, values)
        keys["rope.freq_base"] = _single(number(values, "rope_theta"))
        if architecture in LLAMAS and values["rope_type"] == "llama3":
            _llama3(architecture, factors, values, rotary_dim)
    _layers(architecture, keys, shape, params)
    if architecture == "deepseek2" and values.get("mscale_all_dim") is not None:
        keys["rope.scaling.yarn_log_multiplier"] = _single(0.1 * float(values["mscale_all_dim"]))
    return Converted(
        metadata={"general.architecture": architecture, **{f"{architecture}.{k}": v for k, v in keys.items()}},
        factors=factors,
        ignored=tuple(dict.fromkeys(_lost(architecture, values, params))),
        notes=tuple(_notes(architecture, values, shape, params)),
    )


def _scaling(keys: dict[str, Any], values: Mapping[str, Any]) -> None:
    kind, factor = values["rope_type"], values.get("factor")
    if kind in ("linear", "yarn") and factor is not None:
        keys["rope.scaling.type"] = kind
        keys["rope.scaling.factor"] = _single(number(values, "factor"))
    if kind == "yarn" and factor is not None:
        keys["rope.scaling.original_context_length"] = _length(values)
        for name, key in (("beta_fast", "yarn_beta_fast"), ("beta_slow", "yarn_beta_slow")):
            if values.get(name) is not None:
                keys[f"rope.scaling.{key}"] = _single(float(values[name]))
    if kind == "longrope":
        keys["rope.scaling.type"] = "longrope"


def _length(values: Mapping[str, Any]) -> int:
    return int(number(values, "original_max_position_embeddings"))


def _phi3(
    keys: dict[str, Any], factors: dict[str, Vector], values: Mapping[str, Any], shape: Shape, rotary_dim: int
) -> None:  # fmt: skip
    """Phi-3 has a converter of its own: no type, no factor, and the temperature made anew from the two lengths."""
    # The config class has the field at the top level, with a default.
    key = "original_max_position_embeddings"
    top = shape.text.get(key, default(shape.model_type, key))
    original = _length({key: values.get(key) or top})
    keys["rope.scaling.original_context_length"] = original
    keys["rope.freq_base"] = _single(number(values, "rope_theta"))
    long, short = values.get("long_factor"), values.get("short_factor")
    if not long:
        return
    if (
        not isinstance(long, list)
        or not isinstance(short, list)
        or not len(long) == len(short) == rotary_dim // 2
        or not all(type(x) in (int, float) and abs(x) <= LARGEST for x in (*long, *short))
    ):
        raise Refused(f"the converter stops: long and short factors of phi3 must have {rotary_dim // 2} numbers each")
    scale = shape.declared / original
    attention = math.sqrt(1.0 + math.log(scale) / math.log(original)) if scale > 1.0 else 1.0
    keys["rope.scaling.attn_factor"] = _single(attention)
    factors[LONG], factors[SHORT] = (np.asarray(np.asarray(x, dtype=np.float32), dtype=np.float64) for x in (long, short))


def _llama3(architecture: str, factors: dict[str, Vector], values: Mapping[str, Any], rotary_dim: int) -> None:
    if architecture not in NAMED_DIVISORS:
        raise Refused(f"the converter stops: it has no name for {DIVISORS} of {architecture}, which llama3 scaling needs")
    factor, original = number(values, "factor"), _length(values)
    low, high = number(values, "low_freq_factor"), number(values, "high_freq_factor")
    turns = geometric(number(values, "rope_theta"), rotary_dim) / (2.0 * math.pi) * original
    # Llama 4 has 1 and 1: nothing lies between the two, so nothing is blended.
    smooth = (turns - low) / (high - low if high != low else 1.0)
    blended = 1.0 / ((1.0 - smooth) / factor + smooth)
    divisors = np.where(turns > high, 1.0, np.where(turns < low, factor, blended))
    factors[DIVISORS] = np.asarray(np.float32(divisors), dtype=np.float64)


def _layers(architecture: str, keys: dict[str, Any], shape: Shape, params: Parameters) -> None:
    """Which layers have a window, and their base."""
    if architecture in ("gemma2", "gemma3", "gpt-oss", "olmo2") and shape.window is not None:
        keys["attention.sliding_window"] = shape.window
    if architecture == "olmo2" and shape.window is not None:
        keys["attention.sliding_window_pattern"] = [kind == SLIDING for kind in shape.types]
    if SLIDING in params.by_type and architecture not in WITHOUT_ROPE:
        keys["rope.freq_base_swa"] = _single(number(params.of(SLIDING), "rope_theta"))
    if architecture == "qwen35":
        full = [layer for layer, kind in enumerate(shape.types) if kind == FULL]
        keys["full_attention_interval"] = full[0] + 1 if full else shape.num_layers + 1


def _lost(architecture: str, values: Mapping[str, Any], params: Parameters) -> Iterable[str]:
    """Fields that say something and change nothing in llama.cpp."""
    kind = values["rope_type"]
    if architecture in WITHOUT_ROPE:
        yield from (key for key in values if key != "partial_rotary_factor" and not _usual(key, values))
        return
    if kind in ("dynamic", "proportional") or (kind in ("linear", "yarn") and values.get("factor") is None):
        yield from ("rope_type", "factor")
    if kind == "llama3" and architecture not in LLAMAS:
        yield from ("rope_type", "factor")
    if kind == "longrope":
        lists = () if architecture == "phi3" else ("short_factor", "long_factor")
        yield from (key for key in (*lists, "attention_factor", "factor") if values.get(key) is not None)
    if kind == "yarn":
        yield from (key for key in ("attention_factor", "attn_factor", "mscale") if values.get(key) is not None)
        if values.get("mscale_all_dim") is not None and architecture != "deepseek2":
            yield "mscale_all_dim"
        yield from (key for key, usual in (("beta_fast", 32), ("beta_slow", 1)) if values.get(key) not in (None, usual))
        if not params.truncate:
            yield "truncate"


def _usual(key: str, values: Mapping[str, Any]) -> bool:
    return values[key] is None or (key, values[key]) in (("rope_type", "default"), ("rope_theta", 10000.0))


def _notes(architecture: str, values: Mapping[str, Any], shape: Shape, params: Parameters) -> Iterable[str]:
    if architecture in WITHOUT_ROPE:
        yield f"the stock converter writes no rope scaling and no base for {shape.model_type}: llama.cpp takes 10000"
    if architecture == "llama4":
        yield "llama.cpp lets the temperature of layers without positions grow with the position, whatever the config says"
    if values["rope_type"] == "dynamic":
        yield "the stock converter drops dynamic scaling, so the file is unscaled"
    if values["rope_type"] == "longrope" and architecture != "phi3":
        yield "the stock converter writes the word longrope and none of its factors, so the file is unscaled"
    if architecture == "olmo2" and SLIDING in params.by_type:
        full, sliding = params.of(FULL).get("rope_theta"), params.of(SLIDING).get("rope_theta")
        if full != sliding:
            yield f"windowed layers turn by the base {full} of the others, not by their own {sliding}"


def _single(value: float) -> float:
    """What a float32 keeps of a number."""
    return float(np.float32(value))
