"""GGUF metadata as a transformers config."""

import math
from typing import Any

import numpy as np
import pytest

from ropewalk.core.errors import SourceError, UnsupportedError
from ropewalk.core.geometry import geometric
from ropewalk.engines import llamacpp
from ropewalk.engines import transformers as stock

LLAMA: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.context_length": 32768,
    "llama.embedding_length": 512,
    "llama.feed_forward_length": 1024,
    "llama.attention.head_count": 8,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": float(np.float32(1e-5)),
    "llama.rope.freq_base": 500000.0,
    "llama.rope.dimension_count": 64,
    "llama.vocab_size": 100,
}


def metadata(architecture: str = "llama", **keys: Any) -> dict[str, Any]:
    """The keys of a small Llama under another name, changed by `keys` (dots spelled as two underscores)."""
    content = {key.replace("llama.", f"{architecture}."): value for key, value in LLAMA.items()}
    content["general.architecture"] = architecture
    for key, value in keys.items():
        content[f"{architecture}.{key.replace('__', '.')}"] = value
    return {key: value for key, value in content.items() if value is not None}


def read(content: dict[str, Any], **factors: np.ndarray) -> llamacpp.Reading:
    return llamacpp.read(content, shapes={}, factors={f"{name}.weight": v for name, v in factors.items()})


def rope(content: dict[str, Any], **factors: np.ndarray) -> dict[str, Any]:
    return dict(read(content, **factors).config["rope_parameters"])


def test_plain() -> None:
    reading = read(metadata())
    assert reading.notes == ()
    assert reading.config == {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 100,
        "hidden_size": 512,
        "intermediate_size": 1024,
        "num_hidden_layers": 2,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
        "attention_bias": False,
        "mlp_bias": False,
    }


def test_defaults_are_llama_cpps() -> None:
    content = metadata(rope__freq_base=None, rope__dimension_count=None, attention__head_count_kv=None)
    config = read(content).config
    assert config["rope_parameters"]["rope_theta"] == 10000.0
    assert (config["head_dim"], config["num_key_value_heads"]) == (64, 8)
    assert read(metadata(attention__key_length=128, rope__dimension_count=128)).config["head_dim"] == 128


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"rope__scaling__factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        ({"rope__scaling__type": "linear", "rope__scaling__factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        ({"rope__scale_linear": 2.0}, {"rope_type": "linear", "factor": 2.0}),
        ({"rope__scaling__type": "linear", "rope__scaling__factor": 0.0}, {"rope_type": "default"}),
        ({"rope__scaling__type": "none", "rope__scaling__factor": 4.0}, {"rope_type": "default"}),
        (
            {"rope__scaling__type": "yarn", "rope__scaling__factor": 4.0, "rope__scaling__original_context_length": 8192},
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192},
        ),
        (
            {"rope__scaling__type": "yarn", "rope__scaling__factor": 4.0},
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
        ),
    ],
)
def test_scaling_types(keys: dict[str, Any], expected: dict[str, Any]) -> None:
    assert rope(metadata(**keys)) == {**expected, "rope_theta": 500000.0}


def test_yarn_attention_factor_is_llama_cpps_product() -> None:
    content = metadata(rope__scaling__type="yarn", rope__scaling__factor=8.0, rope__scaling__attn_factor=0.5)
    assert rope(content)["attention_factor"] == pytest.approx(0.5 * (1 + 0.1 * math.log(8)))


def test_yarn_words_that_llama_cpp_ignores_are_kept_and_said() -> None:
    content = metadata(
        rope__scaling__type="yarn",
        rope__scaling__factor=8.0,
        rope__scaling__yarn_attn_factor=1.5,
        rope__scaling__yarn_beta_fast=16.0,
        rope__scaling__yarn_beta_slow=1.0,
    )
    reading = read(content)
    assert reading.config["rope_parameters"]["attention_factor"] == 1.5
    assert reading.config["rope_parameters"]["beta_fast"] == 16.0
    assert "beta_slow" not in reading.config["rope_parameters"]
    assert reading.notes == (
        "beta_fast is 16 as the file says; llama.cpp itself computes with 32 here",
        "the attention factor is 1.5 as the file says; llama.cpp itself computes with 1.20794",
    )


def test_linear_with_an_attention_factor_needs_a_factor_each() -> None:
    found = rope(metadata(rope__scaling__factor=4.0, rope__scaling__attn_factor=1.25))
    assert found["short_factor"] == found["long_factor"] == [4.0] * 32
    assert (found["rope_type"], found["attention_factor"]) == ("longrope", 1.25)


def llama3_divisors(factor: float, length: int, base: float = 500000.0, dtype: Any = np.float64) -> np.ndarray:
    """Dimension by dimension, as the Llama 3.1 reference code says it."""
    divisors = []
    for frequency in geometric(base, 64):
        wavelength = 2 * math.pi / frequency
        if wavelength < length / 4:
            divisors.append(1.0)
        elif wavelength > length / 1:
            divisors.append(factor)
        else:
            smooth = (length / wavelength - 1) / (4 - 1)
            divisors.append(1 / ((1 - smooth) / factor + smooth))
    return np.asarray(divisors, dtype=dtype).astype(np.float64)


@pytest.mark.parametrize(("factor", "length"), [(8.0, 8192), (32.0, 8192), (4.0, 2048)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_llama3_divisors_are_recognised(factor: float, length: int, dtype: Any) -> None:
    content = metadata(rope__scaling__original_context_length=length)
    assert rope(content, rope_freqs=llama3_divisors(factor, length, dtype=dtype)) == {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": length,
    }


def test_nearly_llama3_is_not_llama3() -> None:
    divisors = llama3_divisors(8.0, 8192)
    divisors[-1] *= 1.0001
    found = rope(metadata(), rope_freqs=divisors)
    assert found["rope_type"] == "longrope"
    np.testing.assert_allclose(found["long_factor"], divisors, rtol=1e-7)
    # Under another scaling the same divisors are no longer Llama 3's.
    both = rope(metadata(rope__scaling__factor=2.0), rope_freqs=llama3_divisors(8.0, 8192))
    np.testing.assert_allclose(both["short_factor"], 2 * llama3_divisors(8.0, 8192), rtol=1e-7)


def test_divisors_under_yarn() -> None:
    """theta / f everywhere, and YaRN's mix of that with that over s."""
    divisors = np.linspace(1.0, 3.0, 32)
    keys = {"rope__scaling__type": "yarn", "rope__scaling__factor": 4.0, "rope__scaling__original_context_length": 8192}
    found = rope(metadata(**keys), rope_freqs=divisors)
    unmixed = stock.read(read(metadata(**keys)).config).groups[0].inv_freq
    mixed = stock.read(read(metadata(**keys), rope_freqs=divisors).config).groups[0].inv_freq
    assert unmixed is not None
    assert mixed is not None
    np.testing.assert_allclose(mixed, unmixed / divisors, rtol=3e-7)
    assert found["attention_factor"] == pytest.approx(1 + 0.1 * math.log(4))


def test_longrope() -> None:
    content = metadata(
        rope__scaling__type="longrope", rope__scaling__attn_factor=1.19, rope__scaling__original_context_length=4096
    )
    short, long = np.full(32, 1.25), np.linspace(1.5, 60.0, 32)
    found = rope(content, rope_factors_long=long, rope_factors_short=short)
    assert found["short_factor"] == [1.25] * 32
    np.testing.assert_allclose(found["long_factor"], long, rtol=1e-7)
    assert (found["original_max_position_embeddings"], found["attention_factor"]) == (4096, 1.19)


def test_gemma3_has_two_vectors() -> None:
    content = metadata(
        "gemma3",
        block_count=12,
        attention__key_length=64,
        attention__sliding_window=512,
        rope__freq_base=1000000.0,
        rope__scaling__factor=8.0,
    )
    config = read(content).config
    assert config["rope_parameters"] == {
        "full_attention": {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 8.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    }
    assert [i for i, kind in enumerate(config["layer_types"]) if kind == "full_attention"] == [5, 11]
    assert (config["sliding_window"], config["query_pre_attn_scalar"]) == (512, 64)
    content["gemma3.block_count"], content["gemma3.embedding_length"] = 62, 8 * 96
    assert read(content).config["query_pre_attn_scalar"] == 96


def test_tokens() -> None:
    content = {**metadata(), "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.padding_token_id": 0}
    config = read(content).config
    assert (config["bos_token_id"], config["pad_token_id"]) == (1, 0)
    assert "eos_token_id" not in config
    with pytest.raises(SourceError, match=r"eos_token_id is 100, expected one below 100"):
        read({**content, "tokenizer.ggml.eos_token_id": 100})


def test_other_architectures_are_named() -> None:
    with pytest.raises(UnsupportedError, match=r"architecture 'mamba' yet, only of llama, qwen2, qwen3, gemma3; take the"):
        read({"general.architecture": "mamba"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("expert_count", 8),
        ("attention__sliding_window", 4096),
        ("attention__scale", 0.1),
        ("logit_scale", 16.0),
        ("attention__causal", False),
        ("final_logit_softcapping", 30.0),
        ("attention__max_alibi_bias", 8.0),
        ("rope__scaling__alpha", 1000.0),
        ("rope__dimension_count", 32),
        ("attention__value_length", 128),
    ],
)
def test_what_the_config_cannot_carry_is_refused(key: str, value: Any) -> None:
    content = metadata(attention__key_length=64, **{key: value})
    with pytest.raises(UnsupportedError, match=rf"llama.{key.replace('__', '.')} = {value}.* cannot carry; take the orig"):
        read(content)


def test_harmless_values_are_not_refused() -> None:
    harmless = metadata(expert_count=0, logit_scale=1.0, attention__causal=True, attention__scale=0.0)
    assert read(harmless).config == read(metadata()).config


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("context_length", None, "is missing, expected a whole number from 1 to 2147483647"),
        ("context_length", 0, "is 0, expected"),
        ("context_length", 2**32, "is 4294967296, expected"),
        ("context_length", "long", "is 'long', expected"),
        ("context_length", True, "is True, expected"),
        ("block_count", 10**6, "is 1000000, expected a whole number from 1 to 4096"),
        ("rope__scaling__type", np.ones(3), "expected one value and not a list"),
        ("attention__key_length", [64], "expected one value and not a list"),
        ("rope__dimension_count", 0, "is 0, expected a whole number"),
        ("attention__head_count", [8, 8], r"is \[8, 8\], expected one value"),
        ("attention__layer_norm_rms_epsilon", math.nan, "is nan, expected a number above 0"),
        ("rope__freq_base", math.inf, "is inf, expected a number above 1"),
        ("rope__freq_base", 1.0, "is 1.0, expected a number above 1"),
        ("rope__freq_base", -5.0, "is -5.0, expected"),
        ("rope__scaling__factor", -2.0, "is -2.0, expected a number above 0"),
        ("rope__dimension_count", 63, "is 63, expected an even number"),
        ("vocab_size", None, "is missing, expected"),
    ],
)
def test_absurd_keys(key: str, value: Any, expected: str) -> None:
    with pytest.raises(SourceError, match=rf"GGUF key llama\..* {expected}"):
        read(metadata(**{key: value}))


def test_scaling_that_was_lost_or_is_unknown() -> None:
    with pytest.raises(UnsupportedError, match=r"rope scaling 'dynamic', known are none, linear, yarn and longrope"):
        read(metadata(rope__scaling__type="dynamic"))
    with pytest.raises(SourceError, match=r"says longrope and has no rope_factors_long.weight .* was lost"):
        read(metadata(rope__scaling__type="longrope"))
    with pytest.raises(UnsupportedError, match=r"has rope_freqs.weight, which llama.cpp does not read for qwen2"):
        read(metadata("qwen2"), rope_freqs=np.ones(32))


@pytest.mark.parametrize("bad", [np.ones(31), np.zeros(32), -np.ones(32), np.full(32, np.nan), np.full(32, 1e30)])
def test_broken_divisors(bad: np.ndarray) -> None:
    with pytest.raises(SourceError, match=r"rope_freqs.weight of shape \(3[12],\) is broken, expected 32 numbers from 1e-6"):
        read(metadata(), rope_freqs=bad)
