"""llama.cpp's words: what the metadata of a GGUF file says, as a transformers config.

Read in llama.cpp (summer 2026): keys `ARCH.rope.*`, and the tensors that change frequencies. `rope_freqs.weight` holds one
divisor for each frequency, theta_i = pos * w_i / f_i; `rope_factors_long/short.weight` are those of LongRoPE
(arXiv:2402.13753). On cos and sin stands, for YaRN (arXiv:2309.00071, equation 22),

    A = (1 + 0.1 ln s) * rope.scaling.attn_factor

and `rope.scaling.attn_factor` alone for every other type. llama.cpp's own converter writes a checkpoint's attention
factor into `yarn_attn_factor` and its betas into `yarn_beta_*`, which most families in llama.cpp then ignore. We take them
at their word, since the file is read here for what its author meant, and say so in a note.

Given up: families beyond the four below, and mixtures of experts. Keys that change the computation in a way the config
could not carry are refused by name.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ropewalk.core.errors import SourceError, UnsupportedError
from ropewalk.core.geometry import Vector, geometric

DIVISORS = "rope_freqs.weight"
LONG, SHORT = "rope_factors_long.weight", "rope_factors_short.weight"
FACTOR_TENSORS = (DIVISORS, LONG, SHORT)
"""Tensors that say something of positions, and are no weights."""

LLAMA3_LENGTHS = (8192,)
"""Original lengths that are tried beside the file's own when divisors are recognised as Llama 3's."""

_LARGEST = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class Family:
    """One of llama.cpp's architectures, in transformers' words."""

    model_type: str
    class_name: str
    permuted: bool = False
    """Whether llama.cpp stores query and key rows so that rotated pairs lie next to each other."""
    factors: bool = False
    """Whether llama.cpp reads factor tensors for it."""
    qkv_bias: bool = False
    head_norms: bool = False
    """Whether queries and keys are normalised per head."""
    gemma: bool = False
    """Four norms a layer, stored with 1 added; two vectors of frequencies."""


FAMILIES: Mapping[str, Family] = {
    "llama": Family(model_type="llama", class_name="LlamaForCausalLM", permuted=True, factors=True),
    "qwen2": Family(model_type="qwen2", class_name="Qwen2ForCausalLM", qkv_bias=True),
    "qwen3": Family(model_type="qwen3", class_name="Qwen3ForCausalLM", head_norms=True),
    "gemma3": Family(model_type="gemma3_text", class_name="Gemma3ForCausalLM", head_norms=True, gemma=True),
}
"""llama.cpp's `llama` is also Mistral's and SmolLM2's: the same computation."""

STRANGE: Mapping[str, tuple[Any, ...]] = {
    "expert_count": (0,),
    "attention.sliding_window": (0,),
    "attention.scale": (0.0,),
    "attention.temperature_scale": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attention.causal": (True,),
    "attn_logit_softcapping": (0.0,),
    "final_logit_softcapping": (0.0,),
    "logit_scale": (0.0, 1.0),
    "embedding_scale": (0.0, 1.0),
    "residual_scale": (0.0, 1.0),
    "rope.scaling.alpha": (0.0, 1.0),
}
"""Keys that a plain model of these families does not have, and the values under which they change nothing."""

QUANTISATIONS: Mapping[int, str] = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4",
    39: "NVFP4",
    40: "Q1_0",
}
"""`general.file_type`: the recipe a file was quantised with."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the metadata says, in transformers' words."""

    config: dict[str, Any]
    """The content of a config.json with v5's `rope_parameters`."""
    notes: tuple[str, ...]
    """What its owner should know, a sentence each."""


class _Keys:
    """The metadata of one architecture, with every number checked."""

    def __init__(self, metadata: Mapping[str, Any], architecture: str) -> None:
        self.metadata, self.architecture = metadata, architecture

    def get(self, key: str) -> int | float | str | None:
        value = self.metadata.get(f"{self.architecture}.{key}")
        if value is not None and not isinstance(value, int | float | str):
            raise self.bad(key, value, "one value and not a list")
        return value

    def whole(self, key: str, default: int | None = None, *, most: int = _LARGEST) -> int:
        value = self.get(key)
        if value is None and default is not None:
            return default
        if type(value) is not int or not 1 <= value <= most:
            raise self.bad(key, value, f"a whole number from 1 to {most}")
        return value

    def number(self, key: str, default: float | None = None, *, above: float = 0.0) -> float:
        value = self.get(key)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not max(above, 1e-12) < value <= 1e12:
            raise self.bad(key, value, f"a number above {above:g}")
        return _tidy(value)

    def bad(self, key: str, value: Any, expected: str) -> SourceError:
        return SourceError(
            f"GGUF key {self.architecture}.{key} is {_short(value)}, expected {expected}; the file is broken, get it anew"
        )


def _short(value: Any) -> str:
    return "missing" if value is None else repr(value)[:60]


def _tidy(value: float) -> float:
    """The shortest decimal that float32 rounds to the same number: 1e-05 and not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def family_of(metadata: Mapping[str, Any]) -> Family:
    """The family of a file. Raises `UnsupportedError` naming it and those that are supported."""
    architecture = metadata["general.architecture"]
    if architecture not in FAMILIES:
        raise UnsupportedError(
            f"no folder can be made of GGUF architecture {architecture!r:.60} yet, only of {', '.join(FAMILIES)}; take the "
            "original checkpoint"
        )
    return FAMILIES[architecture]


def read(metadata: Mapping[str, Any], *, shapes: Mapping[str, Sequence[int]], factors: Mapping[str, Vector]) -> Reading:
    """A transformers config from GGUF metadata, with every trace of RoPE scaling.

    `shapes` are the tensors' shapes, slowest dimension first; `factors` the content of those among `FACTOR_TENSORS` that
    the file has. Raises `UnsupportedError` for other families, and `SourceError` for a key that is missing or absurd.
    """
    family = family_of(metadata)
    keys = _Keys(metadata, metadata["general.architecture"])
    _refuse_strange(keys, family)
    num_heads = keys.whole("attention.head_count", most=1 << 16)
    hidden = keys.whole("embedding_length", most=1 << 24)
    head_dim = _head_dim(keys, family, hidden // num_heads)
    table = shapes.get("token_embd.weight")
    vocabulary = keys.whole("vocab_size") if table is None else table[0]
    config: dict[str, Any] = {
        "architectures": [family.class_name],
        "model_type": family.model_type,
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": keys.whole("feed_forward_length", most=1 << 24),
        "num_hidden_layers": keys.whole("block_count", most=4096),
        "num_attention_heads": num_heads,
        "num_key_value_heads": keys.whole("attention.head_count_kv", num_heads, most=1 << 16),
        "head_dim": head_dim,
        "max_position_embeddings": keys.whole("context_length"),
        "rms_norm_eps": keys.number("attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": "output.weight" not in shapes,
        **_tokens(metadata, vocabulary),
    }
    rope, notes = _rope(keys, family, head_dim, config["max_position_embeddings"], factors)
    if family.gemma:
        config |= _gemma(keys, config, rope)
    else:
        config |= {"hidden_act": "silu", "rope_parameters": rope}
    if family.model_type == "llama":
        config |= {"attention_bias": "blk.0.attn_q.bias" in shapes, "mlp_bias": "blk.0.ffn_up.bias" in shapes}
    elif family.model_type == "qwen3":
        config["attention_bias"] = "blk.0.attn_q.bias" in shapes
    return Reading(config=config, notes=tuple(notes))


def _refuse_strange(keys: _Keys, family: Family) -> None:
    for key, harmless in STRANGE.items():
        value = keys.get(key)
        if value is None or (family.gemma and key == "attention.sliding_window"):
            continue
        if value not in harmless:
            raise UnsupportedError(
                f"this GGUF file says {keys.architecture}.{key} = {_short(value)}, which a {family.model_type} folder "
                "cannot carry; take the original checkpoint"
            )


def _head_dim(keys: _Keys, family: Family, quotient: int) -> int:
    said = keys.get("rope.dimension_count" if keys.get("attention.key_length") is None else "attention.key_length")
    head_dim = keys.whole("attention.key_length", said if type(said) is int else max(quotient, 1), most=1 << 16)
    rotary_dim = keys.whole("rope.dimension_count", head_dim, most=1 << 16)
    if head_dim % 2:
        raise keys.bad("attention.key_length", head_dim, "an even number")
    value_dim = keys.whole("attention.value_length", head_dim, most=1 << 16)
    for key, value in (("rope.dimension_count", rotary_dim), ("attention.value_length", value_dim)):
        if value != head_dim:
            raise UnsupportedError(
                f"this GGUF file says {keys.architecture}.{key} = {value} beside heads of {head_dim} dimensions, "
                f"which a {family.model_type} folder cannot carry; take the original checkpoint"
            )
    return head_dim


def _tokens(metadata: Mapping[str, Any], vocabulary: int) -> dict[str, int]:
    names = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
    ids = {name: metadata.get(f"tokenizer.ggml.{key}_token_id") for name, key in names.items()}
    for name, token in ids.items():
        if token is not None and (type(token) is not int or not 0 <= token < vocabulary):
            raise SourceError(f"the GGUF file's {name} is {_short(token)}, expected one below {vocabulary}; get it anew")
    return {name: token for name, token in ids.items() if token is not None}


def _gemma(keys: _Keys, config: Mapping[str, Any], rope: dict[str, Any]) -> dict[str, Any]:
    """Gemma 3: every sixth layer sees all, the others look through a window and have a base of their own, unscaled."""
    num_layers, head_dim = config["num_hidden_layers"], config["head_dim"]
    # The 27B model scales attention by its hidden size per head, and is known by its layers, in llama.cpp as well.
    scalar = config["hidden_size"] // config["num_attention_heads"] if num_layers == 62 else head_dim
    local = {"rope_type": "default", "rope_theta": keys.number("rope.freq_base_swa", 10000.0, above=1.0)}
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": scalar,
        "sliding_window": keys.whole("attention.sliding_window"),
        "layer_types": ["sliding_attention" if (i + 1) % 6 else "full_attention" for i in range(num_layers)],
        "rope_parameters": {"full_attention": rope, "sliding_attention": local},
    }


def _rope(
    keys: _Keys, family: Family, head_dim: int, length: int, factors: Mapping[str, Vector]
) -> tuple[dict[str, Any], list[str]]:
    """`rope_parameters` of the layers that see all, and notes."""
    base = keys.number("rope.freq_base", 10000.0, above=1.0)
    kind = keys.get("rope.scaling.type")
    # A file without a type is linear to llama.cpp, and older ones have their factor under another key.
    kind = "linear" if kind is None else kind
    if kind not in ("none", "linear", "yarn", "longrope"):
        raise UnsupportedError(f"this GGUF file says rope scaling {_short(kind)}, known are none, linear, yarn and longrope")
    factor = keys.number("rope.scaling.factor", keys.number("rope.scale_linear", 1.0)) if _factor_said(keys) else 1.0
    factor = 1.0 if kind == "none" else factor
    magnitude = keys.number("rope.scaling.attn_factor", 1.0)
    original = keys.whole("rope.scaling.original_context_length", length)
    vectors = _vectors(kind, family, factors, head_dim)
    if kind == "yarn" and vectors is None:
        return _yarn(keys, base, factor, magnitude, original)
    if kind == "yarn" and vectors is not None:
        divisors = vectors[0] * _yarn_divisors(geometric(base, head_dim), keys, base, factor, original)
        return _longrope(base, (divisors, divisors), _mscale(factor) * magnitude, original), []
    if vectors is None:
        if magnitude != 1.0:
            return _longrope(base, (np.full(head_dim // 2, factor),) * 2, magnitude, original), []
        scaling = {"rope_type": "linear", "factor": factor} if factor != 1.0 else {"rope_type": "default"}
        return {**scaling, "rope_theta": base}, []
    if kind != "longrope" and factor == 1.0 and magnitude == 1.0:
        found = recognise_llama3(vectors[0], base, (original, *LLAMA3_LENGTHS))
        if found is not None:
            return found, []
    short, long = (vector * factor for vector in vectors)
    return _longrope(base, (short, long), magnitude, original), []


def _factor_said(keys: _Keys) -> bool:
    """A factor of 0 is llama.cpp's way to say there is none."""
    return any(keys.get(key) not in (None, 0, 0.0) for key in ("rope.scaling.factor", "rope.scale_linear"))


def _vectors(kind: str, family: Family, factors: Mapping[str, Vector], head_dim: int) -> tuple[Vector, Vector] | None:
    """Divisors for short and for long texts, or None where the file has none."""
    if factors and not family.factors:
        raise UnsupportedError(
            f"this GGUF file has {' and '.join(factors)}, which llama.cpp does not read for {family.model_type}"
        )
    for name, vector in factors.items():
        if vector.shape != (head_dim // 2,) or not np.all((vector > 1e-6) & (vector < 1e9)):
            raise SourceError(
                f"GGUF tensor {name} of shape {vector.shape} is broken, expected {head_dim // 2} numbers from 1e-6 to 1e9"
            )
    if DIVISORS in factors:
        return factors[DIVISORS], factors[DIVISORS]
    if kind != "longrope":
        return None
    if LONG not in factors or SHORT not in factors:
        raise SourceError(
            f"this GGUF file says longrope and has no {LONG} and {SHORT}: its scaling was lost when it was made; "
            "take the original checkpoint"
        )
    return factors[SHORT], factors[LONG]


def _mscale(factor: float) -> float:
    return 0.1 * math.log(factor) + 1.0 if factor > 1.0 else 1.0


def _yarn(keys: _Keys, base: float, factor: float, magnitude: float, original: int) -> tuple[dict[str, Any], list[str]]:
    rope: dict[str, Any] = {
        "rope_type": "yarn",
        "rope_theta": base,
        "factor": factor,
        "original_max_position_embeddings": original,
    }
    notes = []
    for key, name, usual in (("yarn_beta_fast", "beta_fast", 32.0), ("yarn_beta_slow", "beta_slow", 1.0)):
        beta = keys.number(f"rope.scaling.{key}", usual)
        if beta != usual:
            rope[name] = beta
            notes.append(f"{name} is {beta:g} as the file says; llama.cpp itself computes with {usual:g} here")
    if magnitude != 1.0:
        rope["attention_factor"] = _mscale(factor) * magnitude
    elif keys.get("rope.scaling.yarn_attn_factor") is not None:
        rope["attention_factor"] = keys.number("rope.scaling.yarn_attn_factor")
        notes.append(
            f"the attention factor is {rope['attention_factor']:g} as the file says; llama.cpp itself computes with "
            f"{_mscale(factor):g}"
        )
    return rope, notes


def _yarn_divisors(plain: Vector, keys: _Keys, base: float, factor: float, original: int) -> Vector:
    """What YaRN divides each plain frequency by, for files that have divisors beside it."""
    dim = 2 * plain.size

    def where(beta: float) -> float:
        return dim * math.log(original / (beta * 2.0 * math.pi)) / (2.0 * math.log(base))

    low = max(math.floor(where(keys.number("rope.scaling.yarn_beta_fast", 32.0))), 0)
    high = min(math.ceil(where(keys.number("rope.scaling.yarn_beta_slow", 1.0))), dim - 1)
    ramp = np.clip((np.arange(plain.size) - low) / max(0.001, high - low), 0.0, 1.0)
    return np.asarray(1.0 / (ramp / factor + 1.0 - ramp), dtype=np.float64)


def _longrope(base: float, vectors: Sequence[Vector], magnitude: float, original: int) -> dict[str, Any]:
    """A divisor for each dimension: what no other type can say, LongRoPE's spelling can."""
    short, long = ([_tidy(x) for x in vector] for vector in vectors)
    return {
        "rope_type": "longrope",
        "rope_theta": base,
        "short_factor": short,
        "long_factor": long,
        "original_max_position_embeddings": original,
        "attention_factor": magnitude,
    }


def recognise_llama3(divisors: Vector, base: float, lengths: Sequence[int]) -> dict[str, Any] | None:
    """Llama 3's parameters where they give exactly these divisors, else None.

    `divisors` is float64 [rotary_dim/2]. Low and high frequency factor are those of every published model (1 and 4).
    """
    factor = _tidy(float(np.max(divisors)))
    turns = geometric(base, 2 * divisors.size) / (2.0 * math.pi)
    for length in dict.fromkeys(lengths):
        smooth = np.clip((length * turns - 1.0) / 3.0, 0.0, 1.0)
        kept = (1.0 - smooth) / factor + smooth
        # The converter works in float32, and where bands meet the rounding of `smooth` shows.
        if np.allclose(1.0 / divisors, kept, rtol=2e-6, atol=1e-6):
            return {
                "rope_type": "llama3",
                "rope_theta": base,
                "factor": factor,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": length,
            }
    return None
