"""What vLLM computes from a config, against its own code and in its own words."""

import json
from typing import Any

import numpy as np
import pytest
from engines.engine_configs import LONGROPE, TINY, YARN, config
from engines.engine_golden import cases, check
from engines.engine_noise import noisy
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.core.geometry import geometric
from ropewalk.engines import tables, vllm, vllm_families
from ropewalk.engines.transformers import compute as stock
from ropewalk.engines.transformers.families import FAMILIES


@pytest.mark.parametrize("case", cases("vllm"))
def test_vllms_own_code(case: dict[str, Any]) -> None:
    check(vllm, case)


@pytest.mark.parametrize("case", [case for case in cases("vllm") if "rows" in case.values[0]])
def test_a_request_past_the_end_of_the_table(case: dict[str, Any]) -> None:
    computed = vllm.compute(case["config"], length=case["max_length"])
    assert f"reads past the end of its table of {case['rows']} positions" in str(computed.refuses)
    inside = vllm.compute(case["config"], length=case["rows"])
    assert inside.refuses is None
    assert any(f"accepts {case['max_length']} tokens, and its table" in note for note in inside.notes)


@pytest.mark.parametrize("case", [case for case in cases("vllm") if "default_length" in case.values[0]])
def test_the_length_without_a_flag_is_said(case: dict[str, Any]) -> None:
    computed = vllm.compute(case["config"], length=64)
    expected = f"deploys at {case['default_length']} tokens, with the short list, unless --max-model-len"
    assert any(note.startswith(expected) for note in computed.notes)


@pytest.mark.parametrize("factor", [2.0, 4.0])
def test_dynamic_is_no_stretch_at_all(factor: float) -> None:
    computed = vllm.compute(config({"rope_type": "dynamic", "rope_theta": 10000.0, "factor": factor}), length=4096)
    word = computed.groups["all"]
    assert word is not None
    np.testing.assert_array_equal(word.inv_freq, geometric(10000.0, 16))
    assert computed.max_length == 4096 * factor
    assert computed.depends_on == "nothing"
    assert "factor" in computed.ignored


def test_longrope_is_chosen_by_the_deployment() -> None:
    computed = vllm.compute(config(LONGROPE), length=100)
    assert computed.depends_on == "deployment"
    assert computed.short_request == "the long list, as every request of that deployment"
    word = computed.groups["all"]
    assert word is not None
    np.testing.assert_allclose(word.inv_freq, geometric(10000.0, 16) / 4.0)
    alike = {**LONGROPE, "short_factor": LONGROPE["long_factor"]}
    assert vllm.compute(config(alike), length=100).depends_on == "nothing"


@pytest.mark.parametrize(
    ("changes", "ignored"),
    [
        (config({**YARN, "attn_factor": 1.1}), ("attn_factor",)),
        (config({**YARN, "attention_factor": 1.1}), ()),
        (config({**LONGROPE, "attention_factor": 1.1, "factor": 4.0}), ("attention_factor", "factor")),
        (
            config(
                {**YARN, "beta_fast": 32.0, "beta_slow": 1.0, "attention_factor": 1.0},
                model_type="gpt_oss",
                head_dim=16,
                layer_types=["full_attention"] * 4,
            ),
            ("attention_factor",),
        ),
        (
            config(
                {"full_attention": {**YARN, "attn_factor": 1.2}, "sliding_attention": {"rope_type": "default"}},
                model_type="gemma3_text",
                head_dim=16,
            ),
            ("full_attention.attn_factor",),
        ),
    ],
)
def test_fields_that_are_not_read(changes: dict[str, Any], ignored: tuple[str, ...]) -> None:
    assert vllm.compute(changes, length=64).ignored == ignored


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (config({"rope_type": "linear", "factor": 4}), r"whole number 4 as factor stops it at load: write 4\.0"),
        (config({**YARN, "beta_fast": None}), r"reads beta_fast as it stands, got null; .*: write 32\.0"),
        (config({**YARN, "beta_slow": 0}), r"divides by beta_slow, got 0; .*: write 1\.0"),
        (config({**YARN, "factor": None}), "type yarn need a number as factor, got None"),
        (config({"rope_type": "llama3", "factor": 8.0}), "type llama3 lack low_freq_factor and high_freq_factor"),
        (config({"rope_type": "nkt", "rope_theta": 1e4}), "rope_type 'nkt' is not one that vLLM knows"),
        (config({**YARN, "type": "linear"}), "rope_type 'yarn' and type 'linear' differ"),
        (config({"rope_type": "mrope", "rope_theta": 1e4}), "rope_type 'mrope' without mrope_section stops"),
        (config({**LONGROPE, "long_factor": [1.0] * 6}), "long_factor has 6 numbers, expected a list of 8"),
        (config({**LONGROPE, "short_factor": ["a"] * 8}), "short_factor holds something that is not a number"),
        (config({**YARN, "original_max_position_embeddings": None}), "original_max_position_embeddings is null"),
        (config({"rope_type": "default"}, max_seq_len="long"), "max_seq_len is 'long', expected a length in tokens"),
        (config({"rope_type": "default", "partial_rotary_factor": None}), "partial_rotary_factor is null"),
        (config(None, rope_scaling=3), "rope_scaling is an object of rope fields, got 3"),
        (config({"rope_type": "linear"}, model_type="phi3"), "rope_type 'linear' is not one that phi3 takes"),
        (config(YARN | {"rope_theta": 1.0}), "yarn divides by the logarithm of the base"),
        (config({"rope_type": "dynamic", "factor": 2.0}, head_dim=2), "divides by zero where a head rotates 2"),
        (
            config(LONGROPE | {"original_max_position_embeddings": 1}),
            "divides by the logarithm of original_max_position_embeddings, got 1,",
        ),
        (
            config({"rope_type": "default", "rope_theta": 1e4}, model_type="gpt_oss", head_dim=16),
            "gpt-oss in vLLM is YaRN whatever the type, and stops at load without factor: write it",
        ),
        (
            {
                "model_type": "qwen3_5",
                "text_config": config(
                    {"rope_type": "default", "mrope_section": [1, 1, 1], "partial_rotary_factor": 1.0},
                    model_type="qwen3_5_text",
                    head_dim=16,
                ),
            },
            "mrope_section sums to 3, expected 8",
        ),
    ],
)
def test_what_stops_it(changes: dict[str, Any], message: str) -> None:
    computed = vllm.compute(changes, length=64)
    assert computed.groups == {}
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(computed.refuses)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (config(None, model_type="bloom"), "bloom has ALiBi slopes"),
        ({"model_type": "gemma3", "text_config": {"model_type": []}}, "'gemma3' is not a family that ropewalk reads"),
        (config(None, model_type="deepseek_v3", rope_interleave=False), "although rope_interleave is false"),
        (config({**YARN, "factor": -4.0}), "factor is -4.0, expected a number above 0"),
        (config({**LONGROPE, "long_factor": [-1.0] * 8}), "long_factor holds a number that is not above 0"),
        (config({**YARN, "attention_factor": None, "mscale": True}), "mscale = True"),
        (config({"rope_type": "openpangu", "rope_theta": 1e4}), "'openpangu' was read for the families"),
        (config(None, dual_chunk_attention_config={}), "dual chunk attention was not read"),
        (config(None, model_type="falcon_h1", attn_rotary_emb=8), "does with attn_rotary_emb in a falcon_h1 was not read"),
        (config({"rope_type": "default", "rope_dim": 8}), "rope_dim inside rope_parameters was not read"),
        (config(None, model_type="exaone4", layer_types=["full_attention"] * 4), "rotates other layers than transformers"),
        (
            config(
                None,
                model_type="mimo_v2_flash",
                head_dim=16,
                layer_types=["sliding_attention"] * 4,
                hybrid_layer_pattern=[1, 1, 1, 0],
                **dict.fromkeys(("sliding_window_size", "swa_head_dim", "swa_num_attention_heads"), 16),
                swa_num_key_value_heads=2,
            ),
            "takes the windows from hybrid_layer_pattern, which differs from layer_types",
        ),
        (
            config({"rope_type": "dynamic", "factor": 4.0, "max_trained_positions": 1e9}),
            "max_trained_positions 1e.09 gives a stretch of",
        ),
    ],
)
def test_what_cannot_be_told(changes: dict[str, Any], message: str) -> None:
    computed = vllm.compute(changes, length=64)
    assert computed.refuses is None
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(computed.unsupported)


def test_a_family_that_was_not_read_is_not_taken_for_llama(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(vllm_families.WHOLE, "llama")
    assert vllm.compute(config(YARN), length=64).unsupported == "vLLM's code for llama was not read"


def test_every_family_is_in_one_table() -> None:
    tables_ = (
        vllm_families.WHOLE,
        vllm_families.LATENT,
        vllm_families.YARN,
        vllm_families.BASE,
        vllm_families.BACKEND,
        vllm_families.FALLBACK,
        vllm_families.SINCE,
        vllm_families.UNSUPPORTED,
    )
    named = [name for table in tables_ for name in table]
    assert len(named) == len(set(named))
    assert set(FAMILIES) <= set(named) | set(vllm_families.NOT_READ)


@pytest.mark.parametrize("model_type", [name for name in vllm_families.UNSUPPORTED if name in FAMILIES])
def test_families_that_it_does_not_load(model_type: str) -> None:
    computed = vllm.compute({"model_type": model_type}, length=64)
    assert computed.groups == {}
    assert str(computed.unsupported).startswith(f"{model_type} in vLLM: ")


THROUGH = (*vllm_families.BACKEND, *vllm_families.FALLBACK, *vllm_families.SINCE)


@pytest.mark.parametrize("model_type", [name for name in THROUGH if name in FAMILIES])
def test_families_that_run_through_transformers(model_type: str) -> None:
    family = FAMILIES[model_type]
    kinds = family.rope_types or ("linear",)
    changes = config({"rope_type": kinds[0], "rope_theta": 10000.0, "factor": 2.0}, model_type=model_type)
    if family.typed:
        changes["rope_parameters"] = {
            label: dict(changes["rope_parameters"]) for label in ("full_attention", "sliding_attention")
        }
    computed, expected = (engine.compute(changes, length=5000) for engine in (vllm, stock))
    assert computed.unsupported is None
    assert computed.groups == expected.groups
    assert list(computed.groups)
    assert computed.max_length == 8192
    assert "runs through transformers' own modules" in computed.notes
    assert computed.versions == vllm_families.SINCE.get(model_type, vllm.VERSIONS)


def test_the_tokenizer_is_no_cap() -> None:
    computed = vllm.compute(config(YARN), length=64, tokenizer_config={"model_max_length": 512})
    assert computed.max_length == 4096
    assert "the tokenizer's model_max_length 512 does not bound a request" in computed.notes
    assert vllm.ROUNDED in computed.notes


def test_telechats_yarn_is_yarn_with_its_own_temperature() -> None:
    computed = vllm.compute(config({**YARN, "rope_type": "telechat3-yarn"}), length=64)
    word = computed.groups["all"]
    assert word is not None
    assert word.attention_factor == pytest.approx(0.07 * np.log(4.0) + 1.0)


def test_a_base_alone_from_the_top_level() -> None:
    text = config(
        {**YARN, "rope_theta": 20000.0, "partial_rotary_factor": 1.0}, model_type="minimax_m3_vl_text", head_dim=16
    )
    alone = vllm.compute(text, length=64)
    assert "runs through transformers' own modules" in alone.notes
    inside = vllm.compute({"model_type": "minimax_m3_vl", "text_config": text}, length=64)
    word = inside.groups["all"]
    assert word is not None
    np.testing.assert_array_equal(word.inv_freq, geometric(5000000.0, 8))
    assert word.attention_factor == 1.0
    assert {"rope_type", "factor", "rope_theta"} <= set(inside.ignored)


def test_deepseek_v32_has_the_length_of_the_class_that_reads_it() -> None:
    without = {key: value for key, value in TINY.items() if key != "max_position_embeddings"}
    computed = vllm.compute(
        {**without, "model_type": "deepseek_v32", "qk_rope_head_dim": 16, "qk_nope_head_dim": 16}, length=64
    )
    assert computed.max_length == 4096


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_config_raises(data: st.DataObject) -> None:
    changes = noisy(data, "vllm")
    computed = vllm.compute(changes, length=data.draw(st.sampled_from([1, 100, 4096, 10**6])))
    json.dumps(computed.to_dict())


def test_a_head_that_cannot_turn() -> None:
    with pytest.raises(ValueError, match="would rotate 3 dimensions, expected an even number from 2"):
        _ = tables.Head(base=1e4, rotary_dim=3, head_dim=3, max_position=8).plain


def multimodal(model_type: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return config({"rope_theta": 10000.0, "mrope_section": [2, 3, 3], **parameters}, model_type=model_type)


def test_yarn_of_quadrupled_tables_is_another_vector() -> None:
    """vLLM 0.32's own `MRotaryEmbedding` of this config gave these frequencies."""
    scaled = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    word = vllm.compute(multimodal("qwen2_vl", scaled), length=64).groups["all"]
    assert word is not None
    own = [
        1.0, 0.25693506, 0.0625, 0.0138349654, 0.00249999994, 0.000790569466, 0.000250000012, 7.90569466e-05,
    ]  # fmt: skip
    np.testing.assert_allclose(word.inv_freq, own, rtol=1e-6)
    assert word.attention_factor == pytest.approx(1.138629436111989)
    expected = stock.compute(multimodal("qwen2_vl", scaled), length=64).groups["all"]
    assert expected is not None
    assert not np.allclose(word.inv_freq, expected.inv_freq, rtol=1e-2)


@pytest.mark.parametrize("model_type", ["qwen2_vl", "glm4v"])
def test_multimodal_positions_take_two_types_only(model_type: str) -> None:
    plain, linear = ({"rope_type": "default"}, {"rope_type": "linear", "factor": 4.0})
    both = [multimodal(part_of(model_type), parameters) for parameters in (plain, linear)]
    held, stopped = (vllm.compute({"model_type": model_type, "text_config": text}, length=64) for text in both)
    assert held.refuses is None
    assert list(held.groups) == ["all"]
    assert "rope_type 'linear' has no multimodal positions in vLLM" in str(stopped.refuses)


def part_of(model_type: str) -> str:
    return f"{model_type}_text"
