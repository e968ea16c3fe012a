"""Two ways of writing rope parameters, made one: v5 `rope_parameters` and v4 `rope_scaling` + `rope_theta`.

Follows the order of precedence of transformers 5.23 where a config carries more than one spelling, and reports what it
overruled: contradictions are silent there, and a model that uses another base than its owner reads in the file is the
most common mistake in this field.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ropewalk.core.errors import SourceError, UnsupportedError
from ropewalk.core.geometry import Finding
from ropewalk.engines.transformers.families import FAMILIES, default, field
from ropewalk.engines.transformers.formulas import number

FULL, SLIDING = "full_attention", "sliding_attention"
WITH_ORIGINAL = ("llama3", "yarn", "longrope")
"""Types that need `original_max_position_embeddings`."""
NEEDS_HEAD_DIM = ("dynamic", "yarn", "longrope")
"""Types whose stock code takes a head_dim of null at its word."""


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Rope parameters as transformers holds them once a model is built."""

    by_type: dict[str, dict[str, Any]]
    """Layer type to its parameters; one entry `""` where all layers share them."""
    truncate: bool
    """From the outer dict, where stock code looks for it."""
    findings: tuple[Finding, ...]

    def of(self, layer_type: str) -> dict[str, Any]:
        """The parameters for one layer type."""
        return self.by_type[layer_type if layer_type in self.by_type else ""]


def standardise(model_type: str, text: Mapping[str, Any], declared: int, layer_types: list[str]) -> Parameters:
    """The parameters that transformers would use. Raises `SourceError` on what it could not read either."""
    findings: list[Finding] = []
    typed = FAMILIES[model_type].typed
    outer = _typed(model_type, text, layer_types) if typed else _flat(model_type, text, layer_types)
    by_type = {label: outer[label] for label in (FULL, SLIDING) if label in outer} if typed else {"": outer}
    for params in by_type.values():
        _complete(model_type, text, declared, params, findings)
    findings += _contradictions(model_type, text, by_type)
    truncate = outer.get("truncate", True)
    findings += _ignored_truncate(by_type, outer)
    return Parameters(by_type=by_type, truncate=bool(truncate), findings=tuple(findings))


def _section(text: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    value = text.get(key)
    if value is not None and not isinstance(value, Mapping):
        raise SourceError(f"{key} is an object of rope fields, got {value!r}")
    return None if value is None else copy.deepcopy(dict(value))


def _flat(model_type: str, text: Mapping[str, Any], layer_types: list[str]) -> dict[str, Any]:
    family, fallback = FAMILIES[model_type], default(model_type, "rope_parameters")
    scaling, parameters = _section(text, "rope_scaling"), _section(text, "rope_parameters")
    outer = scaling or parameters
    if outer is None:
        # gpt-oss: the class brings a whole YaRN with it where the config says nothing.
        outer = {k: v for k, v in fallback.items() if k != "rope_theta"} if fallback["rope_type"] != "default" else {}
    nested = [key for key in outer if key in layer_types]
    if nested:
        raise UnsupportedError(
            f"rope_parameters are nested by layer type ({', '.join(nested)}), but all layers of a {model_type} share one "
            "vector; write them flat"
        )
    outer.setdefault("rope_theta", text.get(family.base_key, fallback["rope_theta"]))
    share = text.get(family.partial_key, fallback.get("partial_rotary_factor"))
    if family.rotary_dim_key and family.partial_key not in text and text.get(family.rotary_dim_key) is not None:
        share = text[family.rotary_dim_key] / number({"head_dim": field(model_type, text, "head_dim")}, "head_dim")
    if share is not None:
        outer.setdefault("partial_rotary_factor", share)
    return outer


def _whole(model_type: str, text: Mapping[str, Any], layer_types: list[str]) -> dict[str, Any]:
    """Nested parameters that the config class takes as they stand."""
    # Never read here; checked all the same, so that it can be compared.
    _section(text, "rope_scaling")
    outer = _section(text, "rope_parameters") or copy.deepcopy(default(model_type, "rope_parameters"))
    for label in sorted(set(layer_types) - {FAMILIES[model_type].recurrent}):
        if not isinstance(outer.get(label), dict):
            raise SourceError(f"rope_parameters of a {model_type} has no object for its {label} layers; add it")
    return outer


def _typed(model_type: str, text: Mapping[str, Any], layer_types: list[str]) -> dict[str, Any]:
    family, fallback = FAMILIES[model_type], default(model_type, "rope_parameters")
    if family.whole:
        return _whole(model_type, text, layer_types)
    scaling = _section(text, "rope_scaling")
    outer = _section(text, "rope_parameters") or {}
    for label in (FULL, SLIDING):
        if outer.get(label) is None:
            outer[label] = {"rope_type": "default"}
        if not isinstance(outer[label], dict):
            raise SourceError(f"rope_parameters[{label!r}] is an object of rope fields, got {outer[label]!r}")
    if scaling is not None:
        outer[FULL].update(scaling)
        if family.scaling_for_all:
            outer[SLIDING].update(scaling)
    outer[FULL].setdefault("rope_theta", text.get(family.base_key, fallback[FULL]["rope_theta"]))
    # OLMo 3 has one top-level base, and its config class hands it to the full layers only.
    local = text.get(family.local_base_key) if family.local_base_key else None
    outer[SLIDING].setdefault("rope_theta", fallback[SLIDING]["rope_theta"] if local is None else local)
    return outer


def _complete(
    model_type: str, text: Mapping[str, Any], declared: int, params: dict[str, Any], findings: list[Finding]
) -> None:
    """Fills in the type and the original length, in place."""
    family = FAMILIES[model_type]
    params.setdefault("rope_type", params.get("type") or "default")
    kind = dict(family.renamed_types).get(params["rope_type"], params["rope_type"])
    if family.rope_types and kind not in family.rope_types:
        raise UnsupportedError(
            f"rope_type {kind!r} is not one that {model_type} takes in transformers; "
            f"it takes {' and '.join(family.rope_types)}"
        )
    params["rope_type"] = kind
    if family.ntk_alpha and kind == "dynamic" and params.get("alpha"):
        _fix_base(model_type, text, params)
    if kind in WITH_ORIGINAL:
        _complete_original(model_type, text, declared, params, findings)
    if family.needs_head_dim and kind in NEEDS_HEAD_DIM and text.get("head_dim") is None:
        findings.append(
            Finding(
                field="head_dim",
                severity="error",
                problem=f"transformers cannot build a {model_type} with {kind} scaling where head_dim is left out",
                mend="write head_dim: hidden_size / num_attention_heads",
            )
        )
    share = params.get("partial_rotary_factor")
    if share not in (None, 1, 1.0) and not family.partial and kind != "proportional":
        raise UnsupportedError(
            f"{model_type} rotates whole heads, got partial_rotary_factor {share}; stock transformers would break on it"
        )
    factor = params.get("factor")
    if isinstance(factor, int) and not isinstance(factor, bool):
        findings.append(
            Finding(
                field="rope_parameters.factor",
                severity="warning",
                problem=f"factor is the whole number {factor}; vLLM and SGLang fail on it for linear scaling",
                mend=f"write {factor}.0",
            )
        )


def _fix_base(model_type: str, text: Mapping[str, Any], params: dict[str, Any]) -> None:
    """HunYuan: `alpha` raises the base once and for all, whatever the type is called."""
    alpha, base, dim = params.pop("alpha"), params.get("rope_theta"), field(model_type, text, "head_dim")
    dim = dim or field(model_type, text, "hidden_size") // field(model_type, text, "num_attention_heads")
    if not all(isinstance(n, int | float) and 0 < n < 1e18 for n in (alpha, base, dim)) or dim <= 2:
        raise SourceError(f"rope_parameters has alpha = {alpha!r:.40}, expected a number above 0 beside base and head_dim")
    params["rope_type"], params["rope_theta"] = "default", base * alpha ** (dim / (dim - 2))


def _complete_original(
    model_type: str, text: Mapping[str, Any], declared: int, params: dict[str, Any], findings: list[Finding]
) -> None:
    key = "original_max_position_embeddings"
    top, inner = text.get(key), params.get(key)
    if top is None and FAMILIES[model_type].own_original_length:
        top = default(model_type, key)
    # Stock code looks at the top level only where all layers share the parameters.
    if top is not None and not FAMILIES[model_type].typed:
        if inner is not None and inner != top:
            findings.append(
                Finding(
                    field=key,
                    severity="warning",
                    problem=f"the top-level {key} {top} overrules the {inner} inside rope_parameters",
                    mend="write it in one place only, or the same value in both",
                )
            )
        params[key] = top
    elif inner is None:
        findings.append(
            Finding(
                field=f"rope_parameters.{key}",
                severity="error",
                problem=f"{params['rope_type']} scaling without {key}: max_position_embeddings ({declared}) is taken",
                mend="add the length the model was trained for before scaling",
            )
        )
        params[key] = declared


def _contradictions(model_type: str, text: Mapping[str, Any], by_type: Mapping[str, dict[str, Any]]) -> list[Finding]:
    findings = []
    if FAMILIES[model_type].ntk_alpha:
        # Its base is another one than is written, by design.
        return []
    used = by_type.get(FULL) or by_type.get("") or by_type[SLIDING]
    scaling, parameters = text.get("rope_scaling"), text.get("rope_parameters")
    if scaling and parameters:
        inner = parameters.get(FULL) if isinstance(parameters.get(FULL), Mapping) else parameters
        names = [k for k in scaling if k != "type" and k in inner and inner[k] != scaling[k]]
        if scaling.get("rope_type", scaling.get("type")) != inner.get("rope_type", inner.get("type")):
            names.insert(0, "rope_type")
        if names:
            findings.append(
                Finding(
                    field="rope_scaling",
                    severity="error",
                    problem=f"rope_scaling and rope_parameters differ in {', '.join(dict.fromkeys(names))}; the first wins",
                    mend="remove rope_scaling, or make both say the same",
                )
            )
    key = FAMILIES[model_type].base_key
    bases = {"rope_parameters": _base(parameters), f"top-level {key}": text.get(key)}
    for place, base in bases.items():
        if base is not None and base != used.get("rope_theta"):
            findings.append(
                Finding(
                    field=place.removeprefix("top-level "),
                    severity="warning",
                    problem=f"the base {base:g} in {place} is overruled by {used.get('rope_theta')}"
                    if isinstance(base, int | float)
                    else f"the base in {place} is {base!r}",
                    mend="remove the stale copy",
                )
            )
    return findings


def _base(parameters: Any) -> Any:
    if not isinstance(parameters, Mapping):
        return None
    inner = parameters.get(FULL)
    return (inner if isinstance(inner, Mapping) else parameters).get("rope_theta")


def _ignored_truncate(by_type: Mapping[str, dict[str, Any]], outer: Mapping[str, Any]) -> list[Finding]:
    ignored = [label for label, params in by_type.items() if label and params.get("truncate") is False]
    if not ignored or outer.get("truncate") is False:
        return []
    return [
        Finding(
            field=f"rope_parameters.{ignored[0]}.truncate",
            severity="error",
            problem="truncate is false for one layer type, which transformers does not read: it rounds the ramp's ends",
            mend="set it to true, or write the frequencies as longrope factors",
        )
    ]
