"""Tiny random models, one builder per family, shared by the tests of several rooms.

Each is a stock transformers class with 2 to 4 layers, a hidden size of at most 64 and a vocabulary of 128, made in well
under a second. Weights are drawn larger than usual, so that a change of positions shows in the logits. `TINY` maps a name
to the keyword arguments of its configuration; `config` and `model` build from it, with changes.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel

TRAINED_LENGTH = 64
"""`max_position_embeddings` of every tiny model but those that say otherwise."""
VOCABULARY = 128
SPECIAL_TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
DENSE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": TRAINED_LENGTH,
    "initializer_range": 0.15,
    **SPECIAL_TOKENS,
}
PLAIN: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0}
YARN_TRUNCATE_OFF: dict[str, Any] = {
    "rope_type": "yarn",
    "rope_theta": 150000.0,
    "factor": 4.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 16,
}
YARN_MSCALE: dict[str, Any] = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 0.7,
    "mscale_all_dim": 1.0,
    "original_max_position_embeddings": 16,
}
LONGROPE: dict[str, Any] = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6],
    "long_factor": [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5],
    "original_max_position_embeddings": 32,
}


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """How one tiny model is made."""

    config: str
    """Name of the configuration class in transformers."""
    model: str
    """Name of the model class in transformers."""
    fields: dict[str, Any]
    """Arguments of the configuration class; where the text configuration is nested, of `text_config`."""
    nested: Callable[[dict[str, Any]], dict[str, Any]] | None = field(default=None)
    """Wraps `fields` into the arguments of a configuration that nests its text configuration."""


def _dense(**changes: Any) -> dict[str, Any]:
    return {**DENSE, "rope_parameters": dict(PLAIN), **changes}


def _two_bases(scaling: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "full_attention": scaling or {"rope_type": "default", "rope_theta": 1000000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    }


def _llama4(**changes: Any) -> dict[str, Any]:
    return _dense(
        intermediate_size_mlp=96,
        num_hidden_layers=4,
        head_dim=16,
        num_local_experts=2,
        interleave_moe_layer_step=2,
        # Four layers, the last without positions, all seeing the whole text. A chunk size must be given all the same.
        attention_chunk_size=1024,
        layer_types=["full_attention"] * 4,
        **changes,
    )


def _qwen3_5_text() -> dict[str, Any]:
    return _dense(
        num_hidden_layers=4,
        head_dim=32,
        layer_types=["linear_attention", "full_attention", "linear_attention", "full_attention"],
        linear_conv_kernel_dim=4,
        linear_key_head_dim=16,
        linear_value_head_dim=16,
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        rope_parameters={
            **PLAIN,
            "partial_rotary_factor": 0.5,
            "mrope_section": [3, 3, 2],
            "mrope_interleaved": True,
        },
    )


def _qwen3_5(text: dict[str, Any]) -> dict[str, Any]:
    vision = {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": 64,
        "num_position_embeddings": 16,
    }
    tokens = {"image_token_id": 120, "video_token_id": 121, "vision_start_token_id": 122, "vision_end_token_id": 123}
    return {"text_config": text, "vision_config": vision, **tokens}


TINY: dict[str, Tiny] = {
    "llama": Tiny(config="LlamaConfig", model="LlamaForCausalLM", fields=_dense()),
    "llama-dynamic": Tiny(
        config="LlamaConfig",
        model="LlamaForCausalLM",
        fields=_dense(rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}),
    ),
    "mistral": Tiny(config="MistralConfig", model="MistralForCausalLM", fields=_dense(sliding_window=None)),
    "qwen2": Tiny(config="Qwen2Config", model="Qwen2ForCausalLM", fields=_dense()),
    "qwen3": Tiny(config="Qwen3Config", model="Qwen3ForCausalLM", fields=_dense(head_dim=32)),
    "gpt-neox": Tiny(
        config="GPTNeoXConfig",
        model="GPTNeoXForCausalLM",
        fields={
            **{key: value for key, value in DENSE.items() if key != "num_key_value_heads"},
            "rope_parameters": {**PLAIN, "partial_rotary_factor": 0.25},
        },
    ),
    "phi3": Tiny(config="Phi3Config", model="Phi3ForCausalLM", fields=_dense()),
    "phi3-longrope": Tiny(
        config="Phi3Config",
        model="Phi3ForCausalLM",
        fields=_dense(original_max_position_embeddings=32, max_position_embeddings=128, rope_parameters=LONGROPE),
    ),
    "gemma3": Tiny(
        config="Gemma3TextConfig",
        model="Gemma3ForCausalLM",
        fields=_dense(
            head_dim=32,
            query_pre_attn_scalar=48,
            sliding_window=16,
            layer_types=["sliding_attention", "full_attention", "full_attention"],
            num_hidden_layers=3,
            rope_parameters=_two_bases(),
        ),
    ),
    "olmo3": Tiny(
        config="Olmo3Config",
        model="Olmo3ForCausalLM",
        fields=_dense(
            sliding_window=16,
            layer_types=["sliding_attention", "full_attention", "full_attention"],
            num_hidden_layers=3,
            rope_parameters=_two_bases({"rope_type": "default", "rope_theta": 500000.0}),
        ),
    ),
    "gpt-oss": Tiny(
        config="GptOssConfig",
        model="GptOssForCausalLM",
        fields=_dense(
            head_dim=16,
            num_local_experts=2,
            num_experts_per_tok=1,
            sliding_window=16,
            layer_types=["sliding_attention", "full_attention"],
            rope_parameters=YARN_TRUNCATE_OFF,
        ),
    ),
    "smollm3": Tiny(
        config="SmolLM3Config",
        model="SmolLM3ForCausalLM",
        fields=_dense(num_hidden_layers=4, no_rope_layers=[1, 1, 1, 0]),
    ),
    "llama4": Tiny(config="Llama4TextConfig", model="Llama4ForCausalLM", fields=_llama4(attn_temperature_tuning=False)),
    "llama4-temperature": Tiny(
        config="Llama4TextConfig", model="Llama4ForCausalLM", fields=_llama4(attn_temperature_tuning=True)
    ),
    "deepseek-v3": Tiny(
        config="DeepseekV3Config",
        model="DeepseekV3ForCausalLM",
        fields=_dense(
            num_key_value_heads=4,
            moe_intermediate_size=32,
            n_routed_experts=4,
            n_shared_experts=1,
            num_experts_per_tok=2,
            n_group=1,
            topk_group=1,
            first_k_dense_replace=1,
            kv_lora_rank=16,
            q_lora_rank=16,
            qk_rope_head_dim=16,
            qk_nope_head_dim=16,
            v_head_dim=16,
            rope_parameters=YARN_MSCALE,
        ),
    ),
    "qwen3.5-text": Tiny(config="Qwen3_5TextConfig", model="Qwen3_5ForCausalLM", fields=_qwen3_5_text()),
    "qwen3.5": Tiny(
        config="Qwen3_5Config", model="Qwen3_5ForConditionalGeneration", fields=_qwen3_5_text(), nested=_qwen3_5
    ),
}


def config(name: str, **changes: Any) -> PreTrainedConfig:
    """The configuration of a tiny model; `changes` replace its fields (those of the text configuration where nested)."""
    tiny = TINY[name]
    fields = {**tiny.fields, **changes}
    # Classes complete the dictionaries they are given, so each configuration has its own.
    fields = {key: dict(value) if isinstance(value, dict) else value for key, value in fields.items()}
    cls = getattr(transformers, tiny.config)
    built: PreTrainedConfig = cls(**(tiny.nested(fields) if tiny.nested else fields))
    return built


def model(name: str, *, seed: int = 0, attention: str = "eager", **changes: Any) -> PreTrainedModel:
    """A tiny model with random float32 weights, in eval mode. The same seed gives the same weights."""
    cls = getattr(transformers, TINY[name].model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built: PreTrainedModel = cls._from_config(config(name, **changes), attn_implementation=attention)
        for parameter in built.parameters():
            # Gates, sinks and norms that start at a constant would hide mistakes.
            parameter.data.add_(torch.randn_like(parameter) * 0.02)
    return built.eval()


def twin(built: PreTrainedModel, name: str, **changes: Any) -> PreTrainedModel:
    """Another tiny model with the weights of `built` and a changed configuration: the independent reference."""
    other = model(name, **changes)
    other.load_state_dict(built.state_dict())
    return other


@functools.cache
def tokens(length: int, *, seed: int = 1) -> torch.Tensor:
    """Random token ids, int64 [1, length], without special tokens or image tokens."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, 120, (1, length), generator=generator)


@torch.no_grad()
def logits(built: PreTrainedModel, length: int = 48) -> torch.Tensor:
    """Logits of `built` on `tokens(length)`: float32 [length, vocabulary]."""
    return built(input_ids=tokens(length), use_cache=False).logits[0]
