"""What stops stock transformers before it has built anything, told from a config alone.

Its config classes are strict dataclasses since 5: a count that is written 131072.0 is refused, not rounded. A scaling beside
`text_config` is handed to the outer class, which has no lengths to check it with. Both are common, since configs are edited
by hand and by other tools. Read in transformers 5.23 (`PreTrainedConfig.__post_init__`, `standardize_rope_params`,
`validate_rope`, `Phi3Config.convert_rope_params_to_dict`) and held against it by tests/engines/test_refusals.py.

Given up: fields that have nothing to do with positions, but for the two counts that every config has.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from ropewalk.core.geometry import Finding
from ropewalk.engines.transformers.families import FAMILIES, enter, name_of

NOT_LOADED = "stock transformers does not load this config"
"""How the problem of every such finding begins: `is_refusal` knows it by that."""
FIX = "as --fix does"
COUNTS = (
    "max_position_embeddings", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_size", "head_dim",
    "sliding_window", "qk_rope_head_dim", "qk_nope_head_dim", "vocab_size",
)  # fmt: skip
"""Fields that config classes declare as whole numbers."""
UNDECLARED = {
    "jetmoe": ("num_attention_heads",),
    "gpt_neox": ("num_key_value_heads",),
    "gpt_neox_japanese": ("num_key_value_heads",),
    "modernbert-decoder": ("num_key_value_heads",),
    "persimmon": ("num_key_value_heads",),
}
"""Counts that a family's class does not have, so that it takes anything."""
STRETCHES: dict[str, tuple[str, ...]] = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor", "original_max_position_embeddings"),
    "longrope": ("short_factor", "long_factor", "original_max_position_embeddings"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings", "rope_theta"),
}
"""Types that stretch, and the fields that the outer class of a nested config asks of them."""
ORIGINAL = "original_max_position_embeddings"


def refusals(config: Mapping[str, Any]) -> list[Finding]:
    """Why stock transformers would not load a config of a known family; empty where it would."""
    model_type, text, nested = enter(config)
    found = [_count_finding(name, value) for name, value in _wrong_counts(model_type, text)]
    found += _old_type(model_type, text)
    if nested:
        found += [finding for finding in _outer(config) if is_refusal(finding)]
    return found


def unread(config: Mapping[str, Any]) -> list[Finding]:
    """A scaling that stock transformers loads and does not look at: beside `text_config` where it belongs inside."""
    nested = enter(config)[2]
    return [finding for finding in _outer(config) if not is_refusal(finding)] if nested else []


def is_refusal(finding: Finding) -> bool:
    """Whether a finding says that the config is not loaded."""
    return finding.problem.startswith(NOT_LOADED)


def whole_numbers(config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A config whose counts are whole numbers where they were written as 131072.0, and what was changed."""
    new: dict[str, Any] = copy.deepcopy(dict(config))
    model_type, text, nested = enter(config)
    place = new["text_config"] if nested and isinstance(new.get("text_config"), dict) else new
    changes = []
    for name, value in _wrong_counts(model_type, text):
        if isinstance(value, float) and value.is_integer():
            place[name] = int(value)
            changes.append(f"{name} is the whole number {int(value)}, was {value}")
    return new, changes


def _wrong_counts(model_type: str, text: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    skipped = {*UNDECLARED.get(model_type, ()), *(("sliding_window",) if FAMILIES[model_type].window == "none" else ())}
    for key in COUNTS:
        name = name_of(model_type, key)
        value = text.get(name)
        if key not in skipped and isinstance(value, bool | float | str):
            yield name, value


def _count_finding(name: str, value: Any) -> Finding:
    mendable = isinstance(value, float) and value.is_integer()
    return Finding(
        field=name,
        severity="error",
        problem=f"{NOT_LOADED}: {name} is {value!r:.40}, and its config class takes whole numbers only",
        mend=f"write {int(value)}, {FIX}" if mendable else "write a whole number",
    )


def _old_type(model_type: str, text: Mapping[str, Any]) -> Iterator[Finding]:
    """Phi-3's `su`: the class renames it to longrope after the original length would have been filled in."""
    section = text.get("rope_scaling") or text.get("rope_parameters")
    if ("su", "longrope") not in FAMILIES[model_type].renamed_types or not isinstance(section, Mapping):
        return
    if section.get("rope_type", section.get("type")) == "su" and section.get(ORIGINAL) is None:
        yield Finding(
            field="type",
            severity="error",
            problem=f"{NOT_LOADED}: the old type 'su' becomes longrope too late for {ORIGINAL} to be filled in",
            mend=f"write rope_type longrope, {FIX}",
        )


def _outer(config: Mapping[str, Any]) -> Iterator[Finding]:
    """A scaling at the top level of a config whose text part is nested."""
    text = config.get("text_config")
    for key in ("rope_scaling", "rope_parameters"):
        section = config.get(key)
        kind = section.get("rope_type", section.get("type")) if isinstance(section, Mapping) else None
        if not isinstance(section, Mapping) or kind not in STRETCHES:
            continue
        missing = [name for name in STRETCHES[str(kind)] if name not in section]
        if kind not in ("linear", "dynamic") and config.get("max_position_embeddings") is None:
            missing.append("max_position_embeddings")
        inner = text.get(key) if isinstance(text, Mapping) else None
        if not missing and inner == section:
            continue
        beside = f"{key} of type {kind} stands beside text_config, where"
        yield Finding(
            field=key,
            severity="error",
            problem=f"{NOT_LOADED}: its {beside} it lacks {missing[0]} and would not be read anyway"
            if missing
            else f"{beside} transformers does not read it, so the model is not stretched by it",
            mend=f"move {key} into text_config, or remove it",
        )
