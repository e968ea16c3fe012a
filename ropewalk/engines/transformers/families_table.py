"""The table of model families: one row for each `model_type` whose modeling code in transformers 5.23 was read.

A row says how a head's dimensions pair up, which layers share a frequency vector, which look through a window, where the
softmax scale comes from. Everything else - frequencies, precedence of spellings - is common. Every row is held against a
tiny model of the stock class by tests/engines/test_all_families.py, which also makes docs/families.md; rotary families
without a row are in `NOT_YET`, each with its reason.

Given up: guessing from key names. A wrong layout or a missed temperature gives a model that runs and is wrong.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Family:
    """In what a family differs from Llama, which is all defaults."""

    layout: Literal["half", "interleaved"] = "half"
    """How rotated dimensions pair up; `interleave_key` can overrule it."""
    interleave_key: str | None = None
    """A config field that says whether the layout is interleaved."""
    partial: bool = False
    """Whether the family can rotate a part of each head. Where it cannot, stock code breaks on partial_rotary_factor."""
    base_key: str = "rope_theta"
    """The top-level field of the base in the old spelling."""
    partial_key: str = "partial_rotary_factor"
    """The top-level field of the rotated share in the old spelling."""
    typed: bool = False
    """Whether full and sliding-window layers have a vector each (`rope_parameters` nested by layer type)."""
    local_base_key: str | None = None
    """Old spelling: the top-level field of the base of the sliding-window layers, where `typed`."""
    window: Literal["none", "all", "by-type"] = "none"
    """Which layers `sliding_window` is for."""
    window_switch: bool = False
    """Whether `sliding_window` counts only with `use_sliding_window`."""
    position_free: bool = False
    """Whether `no_rope_layers` (1 = rotated) names layers without positions."""
    chunked: bool = False
    """Whether rotated layers attend inside chunks of `attention_chunk_size` tokens."""
    recurrent: str | None = None
    """The layer type that is recurrent and has no positions."""
    mrope: bool = False
    """Multimodal positions, equal to plain ones on text."""
    mla: bool = False
    """Multi-head latent attention: `qk_rope_head_dim` of `qk_nope_head_dim + qk_rope_head_dim` are rotated, and
    `mscale_all_dim` multiplies the whole q.k."""
    scale_key: Literal["", "query_pre_attn_scalar", "attention_multiplier"] = ""
    """The field the softmax scale is made from, where it is not head_dim**-0.5."""
    rope_types: tuple[str, ...] = ()
    """The types its config class admits, if not all."""
    renamed_types: tuple[tuple[str, str], ...] = ()
    """Types that its config class reads as another one."""
    own_original_length: bool = False
    """Whether the config class has a top-level `original_max_position_embeddings`, which then always wins."""
    needs_head_dim: bool = False
    """Whether the config class leaves `head_dim` null, on which the stock code of some types breaks."""
    rotates: Literal["all", "sliding", "sliding-or-all"] = "all"
    """Which layers rotate: only those that look through a window, or all of them where no window is set."""
    names: tuple[tuple[str, str], ...] = ()
    """Fields that this config class has under another name: ours, its own."""
    softmax_scale: float | None = None
    """What q.k is multiplied with, where the code fixes it."""
    whole: bool = False
    """Where `typed`: `rope_parameters` are taken as they stand, without old spellings and without class defaults inside."""
    rotary_dim_key: str | None = None
    """A top-level field with the number of rotated dimensions, which gives the share where nothing else does."""
    ntk_alpha: bool = False
    """Whether type `dynamic` with `alpha` means a fixed, larger base."""
    temperature_tuning: bool = False
    """Whether `attn_temperature_tuning` makes the logit scale depend on the position."""
    scaling_for_all: bool = False
    """Old spelling: whether `rope_scaling` is for the sliding-window layers too, where `typed`."""
    halved_window: bool = False
    """Whether the field of the window counts both directions, of which a decoder sees one."""
    full_head_dim: tuple[str, int] | None = None
    """Where heads of full-attention layers have a size of their own: the field that says it, and the class default."""
    cross_attention: bool = False
    """Whether `cross_attention_layers` names layers that look at an image and rotate nothing."""
    last_is_full: bool = False
    """Whether the config class makes the last layer a full-attention one, whatever is listed."""


_PLAIN = Family()
_PARTIAL = Family(partial=True)
_INTERLEAVED = Family(layout="interleaved")
_INTERLEAVED_PARTIAL = Family(layout="interleaved", partial=True)
_WINDOW_BY_TYPE = Family(window="by-type")
_ROTATED_WINDOWS = Family(window="by-type", rotates="sliding")
_QWEN = Family(window="by-type", window_switch=True)
_GRANITE = Family(scale_key="attention_multiplier")
_MLA = Family(layout="interleaved", mla=True)
_MLA_SWITCHED = Family(layout="interleaved", interleave_key="rope_interleave", mla=True)
_PHI3 = Family(
    partial=True,
    window="all",
    rope_types=("default", "longrope"),
    renamed_types=(("su", "longrope"), ("yarn", "longrope")),
    own_original_length=True,
)
_NEOX = Family(partial=True, base_key="rotary_emb_base", partial_key="rotary_pct")
_QWEN3_5 = Family(partial=True, mrope=True, recurrent="linear_attention")
_MROPE = Family(mrope=True)
_QWEN_VL = Family(mrope=True, window="by-type", window_switch=True, renamed_types=(("mrope", "default"),))
_GLM_VL = Family(layout="interleaved", partial=True, mrope=True)
_GEMMA4 = Family(
    typed=True,
    whole=True,
    window="by-type",
    softmax_scale=1.0,
    full_head_dim=("global_head_dim", 512),
    last_is_full=True,
)

FAMILIES: dict[str, Family] = {
    "llama": _PLAIN,
    "mistral": Family(window="all"),
    "mixtral": Family(window="all", needs_head_dim=True),
    "qwen2": _QWEN,
    "qwen2_moe": _QWEN,
    "qwen3": _QWEN,
    "qwen3_moe": Family(window="all", window_switch=True),
    "gpt_neox": _NEOX,
    "phi": _PARTIAL,
    "phi3": _PHI3,
    "stablelm": _PARTIAL,
    "starcoder2": Family(window="all"),
    "olmo": _PLAIN,
    "olmo2": _PLAIN,
    "olmo3": Family(typed=True, window="by-type"),
    "gemma": _PLAIN,
    "gemma2": Family(window="by-type", scale_key="query_pre_attn_scalar"),
    "gemma3_text": Family(
        typed=True, window="by-type", local_base_key="rope_local_base_freq", scale_key="query_pre_attn_scalar"
    ),
    "granite": _GRANITE,
    "gpt_oss": _WINDOW_BY_TYPE,
    "smollm3": Family(window="by-type", window_switch=True, position_free=True),
    "llama4_text": Family(layout="interleaved", position_free=True, chunked=True, temperature_tuning=True),
    "deepseek_v2": _MLA,
    "deepseek_v3": _MLA_SWITCHED,
    "qwen3_5_text": _QWEN3_5,
    "afmoe": _ROTATED_WINDOWS,
    "apertus": _PLAIN,
    "arcee": _PLAIN,
    "aria_text": _PLAIN,
    "axk1": _MLA_SWITCHED,
    "axk2": _MLA,
    "bailing_hybrid": Family(layout="interleaved", mla=True, recurrent="linear_attention"),
    "bamba": Family(partial=True, partial_key="", recurrent="linear_attention"),
    "bitnet": _PLAIN,
    "cohere": _INTERLEAVED,
    "cohere2": Family(layout="interleaved", window="by-type", rotates="sliding"),
    "cwm": _WINDOW_BY_TYPE,
    "deepseek_ocr2_text": _PLAIN,
    "deepseek_v32": _MLA,
    "diffllama": _PLAIN,
    "doge": Family(window="all"),
    "dots1": _WINDOW_BY_TYPE,
    "emu3_text_model": _PLAIN,
    "ernie4_5": _INTERLEAVED,
    "ernie4_5_moe": _INTERLEAVED,
    "exaone4": Family(window="by-type", rotates="sliding-or-all"),
    "exaone_moe": _ROTATED_WINDOWS,
    "falcon": Family(names=(("num_key_value_heads", "num_kv_heads"),)),
    "falcon_h1": _PLAIN,
    "flex_olmo": _PLAIN,
    "flint": _ROTATED_WINDOWS,
    "gemma3n_text": Family(typed=True, window="by-type", local_base_key="rope_local_base_freq", softmax_scale=1.0),
    "gemma4_text": _GEMMA4,
    "gemma4_unified_text": _GEMMA4,
    "glm": _INTERLEAVED_PARTIAL,
    "glm4": _INTERLEAVED_PARTIAL,
    "glm4_moe": _PARTIAL,
    "glm4_moe_lite": _MLA_SWITCHED,
    "glm4v_moe_text": Family(partial=True, mrope=True),
    "glm4v_text": _GLM_VL,
    "glm_moe_dsa": _MLA,
    "glm_ocr_text": _GLM_VL,
    "gpt_neox_japanese": _NEOX,
    "granite4_vision_text": _GRANITE,
    "granite_docling_text": _GRANITE,
    "granitemoe": _GRANITE,
    "granitemoehybrid": Family(scale_key="attention_multiplier", recurrent="linear_attention"),
    "granitemoeshared": _GRANITE,
    "helium": _INTERLEAVED,
    "hunyuan_v1_dense": Family(ntk_alpha=True),
    "hunyuan_v1_moe": Family(ntk_alpha=True),
    "hunyuan_vl_text": Family(mrope=True, ntk_alpha=True),
    "hy_v3": _PLAIN,
    "hy_v4": Family(mla=True),
    "hyperclovax": _GRANITE,
    "internlm3": _PLAIN,
    "iquestcoder": _PLAIN,
    "jais2": _PLAIN,
    "jetmoe": Family(names=(("head_dim", "kv_channels"),)),
    "kolibri1": _ROTATED_WINDOWS,
    "laguna": Family(typed=True, whole=True, partial=True, window="by-type"),
    "lfm2": Family(recurrent="conv"),
    "lfm2_moe": Family(recurrent="conv"),
    "lfm3": Family(typed=True, whole=True, window="by-type", recurrent="conv"),
    "longcat_flash": Family(layout="interleaved", mla=True, names=(("num_hidden_layers", "num_layers"),)),
    "mellum": Family(typed=True, whole=True, window="by-type"),
    "mimo_v2_flash": Family(typed=True, whole=True, partial=True, window="by-type"),
    "minicpm3": Family(mla=True),
    "minimax": Family(window="all", recurrent="linear_attention"),
    "minimax_m2": Family(partial=True, rotary_dim_key="rotary_dim"),
    "minimax_m3_vl_text": _PARTIAL,
    "ministral": _WINDOW_BY_TYPE,
    "mllama_text_model": Family(cross_attention=True),
    "modernbert-decoder": Family(
        typed=True,
        window="by-type",
        base_key="global_rope_theta",
        local_base_key="local_rope_theta",
        scaling_for_all=True,
        names=(("sliding_window", "local_attention"),),
        halved_window=True,
    ),
    "nanochat": _PLAIN,
    "nemotron": _PARTIAL,
    "olmo_hybrid": Family(recurrent="linear_attention"),
    "olmoe": _PLAIN,
    "paddleocr_vl_text": _MROPE,
    "persimmon": _PARTIAL,
    "phi4_multimodal": _PHI3,
    "qwen2_5_vl_text": _QWEN_VL,
    "qwen2_vl_text": _QWEN_VL,
    "qwen3_5_moe_text": _QWEN3_5,
    "qwen3_next": Family(partial=True, recurrent="linear_attention"),
    "qwen3_vl_moe_text": _MROPE,
    "qwen3_vl_text": _MROPE,
    "seed_oss": _PLAIN,
    "solar_open": _PARTIAL,
    "vaultgemma": Family(window="by-type", scale_key="query_pre_attn_scalar"),
    "youtu": _MLA_SWITCHED,
}

COMPOSITE = {
    "deepseek_ocr2": "deepseek_ocr2_text",
    "emu3": "emu3_text_model",
    "gemma3": "gemma3_text",
    "gemma3n": "gemma3n_text",
    "gemma4": "gemma4_text",
    "gemma4_unified": "gemma4_unified_text",
    "glm4v": "glm4v_text",
    "glm4v_moe": "glm4v_moe_text",
    "glm_ocr": "glm_ocr_text",
    "granite4_vision": "granite4_vision_text",
    "granite_docling": "granite_docling_text",
    "hunyuan_vl": "hunyuan_vl_text",
    "llama4": "llama4_text",
    "mllama": "mllama_text_model",
    "paddleocr_vl": "paddleocr_vl_text",
    "qwen2_5_vl": "qwen2_5_vl_text",
    "qwen2_vl": "qwen2_vl_text",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "qwen3_vl": "qwen3_vl_text",
    "qwen3_vl_moe": "qwen3_vl_moe_text",
}
"""Families with a `text_config`, and the model type it has when it does not say."""

FLAT = ("hunyuan_vl", "paddleocr_vl", "qwen2_5_vl", "qwen2_vl")
"""Those of them whose published configs hold the text part's fields at the top, and whose classes take them from there where
no `text_config` is."""

NOT_YET = {
    "beam": "a rotation inside windows only; its full-attention layers have a temperature that depends on the position",
    "blt": "five models inside one another, each with a rotation of its own",
    "blt_global_transformer": "a place inside BLT, which is five models with a rotation each",
    "blt_local_decoder": "a place inside BLT, which is five models with a rotation each",
    "blt_local_encoder": "a place inside BLT, which is five models with a rotation each",
    "blt_patcher": "a place inside BLT, which is five models with a rotation each",
    "chameleon": "a tokenizer of images inside it, and one vocabulary for images and text",
    "codegen": "a table of angles that its code makes from rotary_dim, so that no config field could say other frequencies",
    "cohere2_moe": "a rotation inside windows, and of full-attention layers where their feed-forward part is dense",
    "cohere_compass_text": "multimodal positions and a vector for each layer type",
    "cosmos3_edge_text": "multimodal positions, and no rope type but the default one in its config class",
    "dbrx": "its base inside attn_config, where its rotation in transformers does not look",
    "deepseek_v4": "two vectors inside each layer, for the text and for its compressed blocks",
    "dots3_note": "other head dimensions, rotated and not, in each layer type, beside latent attention",
    "dots3_note_text": "other head dimensions, rotated and not, in each layer type, beside latent attention",
    "ernie4_5_vl_moe_text": "a vector that its code puts in another order, and no rope type but the default one",
    "evolla": "layers that look at a protein between those of its text",
    "EvollaModel": "layers that look at a protein between those of its text",
    "gptj": "a table of angles that its code makes from rotary_dim, so that no config field could say other frequencies",
    "granite_swa": "a base for each layer (layer_rope_theta), and a rotary module for each base",
    "granitemoe_swa": "a base for each layer (layer_rope_theta), and a rotary module for each base",
    "hrm_text": "stacks of layers that a token passes several times, so that it has more caches than layers",
    "idefics": "layers that look at an image between those of its text",
    "ministral3": "an attention temperature that depends on the position (llama_4_scaling_beta)",
    "mistral4": "an attention temperature that depends on the position (llama_4_scaling_beta)",
    "mistral_large4_text": "a learned factor on each frequency and a temperature that depends on the position (LeRoPE)",
    "molmo2_text": "two vectors, and a list that says which layers turn by which (rope_scaling_layers)",
    "moshi": "a rotation in each layer of two models, one of them for sound",
    "muse_glimmer_text": "a base for each layer (layer_rope_theta)",
    "muse_spark_text": "a base for each layer (layer_rope_theta)",
    "phimoe": "frequencies that its code computes anew in each forward, so that no plan stays on a live model",
    "qwen2_5_omni_text": "a text part two levels deep in its whole config (thinker_config.text_config)",
    "qwen3_omni_moe_text": "a text part two levels deep in its whole config (thinker_config.text_config)",
    "qwen4_exp": "blocks that are compressed before they are rotated",
    "qwen4_exp_text": "blocks that are compressed before they are rotated",
    "recurrent_gemma": "a window over all its attention, and no rope type but the default one in its code",
    "reformer": "axial position tables",
    "roformer": "a table of angles that its code makes, so that no config field could say other frequencies",
    "step3p5": "a base and a share for each layer in lists, which end in those of its draft heads",
    "t5_gemma_module": "an encoder beside its decoder, which every layer looks at",
    "t5gemma2_decoder": "an encoder beside its decoder, which every layer looks at",
    "unlimited_ocr_text": "windows that keep a reference in sight (reference_sliding_attention)",
    "zamba2": "attention that several layers share, rotated or not by use_mem_rope",
    "zaya": "layer types under names of its own (hybrid, hybrid_sliding), each with a vector",
}
"""Families that are read in no version yet, although they may rotate: what there is in them that we have no word for."""

REFUSED = {
    "bloom": "ALiBi slopes",
    "mpt": "ALiBi slopes",
    "gpt2": "a learned position table",
    "opt": "a learned position table",
    "gpt_neo": "a learned position table",
    "gpt_bigcode": "a learned position table",
    "bert": "a learned position table",
    "roberta": "a learned position table",
    "t5": "relative position buckets",
    "mt5": "relative position buckets",
    "umt5": "relative position buckets",
    "glm5_next_text": "no positions at all",
    "mamba": "no positions at all",
    "mamba2": "no positions at all",
    "falcon_mamba": "no positions at all",
    "jamba": "no positions at all",
    "kimi_linear": "no positions at all",
    "nemotron_h": "no positions at all",
    "xlnet": "sinusoids of distances",
    "inkling_text": "a learned bias for each distance",
    "inkling2_text": "a learned bias for each distance",
}
"""Known families whose positions are not rotated, and what they have instead."""
