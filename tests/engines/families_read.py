"""Tiny config dicts of every family and type, the real models of them, and the comparison of the two."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from tolerances import RELATIVE
from transformers import AutoModelForCausalLM, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ropewalk.core.geometry import Geometry
from ropewalk.engines.transformers import read
from ropewalk.engines.transformers.families import FAMILIES

SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXTRA: dict[str, dict[str, Any]] = {
    "deepseek_v2": {"q_lora_rank": 16, "n_group": 1, "topk_group": 1},
    "deepseek_v3": {"q_lora_rank": 16, "n_group": 1, "topk_group": 1},
    "gemma3_text": {"head_dim": 48, "query_pre_attn_scalar": 40, "sliding_window": 32, "sliding_window_pattern": 2},
    "gemma3n_text": {
        "head_dim": 48,
        "sliding_window": 32,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_kv_shared_layers": 0,
        "hidden_size_per_layer_input": 16,
        "vocab_size_per_layer_input": 64,
        "laurel_rank": 8,
    },
    "gemma2": {"head_dim": 48, "query_pre_attn_scalar": 40, "sliding_window": 32},
    "gemma": {"head_dim": 48},
    "gpt_oss": {"head_dim": 16, "num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 32},
    "granite": {"attention_multiplier": 0.2},
    "llama4_text": {
        "head_dim": 16,
        "num_local_experts": 2,
        "intermediate_size_mlp": 32,
        "attn_temperature_tuning": False,
        "attention_chunk_size": 65536,
    },
    "mistral": {"sliding_window": None, "head_dim": 48},
    "mixtral": {"num_local_experts": 2, "head_dim": 48},
    "olmo3": {"sliding_window": 32},
    "qwen2": {"use_sliding_window": True, "sliding_window": 32, "max_window_layers": 2},
    "qwen2_moe": {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16},
    "qwen3": {"head_dim": 48},
    "qwen3_moe": {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16, "head_dim": 32},
    "qwen3_5_text": {
        "head_dim": 64,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
    },
}
MLA = {"kv_lora_rank": 16, "qk_rope_head_dim": 16, "qk_nope_head_dim": 24, "v_head_dim": 16, "n_routed_experts": 2}
MLA |= {"moe_intermediate_size": 16, "num_experts_per_tok": 1, "first_k_dense_replace": 4}
SCALINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 64},
    "yarn-options": {
        "rope_type": "yarn",
        "factor": 8.0,
        "original_max_position_embeddings": 32,
        "beta_fast": 16,
        "beta_slow": 0,
        "attention_factor": 1.25,
    },
    "yarn-mscale": {
        "rope_type": "yarn",
        "factor": 8.0,
        "original_max_position_embeddings": 32,
        "mscale": 0.7,
        "mscale_all_dim": 0.9,
    },
    "yarn-null-factor": {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 64},
    "yarn-flat": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "truncate": False},
    "longrope": {"factor": 4.0, "original_max_position_embeddings": 64},
    "llama3": {
        "factor": 8.0,
        "original_max_position_embeddings": 64,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    },
    "proportional": {"partial_rotary_factor": 0.5},
}
NAMES = (
    *("deepseek_v2", "deepseek_v3", "gemma", "gemma2", "gemma3_text", "gpt_neox", "gpt_oss", "granite"),
    *("llama", "llama4_text", "mistral", "mixtral", "olmo", "olmo2", "olmo3", "phi", "phi3", "qwen2"),
    *("qwen2_moe", "qwen3", "qwen3_5_text", "qwen3_moe", "smollm3", "stablelm", "starcoder2"),
)
"""Families walked through with every type and both spellings; all others, with two methods each, in test_all_families."""


def small(name: str) -> dict[str, Any]:
    """A tiny config dict of a family, as config.json would hold it, saying nothing of frequencies."""
    mla = MLA if FAMILIES[name].mla else {}
    return {"model_type": name, **SMALL, **mla, **EXTRA.get(name, {})}


def scaled(name: str, scaling: str, base: float = 20000.0) -> dict[str, Any]:
    """Rope parameters of a type for a family, with lists of the right length."""
    params = {"rope_type": scaling, **SCALINGS[scaling], "rope_theta": base}
    if params["rope_type"] == "longrope":
        geometry = read(small(name))
        count = next(group.rotary_dim for group in geometry.groups if group.rotated) // 2
        params["short_factor"] = [1.0 + 0.01 * i for i in range(count)]
        params["long_factor"] = [1.0 + 0.3 * i for i in range(count)]
    if FAMILIES[name].mrope:
        params |= {"mrope_section": [4, 2, 2], "mrope_interleaved": True}
    return params


def config_of(name: str, scaling: str) -> dict[str, Any]:
    """The v5 spelling of a family with a type."""
    params: dict[str, Any] = scaled(name, scaling)
    if FAMILIES[name].typed:
        params = {"full_attention": params, "sliding_attention": {"rope_type": "default", "rope_theta": 500.0}}
    config = {**small(name), "rope_parameters": params}
    if FAMILIES[name].own_original_length and scaling == "longrope":
        config["original_max_position_embeddings"] = SCALINGS["longrope"]["original_max_position_embeddings"]
    return config


def built(config: dict[str, Any]) -> Any:
    """The real model of a config dict."""
    content = copy.deepcopy(config)
    cls = CONFIG_MAPPING[content.pop("model_type")]
    stock: PreTrainedConfig = cls(**content)
    return AutoModelForCausalLM.from_config(stock)


def compare(geometry: Geometry, model: Any, length: int | None = None) -> None:
    """Asserts that every group's numbers are those of the model's modules."""
    [rotary] = [m for name, m in model.named_modules() if name.endswith("rotary_emb")]
    if length is not None:
        # What a forward over `length` tokens does to the buffers before it reads them.
        labels = getattr(rotary, "layer_types", [None])
        for label in labels:
            where = () if label is None else (label,)
            rotary(torch.zeros(1, 1, 8), torch.arange(length)[None], *where)
    layers = dict(model.named_modules())
    for group in geometry.groups:
        if not group.rotated:
            continue
        prefix = f"{group.label}_" if hasattr(rotary, f"{group.label}_inv_freq") else ""
        vector = getattr(rotary, f"{prefix}inv_freq").double().numpy()
        np.testing.assert_allclose(group.inv_freq, vector, rtol=RELATIVE["float32"], atol=0.0)
        factor = getattr(rotary, f"{prefix}attention_scaling")
        assert group.attention_factor == pytest.approx(factor, rel=1e-12)
        for index in group.layers:
            attention = next(m for n, m in layers.items() if n.endswith((f".{index}.self_attn", f".{index}.attention")))
            assert group.softmax_scale * group.logit_scale == pytest.approx(attention.scaling, rel=1e-9)
            if hasattr(attention, "sliding_window") and group.window is not None:
                assert attention.sliding_window == group.window


def config_without(config: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in keys}


def allowed(name: str, scaling: str) -> bool:
    """Whether stock transformers takes the type for the family."""
    family, kind = FAMILIES[name], SCALINGS[scaling].get("rope_type", scaling)
    if family.rope_types:
        return kind in family.rope_types
    return not (kind == "proportional" and family.mrope)
