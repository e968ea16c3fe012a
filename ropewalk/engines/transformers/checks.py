"""Whether the fields that positions are read from hold what they may hold, before anything is computed with them.

A config comes from anywhere. What is wrong with one of these fields is said once, here, with its name; the readers below may
then compute without looking at types again. A field that nothing reads is nobody's business and passes.
"""

from collections.abc import Mapping
from typing import Any

from ropewalk.core.errors import SourceError

LARGEST = 1e18
"""No base, factor or length of a real model comes near; beyond it float64 overflows in the powers that methods take."""
SMALLEST = 1e-18
POSITIVE = (
    "rope_theta", "rotary_emb_base", "rope_local_base_freq", "global_rope_theta", "local_rope_theta", "beta_fast",
    "beta_slow", "attention_multiplier",
)  # fmt: skip
LENGTHS = ("original_max_position_embeddings",)
"""Tokens; some write them as 8192.0."""
SHARES = ("partial_rotary_factor", "rotary_pct")
NOT_NEGATIVE = ("mscale", "mscale_all_dim", "max_window_layers")
STEPS = (
    "full_attention_interval", "sliding_window_pattern", "no_rope_layer_interval", "attention_chunk_size",
    "layer_group_size", "global_attn_every_n_layers", "num_experts_per_tok", "rotary_dim",
)  # fmt: skip
"""Every n-th layer, or n tokens: whole numbers from 1."""
TEXTS = ("rope_type", "type")
LISTS = ("no_rope_layers", "mrope_section", "attn_layer_indices", "full_attn_idxs", "cross_attention_layers")
"""Lists of whole numbers or truth values."""
SECTIONS = ("rope_parameters", "rope_scaling", "full_attention", "sliding_attention")
"""Objects that hold such fields themselves."""


def check_nested(config: Mapping[str, Any]) -> None:
    """Raises `SourceError` for a text part that is no object; null counts as left out."""
    nested = config.get("text_config")
    if nested is not None and not isinstance(nested, Mapping):
        raise SourceError(f"config.json has text_config = {nested!r:.40}, expected an object with the text part's fields")


def check_fields(text: Mapping[str, Any], where: str = "config.json") -> None:
    """Raises `SourceError` at the first field of a config's text part, sections included, that cannot be meant.

    A field that is null counts as left out, as it does for transformers.
    """
    for key, value in text.items():
        if value is None:
            continue
        if key in SECTIONS and isinstance(value, Mapping):
            check_fields(value, key)
        if key == "sliding_window_pattern" and isinstance(value, str) and text.get("layer_types"):
            # EXAONE 4 spells its pattern in letters, which nobody reads where the layers are listed.
            continue
        if where != "config.json" and _vanishes(value):
            raise SourceError(f"{where} has {key} = {value!r:.40}, expected no number between 0 and {SMALLEST:g}")
        expected = _expected(key)
        if expected is not None and not _is(key, value):
            raise SourceError(f"{where} has {key} = {value!r:.40}, expected {expected}")


def _vanishes(value: Any) -> bool:
    """Whether a rope field is so small that what is divided by it overflows."""
    values = value if isinstance(value, list) else [value]
    return any(isinstance(item, float) and 0.0 < abs(item) < SMALLEST for item in values)


def _expected(key: str) -> str | None:
    if key in POSITIVE:
        return f"a number above 0 and at most {LARGEST:g}"
    if key in LENGTHS:
        return f"a number of tokens from 1 to {LARGEST:g}"
    if key in SHARES:
        return "a share above 0 and at most 1"
    if key in NOT_NEGATIVE:
        return f"a number from 0 to {LARGEST:g}"
    if key in STEPS:
        return "a whole number from 1"
    if key in TEXTS:
        return "a text"
    return "a list of whole numbers" if key in LISTS else None


def _is(key: str, value: Any) -> bool:
    if key in TEXTS:
        return isinstance(value, str)
    if key in LISTS:
        return isinstance(value, list) and all(isinstance(item, int) for item in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # NaN is in no interval.
    if key in STEPS:
        # EXAONE 4 saves a pattern of 0 where it has no window.
        return isinstance(value, int) and (1 <= value <= LARGEST or (value == 0 and key == "sliding_window_pattern"))
    if key in LENGTHS:
        return 1 <= value <= LARGEST
    if key in SHARES:
        return 0 < value <= 1
    # YaRN's betas may be 0, which transformers takes for "not given".
    may_be_zero = key in NOT_NEGATIVE or key.startswith("beta_")
    return SMALLEST <= value <= LARGEST or (may_be_zero and value == 0)
