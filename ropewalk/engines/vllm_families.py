"""How each family turns in vLLM: which of a few ways its attention asks for a table, and the file that says so.

Read in vLLM 0.32.0, `model_executor/models` and, where a name has a slash, `models`; `registry.py` for what runs elsewhere.
A family that is in none of the tables was not read.

Given up: what a family does beside positions, and code for devices other than CUDA and CPU.
"""

from dataclasses import dataclass

WHOLE = {
    "afmoe": "afmoe.py", "apertus": "apertus.py", "cohere": "commandr.py", "cohere2": "commandr.py",
    "ernie4_5": "ernie45.py", "ernie4_5_moe": "ernie45_moe.py", "exaone4": "exaone4.py", "exaone_moe": "exaone_moe.py",
    "falcon": "falcon.py", "falcon_h1": "falcon_h1.py", "gemma": "gemma.py", "gemma2": "gemma2.py",
    "gemma3_text": "gemma3.py", "gemma3n_text": "gemma3n.py", "gemma4_text": "gemma4.py",
    "gemma4_unified_text": "gemma4.py", "glm4": "glm4.py", "glm4_moe": "glm4_moe.py", "glm4v_moe_text": "glm4_moe.py",
    "glm4v_text": "glm4.py", "glm_ocr_text": "glm4.py", "granite": "granite.py", "granite4_vision_text": "granite.py",
    "granitemoe": "granitemoe.py", "granitemoehybrid": "granitemoehybrid.py", "granitemoeshared": "granitemoeshared.py",
    "hy_v3": "hy_v3.py", "hyperclovax": "hyperclovax.py", "laguna": "laguna.py", "lfm2": "lfm2.py",
    "lfm2_moe": "lfm2_moe.py", "llama": "llama.py", "llama4_text": "llama4.py", "minicpm3": "minicpm3.py",
    "minimax_m2": "minimax_m2.py", "mistral": "mistral.py", "mixtral": "mixtral.py", "nemotron": "nemotron.py",
    "olmo_hybrid": "olmo_hybrid.py", "olmoe": "olmoe.py", "paddleocr_vl_text": "ernie45.py",
    "phi3": "phi3.py", "qwen2": "qwen2.py", "qwen2_5_vl_text": "qwen2.py", "qwen2_moe": "qwen2_moe.py",
    "qwen2_vl_text": "qwen2.py", "qwen3": "qwen3.py", "qwen3_5_moe_text": "qwen3_5.py", "qwen3_5_text": "qwen3_5.py",
    "qwen3_moe": "qwen3_moe.py", "qwen3_next": "qwen3_next.py", "qwen3_vl_moe_text": "qwen3_moe.py",
    "qwen3_vl_text": "qwen3.py", "stablelm": "stablelm.py",
}  # fmt: skip
"""`get_rope` with the whole of the rope parameters; by layer type where they are nested. MiniCPM 3 too: its latent head is a
head of `qk_rope_head_dim` like any other, and `mscale_all_dim` does not reach the softmax."""
QUADRUPLED = ("glm4v_moe_text", "glm4v_text", "glm_ocr_text", "paddleocr_vl_text", "qwen2_5_vl_text", "qwen2_vl_text")
"""Text parts with multimodal positions whose table has four times the rows (`MRotaryEmbedding`, `mrope_positions_factor`).
The same number is the length that YaRN's ramp starts from, so its frequencies are not those of the config. Qwen3-VL and
Qwen3.5 ask for one time, unless a server prunes video, which was not followed."""
LATENT = {
    "axk1": "AXK1.py", "deepseek_v2": "deepseek_v2.py", "deepseek_v3": "deepseek_v2.py",
    "deepseek_v32": "deepseek_v32/attention.py", "glm4_moe_lite": "glm4_moe_lite.py",
    "glm_moe_dsa": "deepseek_v32/attention.py", "longcat_flash": "longcat_flash.py",
}  # fmt: skip
"""DeepSeek's attention: every type but `default` becomes `deepseek_yarn`."""
YARN = {"gpt_oss": "gpt_oss.py"}
"""YaRN whatever the type, from five fields."""


@dataclass(frozen=True, kw_only=True)
class Top:
    """A family that reads a base and a share at the top level of its config, and no scaling of any type."""

    source: str
    base: float
    """Where `rope_theta` is left out there."""
    share: float
    """Where `partial_rotary_factor` is left out there."""
    needed: tuple[str, ...] = ()
    """Fields without which it stops."""


BASE = {
    "mimo_v2_flash": Top(
        source="mimo_v2.py",
        base=1000000.0,
        share=1.0,
        needed=(
            "hybrid_layer_pattern", "sliding_window_size", "swa_head_dim", "swa_num_attention_heads",
            "swa_num_key_value_heads",
        ),
    ),
    "minimax_m3_vl_text": Top(source="minimax_m3/nvidia/model.py", base=5000000.0, share=0.5),
}  # fmt: skip
"""Windowed layers have `swa_rope_theta` and `swa_head_dim`. MiniMax M3's text part only inside its whole config, which vLLM
has a class of its own for."""

BACKEND = (
    "arcee", "cwm", "emu3_text_model", "flex_olmo", "glm", "gpt_neox", "hunyuan_v1_dense", "hunyuan_v1_moe",
    "hunyuan_vl_text", "jais2", "mellum", "olmo", "olmo2", "olmo3", "phi", "seed_oss", "smollm3", "starcoder2", "vaultgemma",
)  # fmt: skip
"""What the registry itself sends to transformers' own modules."""
FALLBACK = (
    "aria_text", "axk2", "bitnet", "doge", "dots1", "helium", "jetmoe", "ministral", "modernbert-decoder", "nanochat",
    "persimmon", "phi4_multimodal", "solar_open", "youtu",
)  # fmt: skip
"""What the registry does not have, and whose modules in transformers call the attention interface once in each layer: that
is what vLLM's backend for them asks for (`models/transformers/fusers/attention.py`)."""
SINCE = {"kolibri1": ">=0.33,<0.34"}
"""What only later versions run, through transformers' own modules: before, transformers does not have it."""

_INTERFACE = (
    "its registry has no such model, and in transformers' modules not every layer calls the attention interface just once"
)
_NO_CLASS = "neither vLLM nor its transformers has a config class and modules for it; remote code is not read"
UNSUPPORTED = {
    "bailing_hybrid": "its transformers has no such family before 5.20, and from there on " + _INTERFACE,
    "bamba": _INTERFACE,
    "diffllama": _INTERFACE,
    "flint": "there is none before 0.33, which reads it by a config class of its own, where no_rope_layer_indices and not "
    "layer_types say which layers turn",
    "gpt_neox_japanese": _INTERFACE,
    "granite_docling_text": _NO_CLASS,
    "hy_v4": "it rotates pairs (2i, 2i+1) of the same weights where transformers rotates halves, which no frequency shows",
    "internlm3": _NO_CLASS,
    "iquestcoder": _NO_CLASS,
    "lfm3": _NO_CLASS,
    "minimax": _INTERFACE,
}
"""What vLLM cannot load, or not so that its numbers could be told, and why."""

NOT_READ = ("deepseek_ocr2_text", "mllama_text_model")
"""Families whose code in vLLM nobody has read for this."""

UNREAD = {
    "falcon_h1": ("attn_rotary_emb",),
    "laguna": ("swa_rope_parameters",),
    "minimax_m2": ("max_model_len",),
}
"""Fields that a family's code reads, and that are not followed here."""


def is_read(model_type: str) -> bool:
    """Whether what vLLM does with a model type is in one of the tables."""
    return any(model_type in table for table in (WHOLE, LATENT, YARN, BASE, BACKEND, FALLBACK, SINCE))
