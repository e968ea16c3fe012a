"""A tiny random model of any causal language model of transformers, made from its config class alone.

Every field whose name is in `SMALL` gets that value if the class has it, so a new family needs nothing here unless its
fields have names of their own, which `EXTRA` holds. Nothing is told of positions: those keep the class's own defaults.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

TRAINED_LENGTH = 256
LAYERS = 4
LARGEST = 3_000_000
"""Weights of the largest model that is built: a size that was not made small is found before it takes all memory."""
SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 32,
    "ffn_hidden_size": 32,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "shared_intermediate_size": 16,
    "expert_ffn_hidden_size": 16,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_kv_heads": 4,
    "head_dim": 16,
    "max_position_embeddings": TRAINED_LENGTH,
    "sliding_window": 32,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_topk": 2,
    "moe_k": 2,
    "moe_num_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "num_dense_layers": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "index_head_dim": 32,
    "index_n_heads": 2,
    "index_topk": 1024,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "mamba_d_state": 16,
    "mamba_n_heads": 4,
    "mamba_d_head": 32,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_chunk_size": 16,
    "initializer_range": 0.15,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
FULL, SLIDING, LINEAR, CONV = "full_attention", "sliding_attention", "linear_attention", "conv"
_NO_WINDOW: dict[str, Any] = {"sliding_window": None}
_WINDOWS: dict[str, Any] = {"layer_types": [SLIDING, FULL] * 2}
_TWO_VECTORS: dict[str, Any] = {
    **_WINDOWS,
    "rope_parameters": {
        FULL: {"rope_type": "default", "rope_theta": 500000.0, "partial_rotary_factor": 0.5},
        SLIDING: {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0},
    },
}
_GEMMA4: dict[str, Any] = {
    **_WINDOWS,
    "global_head_dim": 32,
    "hidden_size_per_layer_input": 16,
    "vocab_size_per_layer_input": 64,
}


def _sections(*sizes: int) -> dict[str, Any]:
    """Which frequencies belong to time, height and width: half of a tiny head in three parts."""
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": list(sizes)}}


EXTRA: dict[str, dict[str, Any]] = {
    "bailing_hybrid": {"layer_group_size": 2},
    "bamba": {"attn_layer_indices": [1, 3]},
    "doge": _NO_WINDOW,
    "deepseek_ocr2_text": {"mlp_layer_types": ["dense"] + ["sparse"] * (LAYERS - 1)},
    "dots1": {"max_window_layers": 2},
    "falcon_h1": {"mamba_d_ssm": 128},
    "gemma": {"head_dim": 24},
    "glm4v_moe_text": {"hidden_size": 128, **_sections(2, 3, 3)},
    "glm4v_text": _sections(2, 3, 3),
    "glm_ocr_text": _sections(2, 3, 3),
    "gemma2": {"query_pre_attn_scalar": 40},
    "gemma3_text": {**_WINDOWS, "query_pre_attn_scalar": 40},
    "gemma3n_text": {
        **_WINDOWS,
        "num_kv_shared_layers": 0,
        "hidden_size_per_layer_input": 16,
        "vocab_size_per_layer_input": 64,
        "laurel_rank": 8,
    },
    "gemma4_text": _GEMMA4,
    "gemma4_unified_text": _GEMMA4,
    "granite": {"attention_multiplier": 0.2},
    "granite4_vision_text": {"attention_multiplier": 0.2},
    "granite_docling_text": {"attention_multiplier": 0.2},
    "granitemoe": {"attention_multiplier": 0.2},
    "granitemoehybrid": {
        "attention_multiplier": 0.2,
        "layer_types": [LINEAR, FULL] * 2,
        "position_embedding_type": "rope",
    },
    "granitemoeshared": {"attention_multiplier": 0.2},
    "hunyuan_v1_dense": {"rope_parameters": {"rope_type": "dynamic", "alpha": 100.0, "factor": 1.0, "rope_theta": 10000.0}},
    "hunyuan_vl_text": _sections(3, 3, 2),
    "hyperclovax": {"attention_multiplier": 0.2},
    "jetmoe": {"kv_channels": 16},
    "laguna": _TWO_VECTORS,
    "lfm2": {"layer_types": [CONV, FULL] * 2},
    "lfm2_moe": {"layer_types": [CONV, FULL] * 2},
    "lfm3": {"layer_types": [CONV, FULL, SLIDING, FULL]},
    "llama4_text": {
        "attn_temperature_tuning": False,
        "intermediate_size_mlp": 32,
        "layer_types": [FULL] * LAYERS,
        "attention_chunk_size": 1024,
    },
    "longcat_flash": {"num_layers": 2, "zero_expert_num": 2},
    "mellum": _WINDOWS,
    "mimo_v2_flash": {"head_dim": 48, "num_key_value_heads": 2, "layer_types": [FULL, SLIDING] * 2},
    "minimax": {**_NO_WINDOW, "block_size": 16},
    "minimax_m2": {"rotary_dim": 8},
    "minimax_m3_vl_text": {"partial_rotary_factor": 0.5},
    "ministral": _WINDOWS,
    "mistral": _NO_WINDOW,
    "mixtral": _NO_WINDOW,
    "mllama_text_model": {"cross_attention_layers": [1]},
    "modernbert-decoder": {"local_attention": 64, "cls_token_id": 1, "sep_token_id": 2},
    "olmo3": _WINDOWS,
    "paddleocr_vl_text": _sections(2, 3, 3),
    "phi3": _NO_WINDOW,
    "phi4_multimodal": {
        **_NO_WINDOW,
        "vision_config": {
            "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
        },
        "audio_config": {
            "hidden_size": 32, "intermediate_size": 32, "num_blocks": 1, "num_attention_heads": 2, "ext_pw_out_channel": 32,
            "nemo_conv_channels": 32,
        },
    },
    "qwen2": {"use_sliding_window": True, "max_window_layers": 2},
    "qwen2_moe": {"use_sliding_window": True, "max_window_layers": 3},
    "qwen2_5_vl_text": {"use_sliding_window": True, "max_window_layers": 2, **_sections(2, 3, 3)},
    "qwen2_vl_text": {"use_sliding_window": True, "max_window_layers": 2, **_sections(2, 3, 3)},
    "qwen3": {"use_sliding_window": True, "max_window_layers": 2},
    "qwen3_vl_moe_text": _sections(3, 3, 2),
    "qwen3_vl_text": _sections(3, 3, 2),
    "starcoder2": _NO_WINDOW,
    "vaultgemma": {"query_pre_attn_scalar": 40},
}  # fmt: skip
"""What a family needs beside or instead of `SMALL`."""


TEXT_PARTS = {
    "deepseek_ocr2_text": "DeepseekOcr2TextModel",
    "emu3_text_model": "Emu3ForCausalLM",
    "glm4v_moe_text": "Glm4vMoeTextModel",
    "glm4v_text": "Glm4vTextModel",
    "glm_ocr_text": "GlmOcrTextModel",
    "granite4_vision_text": "Granite4VisionTextModel",
    "granite_docling_text": "GraniteDoclingTextModel",
    "hunyuan_vl_text": "HunYuanVLTextModel",
    "mllama_text_model": "MllamaForCausalLM",
    "paddleocr_vl_text": "PaddleOCRTextModel",
    "qwen2_5_vl_text": "Qwen2_5_VLTextModel",
    "qwen2_vl_text": "Qwen2VLTextModel",
    "qwen3_vl_moe_text": "Qwen3VLMoeTextModel",
    "qwen3_vl_text": "Qwen3VLTextModel",
}
"""Text parts that the auto class knows by the name of the whole model only, and their classes. Those without an output layer
end in hidden states."""


def fields(model_type: str) -> dict[str, Any]:
    """The config fields of a tiny model, as config.json would hold them."""
    cls = CONFIG_MAPPING[model_type]
    names = {f.name for f in dataclasses.fields(cls)} | set(getattr(cls, "attribute_map", {}))
    return {"model_type": model_type, **{k: v for k, v in SMALL.items() if k in names}, **EXTRA.get(model_type, {})}


def stock(config: Mapping[str, Any], *, seed: int = 0, attention: str = "eager") -> PreTrainedModel:
    """The stock model of a config dict, with random float32 weights: the same for the same seed."""
    content = {key: value for key, value in config.items() if key != "model_type"}
    built = CONFIG_MAPPING[config["model_type"]](**content)
    with torch.device("meta"):
        count = sum(p.numel() for p in from_config(built).parameters())
    if count > LARGEST:
        raise ValueError(f"a {config['model_type']} with {count} weights is not tiny; name its sizes in EXTRA")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = from_config(built, attn_implementation=attention)
        for parameter in model.parameters():
            # Memory that a class leaves uninitialised is NaN in tests; gates that start at a constant hide mistakes.
            parameter.data = torch.nan_to_num(parameter.data, nan=0.0) + torch.randn_like(parameter) * 0.05
    return model.float().eval()


def from_config(config: PreTrainedConfig, **words: Any) -> PreTrainedModel:
    """A stock model with whatever weights its class begins with."""
    name = TEXT_PARTS.get(config.model_type)
    if name is None:
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, **words)
    else:
        model = getattr(transformers, name)._from_config(config, **words)
    return model


def causal() -> list[str]:
    """Every model type that has a causal language model."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
