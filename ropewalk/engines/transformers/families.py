"""Which model families are read, and in what they differ from Llama.

One row for each `model_type` whose modeling code in transformers 5.23 was read: how a head's dimensions pair up, which
layers share a frequency vector, which look through a window, where the softmax scale comes from. Everything else -
frequencies, precedence of spellings - is common. A family that is not here is refused by name rather than taken for a Llama:
a wrong layout or a missed temperature gives a model that runs and is wrong.

Given up: guessing from key names. A new family costs one row and one line in the tests.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ropewalk.core.errors import UnsupportedError, near
from ropewalk.engines.transformers.defaults import DEFAULTS


@dataclass(frozen=True, kw_only=True)
class Family:
    """In what a family differs from Llama, which is all defaults."""

    layout: Literal["half", "interleaved"] = "half"
    """How rotated dimensions pair up; `interleave_key` can overrule it."""
    interleave_key: str | None = None
    """A config field that says whether the layout is interleaved."""
    partial: bool = False
    """Whether the family can rotate a part of each head. Where it cannot, stock code breaks on partial_rotary_factor."""
    base_key: str = "rope_theta"
    """The top-level field of the base in the old spelling."""
    partial_key: str = "partial_rotary_factor"
    """The top-level field of the rotated share in the old spelling."""
    typed: bool = False
    """Whether full and sliding-window layers have a vector each (`rope_parameters` nested by layer type)."""
    local_base_key: str | None = None
    """Old spelling: the top-level field of the base of the sliding-window layers, where `typed`."""
    window: Literal["none", "all", "by-type"] = "none"
    """Which layers `sliding_window` is for."""
    window_switch: bool = False
    """Whether `sliding_window` counts only with `use_sliding_window`."""
    position_free: bool = False
    """Whether `no_rope_layers` (1 = rotated) names layers without positions."""
    chunked: bool = False
    """Whether rotated layers attend inside chunks of `attention_chunk_size` tokens."""
    recurrent: str | None = None
    """The layer type that is recurrent and has no positions."""
    mrope: bool = False
    """Multimodal positions, equal to plain ones on text."""
    mla: bool = False
    """Multi-head latent attention: `qk_rope_head_dim` of `qk_nope_head_dim + qk_rope_head_dim` are rotated, and
    `mscale_all_dim` multiplies the whole q.k."""
    scale_key: Literal["", "query_pre_attn_scalar", "attention_multiplier"] = ""
    """The field the softmax scale is made from, where it is not head_dim**-0.5."""
    rope_types: tuple[str, ...] = ()
    """The types its config class admits, if not all."""
    renamed_types: tuple[tuple[str, str], ...] = ()
    """Types that its config class reads as another one."""
    own_original_length: bool = False
    """Whether the config class has a top-level `original_max_position_embeddings`, which then always wins."""
    needs_head_dim: bool = False
    """Whether the config class leaves `head_dim` null, on which the stock code of some types breaks."""
    temperature_tuning: bool = False
    """Whether `attn_temperature_tuning` makes the logit scale depend on the position."""


_WINDOW_BY_TYPE = Family(window="by-type")
_QWEN = Family(window="by-type", window_switch=True)

FAMILIES: dict[str, Family] = {
    "llama": Family(),
    "mistral": Family(window="all"),
    "mixtral": Family(window="all", needs_head_dim=True),
    "qwen2": _QWEN,
    "qwen2_moe": _QWEN,
    "qwen3": _QWEN,
    "qwen3_moe": Family(window="all", window_switch=True),
    "gpt_neox": Family(partial=True, base_key="rotary_emb_base", partial_key="rotary_pct"),
    "phi": Family(partial=True),
    "phi3": Family(
        partial=True,
        window="all",
        rope_types=("default", "longrope"),
        renamed_types=(("su", "longrope"), ("yarn", "longrope")),
        own_original_length=True,
    ),
    "stablelm": Family(partial=True),
    "starcoder2": Family(window="all"),
    "olmo": Family(),
    "olmo2": Family(),
    "olmo3": Family(typed=True, window="by-type"),
    "gemma": Family(),
    "gemma2": Family(window="by-type", scale_key="query_pre_attn_scalar"),
    "gemma3_text": Family(
        typed=True, window="by-type", local_base_key="rope_local_base_freq", scale_key="query_pre_attn_scalar"
    ),
    "granite": Family(scale_key="attention_multiplier"),
    "gpt_oss": _WINDOW_BY_TYPE,
    "smollm3": Family(window="by-type", window_switch=True, position_free=True),
    "llama4_text": Family(layout="interleaved", position_free=True, chunked=True, temperature_tuning=True),
    "deepseek_v2": Family(layout="interleaved", mla=True),
    "deepseek_v3": Family(layout="interleaved", interleave_key="rope_interleave", mla=True),
    "qwen3_5_text": Family(partial=True, mrope=True, recurrent="linear_attention"),
}

COMPOSITE = {"gemma3": "gemma3_text", "llama4": "llama4_text", "qwen3_5": "qwen3_5_text"}
"""Families with a `text_config`, and the model type it has when it does not say."""

REFUSED = {
    "bloom": "ALiBi slopes",
    "mpt": "ALiBi slopes",
    "gpt2": "a learned position table",
    "opt": "a learned position table",
    "gpt_neo": "a learned position table",
    "gpt_bigcode": "a learned position table",
    "bert": "a learned position table",
    "roberta": "a learned position table",
    "t5": "relative position buckets",
    "mt5": "relative position buckets",
    "umt5": "relative position buckets",
    "mamba": "no positions at all",
    "mamba2": "no positions at all",
}
"""Known families whose positions are not rotated, and what they have instead."""


def enter(config: Mapping[str, Any]) -> tuple[str, Mapping[str, Any], bool]:
    """The text part of a config: its model type, its fields, and whether it lies nested in `text_config`.

    Raises `UnsupportedError` for a family that is not known, by name, and for configs without a model type.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise UnsupportedError("config.json has no model_type, so the family is unknown; add the field")
    nested = config.get("text_config")
    if model_type in COMPOSITE or (model_type not in FAMILIES and isinstance(nested, Mapping)):
        text = nested if isinstance(nested, Mapping) else {}
        inner = text.get("model_type", COMPOSITE.get(model_type))
        if inner in FAMILIES:
            return inner, text, True
    if model_type in FAMILIES:
        return model_type, config, False
    raise _refusal(model_type, config)


def _refusal(model_type: str, config: Mapping[str, Any]) -> UnsupportedError:
    if model_type in REFUSED:
        return UnsupportedError(
            f"{model_type} has {REFUSED[model_type]} instead of rotary positions, which ropewalk does not extend yet"
        )
    if model_type == "falcon" and config.get("alibi"):
        return UnsupportedError(
            "this falcon has ALiBi slopes instead of rotary positions, which ropewalk does not extend yet"
        )
    known = sorted(set(FAMILIES) | set(COMPOSITE))
    return UnsupportedError(f"model_type {model_type!r} is not a family that ropewalk reads yet; {near(model_type, known)}")


def default(model_type: str, key: str) -> Any:
    """What the config class of `model_type` fills in for a field that a config.json leaves out, or None."""
    return DEFAULTS[model_type].get(key)


def layer_types(model_type: str, text: Mapping[str, Any], num_layers: int, window: int | None) -> list[str]:
    """The layer types that the config class derives where a config.json does not list them, [num_layers]."""
    layers = range(num_layers)
    if model_type in ("qwen2", "qwen3"):
        first = _given(text, "max_window_layers", default(model_type, "max_window_layers"))
        return ["sliding_attention" if window is not None and i >= first else "full_attention" for i in layers]
    if model_type == "qwen2_moe":
        last = _given(text, "max_window_layers", default(model_type, "max_window_layers"))
        return ["sliding_attention" if window is not None and i % 2 == 0 and i < last else "full_attention" for i in layers]
    if model_type == "qwen3_5_text":
        every = _given(text, "full_attention_interval", 4)
        return ["full_attention" if (i + 1) % every == 0 else "linear_attention" for i in layers]
    if FAMILIES[model_type].chunked:
        rotated = rotated_layers(model_type, text, num_layers)
        return ["chunked_attention" if rotated[i] else "full_attention" for i in layers]
    if model_type == "smollm3" and window is not None:
        rotated = rotated_layers(model_type, text, num_layers)
        return ["full_attention" if rotated[i] else "sliding_attention" for i in layers]
    period = {"gemma2": 2, "gpt_oss": 2, "olmo3": 4, "gemma3_text": _given(text, "sliding_window_pattern", 6)}
    every = period.get(model_type, 1)
    return ["full_attention" if (i + 1) % every == 0 else "sliding_attention" for i in layers]


def rotated_layers(model_type: str, text: Mapping[str, Any], num_layers: int) -> list[bool]:
    """Which layers rotate queries and keys, [num_layers]; all of them in most families."""
    if not FAMILIES[model_type].position_free:
        return [True] * num_layers
    flags = text.get("no_rope_layers")
    # Llama 4 takes an empty list for "not given"; SmolLM3 would take it at its word and fail.
    if flags:
        return [bool(flag) for flag in flags]
    every = _given(text, "no_rope_layer_interval", default(model_type, "no_rope_layer_interval"))
    return [(i + 1) % every != 0 for i in range(num_layers)]


def _given(text: Mapping[str, Any], key: str, fallback: Any) -> Any:
    value = text.get(key)
    return fallback if value is None else value
