"""How each family turns in SGLang: what of the rope parameters its attention hands to `get_rope`, and the file that says so.

Read in SGLang 0.5.23, `srt/models`, with the config classes of its own in `srt/configs`. A family that is in none of the
tables was not read.

Given up: what a family does beside positions, and code for devices other than CUDA.
"""

PLAIN = {
    "gemma": "gemma.py", "gemma2": "gemma2.py", "granitemoe": "granitemoe.py", "granitemoeshared": "granitemoe.py",
    "hy_v3": "hunyuan_v3.py", "mixtral": "mixtral.py", "olmo": "olmo.py", "persimmon": "persimmon.py", "phi": "phi.py",
    "stablelm": "stablelm.py", "starcoder2": "starcoder2.py",
}  # fmt: skip
"""The base alone: no scaling of any type."""
SCALED = {
    "afmoe": "afmoe.py", "apertus": "apertus.py", "arcee": "arcee.py", "cohere": "commandr.py", "cohere2": "commandr.py",
    "ernie4_5_moe": "ernie4.py", "exaone4": "exaone4.py", "exaone_moe": "exaone_moe.py", "falcon_h1": "falcon_h1.py",
    "gemma3n_text": "gemma3n_causal.py", "gemma4_text": "gemma4_causal.py", "gemma4_unified_text": "gemma4_causal.py",
    "glm4": "glm4.py", "glm4_moe": "glm4_moe.py", "gpt_oss": "gpt_oss.py", "granite": "granite.py",
    "granitemoehybrid": "granitemoehybrid.py", "hunyuan_v1_dense": "hunyuan.py", "hunyuan_v1_moe": "hunyuan.py",
    "laguna": "laguna.py", "lfm2": "lfm2.py", "lfm2_moe": "lfm2_moe.py", "llama": "llama.py", "llama4_text": "llama4.py",
    "mellum": "mellum.py", "mimo_v2_flash": "mimo_v2.py", "minicpm3": "minicpm3.py", "minimax_m2": "minimax_m2.py",
    "mistral": "mistral.py", "olmo2": "olmo2.py", "olmoe": "olmoe.py", "phi3": "llama.py", "qwen2": "qwen2.py",
    "qwen2_moe": "qwen2_moe.py", "qwen3": "qwen3.py", "qwen3_5_moe_text": "qwen3_5_text.py",
    "qwen3_5_text": "qwen3_5_text.py", "qwen3_moe": "qwen3_moe.py", "qwen3_next": "qwen3_next.py",
}  # fmt: skip
"""The whole of the rope parameters. MiniCPM 3 too: its latent head is a head of `qk_rope_head_dim` like any other, and
`mscale_all_dim` does not reach the softmax."""
LATENT = {
    "deepseek_v2": "deepseek_v2.py", "deepseek_v3": "deepseek_v2.py", "deepseek_v32": "deepseek_v2.py",
    "glm4_moe_lite": "glm4_moe_lite.py", "glm_moe_dsa": "glm4_moe.py", "longcat_flash": "longcat_flash.py",
}  # fmt: skip
"""DeepSeek's attention: every type but `default` becomes `deepseek_yarn`."""
OWN = {"gemma3_text": "gemma3_causal.py", "olmo3": "olmo2.py"}
"""transformers' formulas, and a config class of SGLang's own that drops `rope_parameters`."""

FALLBACK = (
    "aria_text", "bitnet", "cwm", "doge", "dots1", "ernie4_5", "flex_olmo", "glm", "gpt_neox", "helium", "hyperclovax",
    "jais2", "jetmoe", "minimax_m3_vl_text", "ministral", "modernbert-decoder", "nanochat", "nemotron", "phi4_multimodal",
    "seed_oss", "smollm3", "solar_open", "vaultgemma",
)  # fmt: skip
"""No model of SGLang's own, and modules in transformers that say they work with its wrapper (`transformers.py`)."""
ARCHITECTURES = {"ernie4_5": ("Ernie4_5_ForCausalLM", "ernie4.py")}
"""What SGLang has under another architecture than transformers writes: then as in `SCALED`."""

_NO_WRAPPER = "it has no such model, and transformers' modules do not say that SGLang may wrap them"
_LATENT = "it has no such model, and its wrapper of transformers' modules gives a latent head the size of its rotated part"
_STATE = "it has no such model, and its wrapper of transformers' modules keeps no state for linear attention"
_NO_CLASS = "neither SGLang nor its transformers (5.19) has a config class and modules for it; remote code is not read"
UNSUPPORTED = {
    "axk1": _LATENT,
    "axk2": _LATENT,
    "bailing_hybrid": "it has it under an architecture of remote code only (BailingMoeV2_5ForCausalLM), which was not read",
    "bamba": _NO_WRAPPER,
    "diffllama": "it has no such model, and its wrapper of transformers' modules has one attention for each layer, not two",
    "falcon": _NO_WRAPPER,
    "flint": _NO_CLASS,
    "gpt_neox_japanese": _NO_WRAPPER,
    "hy_v4": "it rotates pairs (2i, 2i+1) of the same weights where transformers rotates halves, which no frequency shows",
    "internlm3": _NO_CLASS,
    "iquestcoder": _NO_CLASS,
    "kolibri1": _NO_CLASS,
    "lfm3": _NO_CLASS,
    "minimax": _STATE,
    "olmo_hybrid": _NO_WRAPPER,
    "youtu": _LATENT,
}
"""What SGLang cannot load, or not so that its numbers could be told, and why."""

NOT_READ = (
    "deepseek_ocr2_text", "emu3_text_model", "glm4v_moe_text", "glm4v_text", "glm_ocr_text", "granite4_vision_text",
    "granite_docling_text", "hunyuan_vl_text", "mllama_text_model", "paddleocr_vl_text", "qwen2_5_vl_text", "qwen2_vl_text",
    "qwen3_vl_moe_text", "qwen3_vl_text",
)  # fmt: skip
"""Families whose code in SGLang nobody has read for this."""

UNREAD = {"mimo_v2_flash": ("context_len",)}
"""Fields that a family's code reads, and that are not followed here."""


def is_read(model_type: str) -> bool:
    """Whether what SGLang does with a model type is in one of the tables."""
    return any(model_type in table for table in (PLAIN, SCALED, LATENT, OWN, FALLBACK))
