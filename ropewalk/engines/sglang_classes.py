"""What SGLang's own config classes, and attention that looks past them, make of a config before `get_rope` is asked.

SGLang 0.5.23 has config classes of its own for families that transformers has too (`srt/configs`), written for the old
spelling. Since transformers 5 made `rope_scaling` another name of `rope_parameters`, what they keep hangs on the order of
their lines: those that call their parent last let the new spelling win, those that call it first lose it, and some attention
asks for a `rope_theta` that transformers' classes no longer have. Each rule here was run on SGLang's classes, one config for
each spelling (tests/golden/engines/sglang.json).

Given up: configs that name no rope parameters where SGLang's defaults are not transformers'.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ropewalk.core.errors import SourceError, UnsupportedError
from ropewalk.engines.tables import ORIGINAL, number, spelled
from ropewalk.engines.transformers.families import default
from ropewalk.engines.transformers.formulas import temperature
from ropewalk.engines.transformers.reading import Shape
from ropewalk.engines.transformers.spellings import FULL, SLIDING, WITH_ORIGINAL, Parameters

QWEN = ("qwen3_5_text", "qwen3_5_moe_text")
NEW_WINS = (*QWEN, "afmoe", "falcon_h1", "granitemoehybrid")
"""Classes that let `rope_parameters` win over `rope_scaling`, where transformers' classes let the old spelling win."""
NEW_LOST = {"qwen3_next": 10000.0, "longcat_flash": 10000000.0}
"""Classes that drop `rope_parameters`, and the base that they take where there is none at the top level."""
FIXED_BASE = {"exaone4": 1000000.0, "exaone_moe": 1000000.0}
"""Attention that asks the config for a `rope_theta` that transformers' class does not have, and takes this one always."""
GEMMA4 = ("gemma4_text", "gemma4_unified_text")
"""Attention that hands on a type, a base and a share, and none of the fields that a type needs."""
RAW = ("olmo3", "laguna", "mimo_v2_flash", *NEW_LOST)
"""Families whose parameters are as the config has them, with nothing filled in by transformers."""
MIMO_KEYS = (
    "hybrid_layer_pattern", "sliding_window_size", "swa_head_dim", "swa_num_attention_heads", "swa_num_key_value_heads",
)  # fmt: skip
"""Fields that attention of MiMo's windowed layers asks for."""
PLAIN = {"rope_type": "default"}
SCALING_KEYS = (
    "factor", ORIGINAL, "beta_fast", "beta_slow", "extrapolation_factor", "truncate", "low_freq_factor", "high_freq_factor",
    "mscale", "mscale_all_dim", "short_factor", "long_factor", "short_mscale", "long_mscale",
)  # fmt: skip
"""What SGLang's class for Laguna passes on."""


def seen(shape: Shape) -> Shape:
    """The fields of a config under SGLang's own config classes, where it has them."""
    text = shape.text
    if shape.model_type in NEW_WINS and text.get("rope_parameters"):
        return replace(shape, text={key: value for key, value in text.items() if key != "rope_scaling"})
    if shape.model_type == "deepseek_v32" and text.get("max_position_embeddings") is None:
        # It reads this family with DeepSeek V3's config class.
        return replace(shape, declared=default("deepseek_v3", "max_position_embeddings"))
    return shape


def parameters(shape: Shape, params: Parameters) -> Parameters:
    """The rope parameters that attention finds. Raises `SourceError` for what stops the class or the model."""
    kind = shape.model_type
    if kind == "olmo3":
        return _olmo3(shape)
    if kind == "laguna":
        return replace(params, by_type=_laguna(shape, params.by_type))
    if kind == "mimo_v2_flash":
        return _mimo(shape)
    if kind in GEMMA4:
        return replace(params, by_type={label: _gemma4(values) for label, values in params.by_type.items()})
    if kind in NEW_LOST:
        return _without_new(shape)
    values = dict(params.by_type.get("", {}))
    scaled = values.get("rope_type") in WITH_ORIGINAL
    if scaled and kind in NEW_WINS and kind not in QWEN and spelled(shape.text, "", ORIGINAL) is None:
        raise SourceError(f"SGLang's config class for {kind} stops on {values['rope_type']} without {ORIGINAL}: write it")
    base = _base(shape, values)
    return params if base is None else replace(params, by_type={"": {**values, "rope_theta": base}})


def _base(shape: Shape, values: Mapping[str, Any]) -> Any:
    """The base of a family that takes it from elsewhere than the rope parameters; None: from there."""
    kind, text = shape.model_type, shape.text
    if kind in FIXED_BASE:
        return FIXED_BASE[kind]
    if kind == "granitemoehybrid":
        return text.get("rope_theta", 10000.0)
    if kind == "falcon_h1" and "rope_theta" not in text and spelled(text, "", "rope_theta") is None:
        return 100000.0
    return None


def _without_new(shape: Shape) -> Parameters:
    """`rope_scaling` and the top-level base alone."""
    kind, text = shape.model_type, shape.text
    written, scaling = text.get("rope_parameters"), text.get("rope_scaling")
    if isinstance(written, Mapping) and written.get("rope_type", written.get("type")) in WITH_ORIGINAL:
        raise SourceError(f"SGLang's config class for {kind} stops on rope_parameters of this type: write rope_scaling")
    if kind == "longcat_flash" and not scaling:
        raise SourceError("SGLang's LongCat-Flash finds no rope parameters and stops where rope_scaling is left out")
    values = {**PLAIN, **_typed(scaling)}
    base = text.get("rope_theta", NEW_LOST[kind])
    values["rope_theta"] = values.get("rope_theta", base) if kind == "longcat_flash" else base
    return Parameters(by_type={"": values}, truncate=True, findings=())


def _typed(scaling: Any) -> dict[str, Any]:
    if not isinstance(scaling, Mapping) or not scaling:
        return {}
    return {**scaling, "rope_type": scaling.get("rope_type", scaling.get("type", "default"))}


def _olmo3(shape: Shape) -> Parameters:
    """OLMo 3's parameters under SGLang's config class: `rope_scaling` and the top-level base; the rest is dropped."""
    written, scaling = shape.text.get("rope_parameters"), shape.text.get("rope_scaling")
    flat = isinstance(written, Mapping) and not any(isinstance(value, Mapping) for value in written.values())
    if not scaling and flat and isinstance(written, Mapping) and written.get("rope_type") in WITH_ORIGINAL:
        raise SourceError("SGLang's config class for olmo3 stops on flat rope_parameters of this type: write rope_scaling")
    base = shape.text.get("rope_theta", 10000.0)
    plain = {"rope_type": "default", "rope_theta": base}
    values = dict(scaling) if isinstance(scaling, Mapping) and scaling else dict(plain)
    values.setdefault("rope_type", values.get("type", "default"))
    values.setdefault("rope_theta", base)
    return Parameters(
        by_type={FULL: values, SLIDING: {**plain, "rope_theta": values["rope_theta"]}}, truncate=True, findings=()
    )  # fmt: skip


def _laguna(shape: Shape, by_type: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Laguna's class: what windowed layers lack is the full layers', and what those lack lies at the top level."""
    if not shape.text.get("rope_parameters"):
        raise UnsupportedError("SGLang's defaults for a laguna without rope_parameters were not read; write them")
    usual = {"rope_theta": 10000.0, "partial_rotary_factor": 1.0}
    found: dict[str, dict[str, Any]] = {}
    for label in (FULL, SLIDING):
        values = by_type.get(label, {"rope_type": "default"})
        above = found[FULL] if label == SLIDING else shape.text
        own = {key: _first(values.get(key), above.get(key), last) for key, last in usual.items()}
        found[label] = {**_laguna_scaling(values), **own}
    whole = {label: {**values, "rope_theta": float(int(number(values, "rope_theta")))} for label, values in found.items()}
    return {label: whole[label] for label in by_type}


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _laguna_scaling(values: Mapping[str, Any]) -> dict[str, Any]:
    """What it passes on, YaRN's attention factor made SGLang's own factor on top of its formula."""
    kind = values["rope_type"]
    if kind == "default":
        return {"rope_type": kind}
    kept = {key: values[key] for key in SCALING_KEYS if key in values}
    if "attention_factor" in values:
        kept = {key: value for key, value in kept.items() if key not in ("mscale", "mscale_all_dim")}
        factor = number(values, "factor") if values.get("factor") else 1.0
        kept["attn_factor"] = number(values, "attention_factor") / temperature(factor)
    return {"rope_type": kind, **kept}


def _gemma4(values: Mapping[str, Any]) -> dict[str, Any]:
    """Gemma 4: a stretch without its fields has the factor 1, which is none."""
    kind = values["rope_type"]
    if kind not in ("default", "proportional", "linear", "dynamic", "yarn", "llama3"):
        raise SourceError(f"SGLang hands Gemma 4's rope_type {kind!r} on without its fields, which stops it at load")
    kept = {key: values[key] for key in ("rope_theta", "partial_rotary_factor") if key in values}
    return {"rope_type": kind if kind == "proportional" else "default", **kept}


def _mimo(shape: Shape) -> Parameters:
    """MiMo: one flat set of parameters for all layers, bases and the share from the top level."""
    text = shape.text
    values = _typed(text.get("rope_scaling"))
    if not values:
        raise SourceError("SGLang's MiMo stops on rope parameters nested by layer type, its default: write rope_scaling")
    base = text.get("rope_theta", 10000.0)
    top = {**PLAIN, **values, "partial_rotary_factor": text.get("partial_rotary_factor", 1.0)}
    local = text.get("swa_rope_theta", base)
    by_type = {FULL: {**top, "rope_theta": base}, SLIDING: {**top, "rope_theta": local}}
    return Parameters(by_type=by_type, truncate=True, findings=())


def check_layers(shape: Shape) -> None:
    """Raises where SGLang stops on the fields of a family's layers, or rotates other layers than transformers."""
    kind, text = shape.model_type, shape.text
    if kind == "exaone_moe" and SLIDING not in shape.types:
        raise UnsupportedError("SGLang rotates every layer where layer_types name no window, transformers none")
    if kind == "mimo_v2_flash":
        _check_mimo(shape)
    pattern = text.get("sliding_window_pattern", default(kind, "sliding_window_pattern") or 4)
    if kind != "exaone4" or shape.window is None or not pattern:
        return
    if not isinstance(pattern, str | list):
        raise SourceError(f"SGLang's EXAONE 4 takes the length of sliding_window_pattern, got {pattern!r}: write LLLG")
    if [(i + 1) % len(pattern) != 0 for i in range(shape.num_layers)] != list(shape.rotated):
        raise UnsupportedError("SGLang takes the windows from sliding_window_pattern, which differs from layer_types")


def _check_mimo(shape: Shape) -> None:
    text = shape.text
    missing = [key for key in MIMO_KEYS if text.get(key) is None]
    if missing:
        raise SourceError(f"SGLang stops at load where a mimo_v2_flash lacks {' and '.join(missing)}: write them")
    if text["hybrid_layer_pattern"] != [int(kind == SLIDING) for kind in shape.types]:
        raise UnsupportedError("SGLang takes the windows from hybrid_layer_pattern, which differs from layer_types")
