"""What SGLang computes from a config, against its own code and in its own words."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from engines.engine_configs import LONGROPE, YARN, config
from engines.engine_golden import cases, check
from engines.engine_noise import noisy
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.core.geometry import geometric
from ropewalk.engines import sglang, sglang_classes, sglang_families
from ropewalk.engines.transformers import compute as stock
from ropewalk.engines.transformers.families import FAMILIES
from ropewalk.engines.transformers.reading import measure


@pytest.mark.parametrize("case", cases("sglang"))
def test_sglangs_own_code(case: dict[str, Any]) -> None:
    check(sglang, case)


def test_dynamic_is_always_at_its_longest() -> None:
    dynamic = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
    short, long = (sglang.compute(config(dynamic), length=length) for length in (1, 16384))
    assert short.groups == long.groups
    word = short.groups["all"]
    assert word is not None
    np.testing.assert_allclose(word.inv_freq, geometric(10000.0 * 13.0 ** (16 / 14), 16))
    assert short.max_length == 16384
    assert short.depends_on == "nothing"


def test_longrope_is_chosen_by_the_longest_position_of_a_batch() -> None:
    computed = {length: sglang.compute(config(LONGROPE), length=length) for length in (1024, 1025, 1026)}
    plain = geometric(10000.0, 16)
    for length, divisor in ((1024, 1.0), (1025, 1.0), (1026, 4.0)):
        word = computed[length].groups["all"]
        assert word is not None
        np.testing.assert_allclose(word.inv_freq, plain / divisor)
        assert computed[length].depends_on == "batch"
        assert any("rotated as if it stood at 0" in note for note in computed[length].notes) == (length == 1025)
        assert any("rounded to the model's dtype" in note for note in computed[length].notes)
    alike = {**LONGROPE, "short_factor": LONGROPE["long_factor"]}
    assert sglang.compute(config(alike), length=100).depends_on == "nothing"


def test_yarn_reads_attn_factor_and_not_attention_factor() -> None:
    computed = sglang.compute(config({**YARN, "attention_factor": 1.5, "attn_factor": 1.2}), length=64)
    word = computed.groups["all"]
    assert word is not None
    assert word.attention_factor == pytest.approx(1.2 * (0.1 * np.log(4.0) + 1.0))
    assert computed.ignored == ("attention_factor",)


@pytest.mark.parametrize("model_type", list(sglang_families.PLAIN))
def test_families_that_read_the_base_alone(model_type: str) -> None:
    changes = config({"rope_type": "linear", "rope_theta": 10000.5, "factor": 2.0}, model_type=model_type, head_dim=16)
    computed = sglang.compute(changes, length=64)
    word = computed.groups["all"]
    assert word is not None
    base = 10000.0 if model_type in sglang.WHOLE_BASE else 10000.5
    np.testing.assert_array_equal(word.inv_freq, geometric(base, 2 * word.inv_freq.size))
    assert computed.ignored == ("rope_type", "factor")
    # The length is multiplied all the same.
    assert computed.max_length == 8192


def test_a_share_inside_the_rope_parameters_is_not_read() -> None:
    inside = sglang.compute(config({"rope_type": "default", "partial_rotary_factor": 0.5}, model_type="stablelm"), length=64)
    word = inside.groups["all"]
    assert word is not None
    assert word.inv_freq.size == 2
    assert inside.ignored == ("rope_parameters.partial_rotary_factor",)
    changes = config({"rope_type": "default"}, model_type="stablelm", partial_rotary_factor=0.5)
    word = sglang.compute(changes, length=64).groups["all"]
    assert word is not None
    assert word.inv_freq.size == 4


def test_olmo3_loses_its_rope_parameters() -> None:
    nested = {label: {**YARN, "rope_theta": 500000.0} for label in ("full_attention", "sliding_attention")}
    computed = sglang.compute(config(nested, model_type="olmo3"), length=64)
    for word in computed.groups.values():
        assert word is not None
        np.testing.assert_array_equal(word.inv_freq, geometric(10000.0, 16))
    assert "rope_parameters" in computed.ignored


@pytest.mark.parametrize(
    ("changes", "base", "ignored"),
    [
        ({"model_type": "exaone4", "sliding_window": None, "layer_types": ["full_attention"] * 4}, 1e6, ("rope_theta",)),
        ({"model_type": "qwen3_next", "head_dim": 16, "partial_rotary_factor": 1.0}, 1e4, ("rope_parameters",)),
        (
            {"model_type": "granitemoehybrid", "layer_types": ["full_attention"] * 4, "position_embedding_type": "rope"},
            1e4,
            ("rope_theta",),
        ),
    ],
)
def test_a_base_that_is_not_found(changes: dict[str, Any], base: float, ignored: tuple[str, ...]) -> None:
    computed = sglang.compute(config({"rope_type": "default", "rope_theta": 5e5}, **changes), length=64)
    words = [word for word in computed.groups.values() if word is not None]
    assert [word.inv_freq[1] for word in words] == pytest.approx([base ** (-1 / 8)])
    assert computed.ignored == ignored


def test_gemma3_reads_no_scaling_of_its_sliding_layers() -> None:
    linear = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
    nested = {"full_attention": linear, "sliding_attention": linear}
    changes = config(nested, model_type="gemma3_text", head_dim=16, num_hidden_layers=6)
    computed = sglang.compute(changes, length=64)
    full, sliding = computed.groups["full_attention"], computed.groups["sliding_attention"]
    assert full is not None
    assert sliding is not None
    np.testing.assert_allclose(sliding.inv_freq, 4.0 * full.inv_freq)
    assert computed.ignored == ("sliding_attention.factor",)
    assert any("CPU with AMX" in note for note in computed.notes)


@pytest.mark.parametrize("model_type", [name for name in sglang_families.FALLBACK if name in FAMILIES])
def test_families_that_run_through_transformers(model_type: str) -> None:
    family = FAMILIES[model_type]
    kinds = family.rope_types or ("linear",)
    changes = config({"rope_type": kinds[0], "rope_theta": 10000.0, "factor": 2.0}, model_type=model_type)
    if family.typed:
        changes["rope_parameters"] = {
            label: dict(changes["rope_parameters"]) for label in ("full_attention", "sliding_attention")
        }
    computed, expected = (engine.compute(changes, length=5000) for engine in (sglang, stock))
    assert computed.groups == expected.groups
    assert list(computed.groups)
    # Nested parameters have no factor at their outer level.
    assert computed.max_length == (4096 if family.typed else 8192)
    assert "runs through transformers' own modules" in computed.notes


def test_an_architecture_that_only_sglang_knows() -> None:
    scaled = {**YARN, "attention_factor": 1.5}
    stock_name = config(scaled, model_type="ernie4_5", architectures=["Ernie4_5ForCausalLM"], head_dim=16)
    own_name = {**stock_name, "architectures": ["Ernie4_5_ForCausalLM"]}
    factors = [sglang.compute(changes, length=64).groups["all"] for changes in (stock_name, own_name)]
    assert [word.attention_factor for word in factors if word] == pytest.approx([1.5, 0.1 * np.log(4.0) + 1.0])


def test_exaone4_takes_its_windows_from_the_pattern() -> None:
    types = ["sliding_attention", "full_attention"] * 2
    shape = measure(config(None, model_type="exaone4", layer_types=types, sliding_window=64))
    sglang_classes.check_layers(replace(shape, text={**shape.text, "sliding_window_pattern": "LG"}))
    with pytest.raises(ValueError, match="windows from sliding_window_pattern, which differs from layer_types"):
        sglang_classes.check_layers(replace(shape, text={**shape.text, "sliding_window_pattern": "LLLG"}))
    with pytest.raises(ValueError, match="takes the length of sliding_window_pattern, got 4: write LLLG"):
        sglang_classes.check_layers(shape)


def test_every_family_is_in_one_table() -> None:
    tables_ = (
        sglang_families.PLAIN,
        sglang_families.SCALED,
        sglang_families.LATENT,
        sglang_families.OWN,
        sglang_families.FALLBACK,
        sglang_families.UNSUPPORTED,
    )
    named = [name for table in tables_ for name in table]
    assert len(named) == len(set(named))
    assert set(FAMILIES) <= set(named) | set(sglang_families.NOT_READ)


@pytest.mark.parametrize("model_type", [name for name in sglang_families.UNSUPPORTED if name in FAMILIES])
def test_families_that_it_does_not_load(model_type: str) -> None:
    computed = sglang.compute({"model_type": model_type}, length=64)
    assert computed.groups == {}
    assert str(computed.unsupported).startswith(f"{model_type} in SGLang: ")


def test_the_tokenizer_is_no_cap() -> None:
    computed = sglang.compute(config(YARN), length=64, tokenizer_config={"model_max_length": 512})
    assert computed.max_length == 4096


def test_a_table_that_goes_on_without_its_scaling() -> None:
    alpha = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0, "alpha": 8.0}
    computed = sglang.compute(config(alpha), length=64)
    assert computed.notes == ("beyond 4096 tokens its table goes on without the scaling",)


def test_a_longrope_table_ends() -> None:
    changes = config(LONGROPE, max_seq_len=8192)
    computed = sglang.compute(changes, length=8000)
    assert computed.max_length == 8192
    assert computed.refuses == "a request of 8000 tokens reads past the end of its LongRoPE table of 4096 positions"
    assert sglang.compute(changes, length=4096).refuses is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (config({"rope_type": "linear", "factor": 4}), r"whole number 4 as factor stops it at load: write 4\.0"),
        (config({**YARN, "beta_fast": None}), r"reads beta_fast as it stands, got null"),
        (config({"rope_type": "ntk", "rope_theta": 1e4, "factor": 2.0}), "rope_type 'ntk' is not one that SGLang knows"),
        (config({"rope_type": "default", "factor": None}), "type default need a number as factor, got None"),
        (config(None, model_type="stablelm", rope_pct=2.0), "partial_rotary_factor is 2, expected a share of at most 1"),
        (config({"rope_type": "dynamic"}), "rope_parameters of type dynamic lack factor"),
        (config(LONGROPE, model_type="qwen3_moe", head_dim=16), "does not take an argument that qwen3_moe passes"),
        (config({**LONGROPE, "long_factor": [1.0] * 6}), "long_factor has 6 numbers, expected a list of 8"),
        (config({**YARN, "original_max_position_embeddings": None}), "original_max_position_embeddings is null"),
        (config({"rope_type": "linear"}, model_type="phi3"), "rope_type 'linear' is not one that phi3 takes"),
        (config(None, rope_scaling=3), "rope_scaling is an object of rope fields, got 3"),
        (
            config(LONGROPE | {"original_max_position_embeddings": 1}),
            "divides by the logarithm of original_max_position_embeddings, got 1,",
        ),
        (
            config({**YARN}, model_type="qwen3_next", head_dim=16),
            "config class for qwen3_next stops on rope_parameters of this",
        ),
        (config(None, model_type="longcat_flash"), "finds no rope parameters and stops where rope_scaling is left out"),
        (
            config({"rope_type": "yarn", "factor": 2.0}, model_type="falcon_h1", head_dim=16),
            "config class for falcon_h1 stops on yarn without original_max_position_embeddings",
        ),
        (config(None, model_type="mimo_v2_flash", head_dim=16), "a mimo_v2_flash lacks hybrid_layer_pattern and"),
        (config({**YARN}, model_type="olmo3"), "config class for olmo3 stops on flat rope_parameters"),
        (config(None, model_type="qwen3_5_text", head_dim=16), "Qwen 3.5 stops on a config without rope_parameters"),
        (
            config(
                {"full_attention": {"rope_type": "ntk", "rope_theta": 1e4}, "sliding_attention": {"rope_type": "default"}},
                model_type="gemma3_text",
                head_dim=16,
                num_hidden_layers=6,
            ),
            "rope_type 'ntk' is not one that transformers knows",
        ),
        (
            config({**YARN, "mscale": 1.0, "mrope_section": [1, 1, 0]}, model_type="qwen3_5_text", head_dim=16),
            "multimodal positions does not take mscale",
        ),
    ],
)
def test_what_stops_it(changes: dict[str, Any], message: str) -> None:
    computed = sglang.compute(changes, length=64)
    assert computed.groups == {}
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(computed.refuses)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (config(None, model_type="bloom"), "bloom has ALiBi slopes"),
        (config({**YARN, "factor": -4.0}), "factor is -4.0, expected a number above 0"),
        (config({"rope_type": "default", "rope_theta": 0.5}, model_type="starcoder2"), "the base becomes 0, which gives no"),
        (config({**YARN, "extrapolation_factor": 0.5}), "extrapolation_factor was not read"),
        (config({**YARN, "rope_type": "deepseek_yarn"}), "read for latent attention only"),
        (config(None, model_type="laguna", head_dim=16), "defaults for a laguna without rope_parameters were not read"),
        (
            config(None, model_type="exaone_moe", head_dim=16, layer_types=["full_attention"] * 4),
            "rotates every layer where layer_types name no window",
        ),
        (
            {"model_type": "minimax_m3_vl", "text_config": config(None, model_type="minimax_m3_vl_text", head_dim=16)},
            "with Mixtral's config class, which was not followed",
        ),
        (
            config(None, model_type="glm_moe_dsa", qk_rope_head_dim=16, rope_interleave=False),
            "rotates halves where rope_interleave is false",
        ),
        (config(None, dual_chunk_attention_config={}), "dual chunk attention was not read"),
    ],
)
def test_what_cannot_be_told(changes: dict[str, Any], message: str) -> None:
    computed = sglang.compute(changes, length=64)
    assert computed.refuses is None
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(computed.unsupported)


def test_a_family_that_was_not_read_is_not_taken_for_llama(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sglang_families.SCALED, "llama")
    assert sglang.compute(config(YARN), length=64).unsupported == "SGLang's code for llama was not read"


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_config_raises(data: st.DataObject) -> None:
    computed = sglang.compute(noisy(data, "sglang"), length=data.draw(st.sampled_from([1, 100, 1025, 4096, 10**6])))
    json.dumps(computed.to_dict())
