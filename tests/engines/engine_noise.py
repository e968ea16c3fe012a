"""Configs of the golden files with values in them that nobody could mean, for the readers to survive."""

import copy
import math
from typing import Any

from engines.engine_golden import cases
from hypothesis import strategies as st

VALUES = [
    None, "x", "yarn", "longrope", "su", -1, 0, 0.5, 1, 2, 1.0, True, False, math.nan, math.inf, 1e300, 1e-300, 10**400,
    [], {}, [1.0] * 8, [2] * 8, ["a"] * 8, {"a": 1},
]  # fmt: skip
INNER = (
    "rope_type", "type", "rope_theta", "factor", "alpha", "attention_factor", "attn_factor", "mscale", "mscale_all_dim",
    "beta_fast", "beta_slow", "truncate", "short_mscale", "long_factor", "original_max_position_embeddings", "mixed_b",
    "max_trained_positions", "mrope_section", "partial_rotary_factor", "apply_yarn_scaling", "extrapolation_factor",
    "low_freq_factor",
)  # fmt: skip
OUTER = (
    "max_seq_len", "model_max_length", "seq_length", "original_max_position_embeddings", "rope_scaling", "rope_parameters",
    "rope_theta", "partial_rotary_factor", "rope_pct", "max_position_embeddings", "head_dim", "sliding_window",
    "hybrid_layer_pattern", "swa_head_dim", "swa_rope_theta", "rotary_dim", "architectures",
)  # fmt: skip


def noisy(data: st.DataObject, engine: str) -> dict[str, Any]:
    """A golden config with one to three fields overwritten."""
    case = data.draw(st.sampled_from(cases(engine)))
    config: dict[str, Any] = copy.deepcopy(case.values[0]["config"])
    text = config.get("text_config", config)
    for _ in range(data.draw(st.integers(1, 3))):
        section = text.get("rope_parameters") or text.get("rope_scaling")
        if isinstance(section, dict) and isinstance(section.get("full_attention"), dict) and data.draw(st.booleans()):
            section = section["full_attention"]
        if isinstance(section, dict) and data.draw(st.booleans()):
            section[data.draw(st.sampled_from(INNER))] = copy.deepcopy(data.draw(st.sampled_from(VALUES)))
        else:
            text[data.draw(st.sampled_from(OUTER))] = copy.deepcopy(data.draw(st.sampled_from(VALUES)))
    return config
