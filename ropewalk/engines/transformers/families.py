"""Which family a config is of, and what its config class derives where a config.json says nothing.

The rows themselves are in `families_table`. A family that is not there is refused by name rather than taken for a Llama:
a wrong layout or a missed temperature gives a model that runs and is wrong.
"""

from collections.abc import Mapping
from typing import Any

from ropewalk.core.errors import SourceError, UnsupportedError, near
from ropewalk.engines.transformers.defaults import DEFAULTS
from ropewalk.engines.transformers.families_table import COMPOSITE, FAMILIES, FLAT, NOT_YET, REFUSED, Family
from ropewalk.engines.transformers.others import KINDS

__all__ = [
    "COMPOSITE",
    "FAMILIES",
    "NOT_YET",
    "REFUSED",
    "Family",
    "default",
    "enter",
    "field",
    "layer_types",
    "name_of",
    "rotated_layers",
]


def enter(config: Mapping[str, Any]) -> tuple[str, Mapping[str, Any], bool]:
    """The text part of a config: its model type, its fields, and whether it lies nested in `text_config`.

    Raises `UnsupportedError` for a family that is not known, by name, and for configs without a model type.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise UnsupportedError("config.json has no model_type, so the family is unknown; add the field")
    nested = config.get("text_config")
    if model_type in FLAT and nested is None:
        return COMPOSITE[model_type], config, False
    if model_type in COMPOSITE or (model_type not in FAMILIES and isinstance(nested, Mapping)):
        text = nested if isinstance(nested, Mapping) else {}
        inner = text.get("model_type", COMPOSITE.get(model_type))
        if isinstance(inner, str) and inner in FAMILIES:
            return inner, text, True
    if model_type in FAMILIES and not config.get("alibi"):
        return model_type, config, False
    inner = nested.get("model_type") if isinstance(nested, Mapping) else None
    # What stops a whole model is its text part.
    named = isinstance(inner, str) and any(inner in table for table in (NOT_YET, REFUSED, KINDS))
    raise _refusal(str(inner) if named else model_type, config)


def _refusal(model_type: str, config: Mapping[str, Any]) -> UnsupportedError:
    if model_type in REFUSED:
        return UnsupportedError(
            f"{model_type} has {REFUSED[model_type]} instead of rotary positions, which ropewalk does not extend yet"
        )
    if model_type in NOT_YET:
        return UnsupportedError(f"{model_type} has {NOT_YET[model_type]}, which ropewalk does not read yet")
    if model_type in KINDS:
        return UnsupportedError(f"{model_type} is {KINDS[model_type]}; ropewalk reads causal text models")
    if config.get("alibi"):
        return UnsupportedError(
            f"this {model_type} has ALiBi slopes instead of rotary positions, which ropewalk does not extend yet"
        )
    known = sorted(set(FAMILIES) | set(COMPOSITE))
    return UnsupportedError(f"model_type {model_type!r} is not a family that ropewalk reads yet; {near(model_type, known)}")


def default(model_type: str, key: str) -> Any:
    """What the config class of `model_type` fills in for a field that a config.json leaves out, or None."""
    return DEFAULTS[model_type].get(key)


def name_of(model_type: str, key: str) -> str:
    """What the config class of `model_type` calls the field that we call `key`."""
    return dict(FAMILIES[model_type].names).get(key, key)


def field(model_type: str, text: Mapping[str, Any], key: str) -> Any:
    """A field of a config, or what its class fills in."""
    if model_type == "jetmoe" and key == "num_attention_heads":
        # Its class derives them; each expert brings its own.
        shared, experts = field(model_type, text, "num_key_value_heads"), _given(text, "num_experts_per_tok", 2)
        return shared * experts if isinstance(shared, int) else shared
    name = name_of(model_type, key)
    return text[name] if name in text else default(model_type, name)


PERIODS: dict[str, tuple[str, int, str, str]] = {
    "afmoe": ("global_attn_every_n_layers", 4, "full_attention", "sliding_attention"),
    "bailing_hybrid": ("layer_group_size", 6, "full_attention", "linear_attention"),
    "cohere2": ("sliding_window_pattern", 4, "full_attention", "sliding_attention"),
    "exaone4": ("sliding_window_pattern", 4, "full_attention", "sliding_attention"),
    "exaone_moe": ("sliding_window_pattern", 4, "full_attention", "sliding_attention"),
    "gemma2": ("", 2, "full_attention", "sliding_attention"),
    "gemma3_text": ("sliding_window_pattern", 6, "full_attention", "sliding_attention"),
    "gemma3n_text": ("", 5, "full_attention", "sliding_attention"),
    "gemma4_text": ("", 6, "full_attention", "sliding_attention"),
    "gemma4_unified_text": ("", 6, "full_attention", "sliding_attention"),
    "gpt_oss": ("", 2, "full_attention", "sliding_attention"),
    "kolibri1": ("", 5, "full_attention", "sliding_attention"),
    "minimax": ("", 2, "linear_attention", "full_attention"),
    "olmo3": ("", 4, "full_attention", "sliding_attention"),
    "qwen3_5_moe_text": ("full_attention_interval", 4, "full_attention", "linear_attention"),
    "qwen3_5_text": ("full_attention_interval", 4, "full_attention", "linear_attention"),
    "qwen3_next": ("full_attention_interval", 4, "full_attention", "linear_attention"),
    "vaultgemma": ("", 2, "full_attention", "sliding_attention"),
}
"""Families where every n-th layer is of one type and the others of another: the field that says n, n where nothing does, the
type of the n-th, the type of the others."""


CROSS_ATTENTION = (3, 8, 13, 18, 23, 28, 33, 38)
"""Layers of Llama 3.2 Vision that look at the image, where a config does not list them."""


def layer_types(model_type: str, text: Mapping[str, Any], num_layers: int, window: int | None) -> list[str]:
    """The layer types that the config class derives where a config.json does not list them, [num_layers]."""
    layers = range(num_layers)
    if model_type in PERIODS:
        key, every, nth, others = PERIODS[model_type]
        every = _given(text, key, every)
        if every < 1:
            raise SourceError(f"config.json has {key} = {every} without layer_types; list the type of each layer")
        return [nth if (i + 1) % every == 0 else others for i in layers]
    if model_type in ("qwen2", "qwen3", "qwen2_vl_text", "qwen2_5_vl_text", "dots1"):
        first = _given(text, "max_window_layers", default(model_type, "max_window_layers"))
        return ["sliding_attention" if window is not None and i >= first else "full_attention" for i in layers]
    if model_type == "qwen2_moe":
        last = _given(text, "max_window_layers", default(model_type, "max_window_layers"))
        return ["sliding_attention" if window is not None and i % 2 == 0 and i < last else "full_attention" for i in layers]
    if FAMILIES[model_type].chunked:
        rotated = rotated_layers(model_type, text, num_layers)
        return ["chunked_attention" if rotated[i] else "full_attention" for i in layers]
    if model_type == "smollm3" and window is not None:
        rotated = rotated_layers(model_type, text, num_layers)
        return ["full_attention" if rotated[i] else "sliding_attention" for i in layers]
    return [_type_of_layer(model_type, text, i, num_layers, window) for i in layers]


def _type_of_layer(model_type: str, text: Mapping[str, Any], i: int, num_layers: int, window: int | None) -> str:
    """Families whose order has a rule of its own."""
    if model_type in ("bamba", "lfm2"):
        key, other = ("attn_layer_indices", "linear_attention") if model_type == "bamba" else ("full_attn_idxs", "conv")
        listed = text.get(key)
        # LFM2 takes every layer for attention where nothing is listed, Bamba none.
        full = model_type == "lfm2" if listed is None else i in listed
        return "full_attention" if full else other
    if model_type == "granitemoehybrid":
        return "linear_attention"
    if model_type == "olmo_hybrid":
        last = num_layers < 4 and i == num_layers - 1
        return "full_attention" if i % 4 == 3 or last else "linear_attention"
    if model_type == "lfm3" and i % 4 != 2:
        return "sliding_attention" if i % 4 == 0 and i > 0 else "conv"
    rules = {
        "cwm": i % 4 == 0,
        "flint": i < 2 or i % 4 == 1 or i == num_layers - 1,
        "mimo_v2_flash": i == 0 or (i + 1) % 6 == 0,
        "ministral": window is None,
        "modernbert-decoder": i % _given(text, "global_attn_every_n_layers", 3) == 0,
    }
    return "full_attention" if rules.get(model_type, True) else "sliding_attention"


def rotated_layers(model_type: str, text: Mapping[str, Any], num_layers: int) -> list[bool]:
    """Which layers rotate queries and keys where no layer type says it, [num_layers]; all of them in most families."""
    if model_type == "granitemoehybrid":
        return [text.get("position_embedding_type") == "rope"] * num_layers
    if model_type == "olmo_hybrid":
        params = text.get("rope_parameters")
        # OLMo Hybrid takes a base of null for "no positions".
        nulled = isinstance(params, Mapping) and "rope_theta" in params and params["rope_theta"] is None
        return [not nulled] * num_layers
    if FAMILIES[model_type].cross_attention:
        crossing = _given(text, "cross_attention_layers", CROSS_ATTENTION)
        return [i not in crossing for i in range(num_layers)]
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
