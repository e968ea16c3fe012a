"""How a checkpoint came to its stretch, where its config does not say: a small sourced table.

A config with `yarn` in it may have been trained that way (DeepSeek) or had it switched on afterwards (Qwen). Extending
from the wrong vector stretches a model twice or resets it. What is not in this table, and has no block of ours, is
`unknown`, and the user is asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ropewalk.core.errors import SourceError
from ropewalk.core.geometry import Finding, Geometry, Lineage
from ropewalk.core.plan import LONGEST
from ropewalk.engines.transformers import formulas


@dataclass(frozen=True, kw_only=True)
class Origin:
    """One row of the table."""

    lineage: Lineage
    source: str
    """Where that is written."""
    original_length: int | None = None
    """The length before the stretch, where the config does not hold it."""


TABLE: dict[tuple[str, str], Origin] = {
    ("deepseek_v2", "yarn"): Origin(lineage="trained", source="DeepSeek-V2, arXiv:2405.04434, section 3.1.4"),
    ("deepseek_v3", "yarn"): Origin(lineage="trained", source="DeepSeek-V3, arXiv:2412.19437, section 4.3"),
    ("gpt_oss", "yarn"): Origin(lineage="trained", source="gpt-oss model card, arXiv:2508.10925, section 2.2"),
    ("olmo3", "yarn"): Origin(lineage="trained", source="OLMo 3 technical report, long-context extension"),
    ("phi3", "longrope"): Origin(lineage="trained", source="Phi-3 technical report, arXiv:2404.14219, section 2"),
    ("gemma3_text", "linear"): Origin(
        lineage="trained", source="Gemma 3 report, arXiv:2503.19786, section 5.3", original_length=32768
    ),
    ("qwen2", "yarn"): Origin(lineage="runtime", source="Qwen2.5 model cards, processing long texts"),
    ("qwen2_moe", "yarn"): Origin(lineage="runtime", source="Qwen2 model cards, processing long texts"),
    ("qwen3", "yarn"): Origin(lineage="runtime", source="Qwen3 model cards, processing long texts"),
    ("qwen3_moe", "yarn"): Origin(lineage="runtime", source="Qwen3 model cards, processing long texts"),
    ("smollm3", "yarn"): Origin(lineage="runtime", source="SmolLM3 model card, long context processing"),
}

BY_TYPE: dict[str, Origin] = {
    "default": Origin(lineage="plain", source="no scaling"),
    "proportional": Origin(lineage="plain", source="the shape of the vector, not a stretch"),
    "dynamic": Origin(lineage="runtime", source="frequencies that follow the text are put on at run time"),
    "llama3": Origin(lineage="trained", source="Llama 3 report, arXiv:2407.21783, section 3.4.2"),
}


def look_up(model_type: str, scheme: str) -> Origin:
    """The row for a family and a rope type; lineage `unknown` where there is none."""
    row = TABLE.get((model_type, scheme)) or BY_TYPE.get(scheme)
    return row or Origin(lineage="unknown", source="nothing in the config says")


def settle(geometry: Geometry, model_type: str, values: Mapping[str, Any]) -> Geometry:
    """Original and trained length and the lineage, as far as the config and the table tell them.

    `values` are the rope parameters of the layers that see the whole text, `model_type` that of the text part.
    """
    scheme, declared = geometry.scheme, geometry.declared_length
    row = look_up(model_type, scheme)
    original = trained = declared
    findings = list(geometry.findings)
    if scheme in ("yarn", "longrope", "llama3"):
        original = int(values["original_max_position_embeddings"])
        if scheme == "yarn" and row.lineage != "trained":
            trained = round(original * formulas.stretch(values, declared))
    elif scheme == "linear" and row.lineage == "trained":
        original = row.original_length or round(declared / formulas.number(values, "factor"))
    elif scheme in ("linear", "dynamic"):
        trained = round(declared * formulas.number(values, "factor"))
    for name, length in (("original_max_position_embeddings", original), ("factor", trained)):
        if not 1 <= length <= LONGEST:
            raise SourceError(
                f"{scheme} with {name} = {values.get(name)!r:.40} would read {length:.4g} tokens, expected 1 to {LONGEST}; "
                f"mend {name}"
            )
    if scheme == "linear" and row.lineage == "unknown":
        findings.append(_ambiguous_length(declared, trained))
    if scheme == "default":
        findings.append(_no_trace(values))
    if scheme == "yarn" and trained > declared:
        findings.append(_undeclared(declared, trained))
    return replace(
        geometry,
        original_length=original,
        trained_length=trained,
        lineage=row.lineage,
        findings=tuple(findings),
    )


def _ambiguous_length(declared: int, trained: int) -> Finding:
    return Finding(
        field="max_position_embeddings",
        severity="warning",
        problem=f"with linear scaling {declared} may be the length before or after the stretch; taken as before",
        mend="say --lineage, and check the length against the model card",
    )


def _no_trace(values: Mapping[str, Any]) -> Finding:
    return Finding(
        field="rope_theta",
        severity="note",
        problem=f"a changed base leaves no trace in a config: {values.get('rope_theta')} is taken as the base of training",
        mend="nothing to do, unless the base was changed without training",
    )


def _undeclared(declared: int, trained: int) -> Finding:
    return Finding(
        field="max_position_embeddings",
        severity="warning",
        problem=f"yarn stretches to {trained} tokens, max_position_embeddings says {declared}; vLLM and SGLang stop there",
        mend=f"set max_position_embeddings to {trained}",
    )
