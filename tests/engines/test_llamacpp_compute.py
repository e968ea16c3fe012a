"""What llama.cpp computes, against llama.cpp itself (tests/golden/engines/llamacpp.json), and what its converter loses."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropewalk.core.geometry import geometric
from ropewalk.core.plan import Frequencies
from ropewalk.engines import llamacpp
from ropewalk.engines import transformers as stock
from ropewalk.engines.llamacpp.architectures import ARCHITECTURES, OF_MODEL_TYPE
from ropewalk.engines.transformers.families import FAMILIES

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "engines" / "llamacpp.json").read_text())
TOLERANCE = 1e-6
DIM = 32
PLAIN = geometric(1e4, DIM)


def by_layer(case: dict[str, Any]) -> dict[int, dict[str, Any]]:
    return {layer: entry for entry in case["layers"] for layer in entry["layers"]}


def computed_of(case: dict[str, Any]) -> Any:
    arch = case["architecture"]
    metadata = {"general.architecture": arch, **{f"{arch}.{key}": value for key, value in case["keys"].items()}}
    factors = {name: np.asarray(values, dtype=np.float32).astype(np.float64) for name, values in case["factors"].items()}
    return llamacpp.compute_metadata(metadata, length=4096, factors=factors)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["case"])
def test_equals_what_llama_cpp_rotates_by(case: dict[str, Any]) -> None:
    computed = computed_of(case)
    if "refuses" in case:
        assert computed.refuses is not None
        assert "llama.cpp" in computed.refuses
        assert computed.groups == {}
        return
    assert (computed.refuses, computed.unsupported) == (None, None)
    assert computed.max_length == case["max_length"]
    words = {word for word in computed.groups.values() if word is not None}
    seen = [
        Frequencies(inv_freq=np.array(entry["inv_freq"]), attention_factor=entry["attention_factor"])
        for entry in case["layers"]
    ]
    assert all(min(word.difference(other) for other in seen) < TOLERANCE for word in words)
    assert all(min(word.difference(other) for word in words) < TOLERANCE for other in seen)


def test_the_golden_file_has_what_only_a_run_could_tell() -> None:
    cases = {case["case"]: case for case in GOLDEN["cases"]}
    assert sum("refuses" in case for case in cases.values()) == 6
    gemma = by_layer(cases["gemma3, yarn with attn_factor: windowed layers get the factor"])
    assert gemma[0]["attention_factor"] == pytest.approx(1.1, rel=1e-6)
    assert gemma[5]["attention_factor"] == pytest.approx(1.1 * (0.1 * math.log(4) + 1), rel=1e-6)
    rounded = by_layer(cases["longrope, the context is rounded up past the original"])
    longest = cases["longrope, the context is rounded up past the original"]["factors"]["rope_factors_long.weight"][-1]
    assert rounded[0]["inv_freq"][-1] == pytest.approx(PLAIN[-1] / longest, rel=1e-6)


def test_groups_are_labelled_as_in_a_geometry() -> None:
    cases = {case["case"]: computed_of(case) for case in GOLDEN["cases"]}
    assert list(cases["plain"].groups) == ["all"]
    assert set(cases["gemma3, linear: windowed layers stay"].groups) == {"sliding_attention", "full_attention"}
    assert cases["smollm3, yarn: every fourth layer is not rotated"].groups["none"] is None
    # One group in a geometry, which llama.cpp splits: it must not look like one.
    assert set(cases["gemma2, type none: windowed layers keep the factor"].groups) == {"all", "sliding_attention"}
    longrope = cases["longrope, context beyond the original"]
    assert longrope.depends_on == "deployment"
    assert "context" in longrope.short_request
    assert cases["yarn"].depends_on == "nothing"


def test_metadata_that_nothing_can_be_said_about() -> None:
    def say(**keys: Any) -> Any:
        content = {"general.architecture": "llama", "llama.context_length": 4096, "llama.block_count": 2}
        return llamacpp.compute_metadata(content | {"llama.rope.dimension_count": DIM} | keys, length=1, factors={})

    assert say(**{"general.architecture": "grok"}).unsupported == "llama.cpp's code for architecture 'grok' was not read"
    assert "rope.freq_base is nan" in say(**{"llama.rope.freq_base": math.nan}).unsupported
    assert "rotate 7 dimensions" in say(**{"llama.rope.dimension_count": 7}).unsupported
    assert "expects a whole number" in say(**{"llama.context_length": "long"}).refuses
    yarn = {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}
    assert "no ramp" in say(**yarn, **{"llama.rope.freq_base": 1.0}).unsupported
    assert "attention factor negative" in say(**yarn | {"llama.rope.scaling.factor": 1e-6}).unsupported
    wrong = llamacpp.compute_metadata(
        {"general.architecture": "llama", "llama.context_length": 4096, "llama.rope.dimension_count": DIM},
        length=1,
        factors={"rope_freqs.weight": np.ones(3)},
    )
    assert "expects (16,)" in wrong.refuses


# --- a transformers config, through the stock converter ---------------------------------------------------------------


def config(model_type: str = "llama", rope: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "hidden_size": 128,
        "intermediate_size": 64,
        "vocab_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_hidden_layers": 4,
        "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, **(rope or {})},
        **fields,
    }


def word(content: dict[str, Any], label: str = "all") -> Frequencies:
    computed = llamacpp.compute(content, length=8192)
    assert (computed.refuses, computed.unsupported) == (None, None)
    found = computed.groups[label]
    assert found is not None
    return found


def lost(content: dict[str, Any]) -> set[str]:
    return set(llamacpp.compute(content, length=8192).ignored)


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}
M4 = 0.1 * math.log(4.0) + 1.0


@pytest.mark.parametrize("rope", [{}, {"rope_type": "linear", "factor": 3.0}, YARN, {"rope_theta": 31415.0}])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "starcoder2", "olmo", "granite"])
def test_what_survives_conversion_equals_transformers(family: str, rope: dict[str, Any]) -> None:
    content = config(family, rope)
    computed = llamacpp.compute(content, length=8192)
    (group,) = stock.read(content).groups
    expected = Frequencies(inv_freq=group.inv_freq, attention_factor=group.attention_factor)
    assert computed.groups["all"].difference(expected) < TOLERANCE
    assert (computed.ignored, computed.max_length) == ((), 8192)


def test_llama3_survives_for_llama_and_not_for_qwen() -> None:
    rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope |= {"original_max_position_embeddings": 2048, "rope_theta": 5e5}
    (group,) = stock.read(config("llama", rope)).groups
    assert np.allclose(word(config("llama", rope)).inv_freq, group.inv_freq, rtol=1e-6, atol=0)
    assert np.allclose(word(config("qwen2", rope)).inv_freq, geometric(5e5, DIM), rtol=1e-6)
    assert lost(config("qwen2", rope)) == {"rope_type", "factor"}
    assert "no name for rope_freqs.weight of granite" in llamacpp.compute(config("granite", rope), length=1).refuses
    smollm3 = llamacpp.compute(config("smollm3", rope), length=1)
    assert "loads no rope_freqs.weight for smollm3" in smollm3.refuses


def test_temperatures_betas_and_rounding_that_are_lost() -> None:
    plain = word(config("llama", YARN))
    assert plain.attention_factor == pytest.approx(M4, rel=1e-7)
    for extra in ({"attention_factor": 1.0}, {"mscale": 0.7, "mscale_all_dim": 1.0}, {"beta_fast": 8}, {"truncate": False}):
        content = config("llama", YARN | extra)
        assert word(content) == plain, extra
        assert lost(content) == set(extra), extra
    assert lost(config("llama", YARN | {"beta_fast": 32.0, "beta_slow": 1})) == set()


def test_types_that_become_nothing() -> None:
    for rope in ({"rope_type": "dynamic", "factor": 4.0}, YARN | {"factor": None}):
        content = config("llama", rope)
        assert np.array_equal(word(content).inv_freq, PLAIN)
        assert {"rope_type", "factor"} <= lost(content)
    lists = {"short_factor": [1.0] * 16, "long_factor": [float(i + 1) for i in range(16)]}
    content = config("llama", {"rope_type": "longrope", "original_max_position_embeddings": 2048, "factor": 4.0, **lists})
    assert np.array_equal(word(content).inv_freq, PLAIN)
    assert word(content).attention_factor == 1.0
    assert {"short_factor", "long_factor", "factor"} <= lost(content)


def test_phi3_keeps_its_lists_and_makes_its_temperature_anew() -> None:
    lists = {"short_factor": [1.1] * 16, "long_factor": [float(i + 1) for i in range(16)]}
    rope = {"rope_type": "longrope", "attention_factor": 3.0, **lists}
    content = config("phi3", rope, original_max_position_embeddings=2048, sliding_window=None)
    found, computed = word(content), llamacpp.compute(content, length=8192)
    assert np.allclose(found.inv_freq, PLAIN / np.array(lists["long_factor"]), rtol=1e-6)
    assert found.attention_factor == pytest.approx(math.sqrt(1 + math.log(4) / math.log(2048)), rel=1e-6)
    assert (computed.depends_on, computed.ignored) == ("deployment", ("attention_factor",))
    unscaled = word(config("phi3", {}, original_max_position_embeddings=8192))
    assert np.array_equal(unscaled.inv_freq, PLAIN)


@pytest.mark.parametrize("family", ["gemma", "gemma2", "gpt_neox", "phi", "stablelm"])
def test_families_whose_converter_writes_no_rope_keys(family: str) -> None:
    content = config(family, YARN | {"rope_theta": 5e5, "partial_rotary_factor": 1.0}, head_dim=32)
    if family in ("gemma", "gemma2"):
        del content["rope_parameters"]["partial_rotary_factor"]
    found = word(content)
    assert np.array_equal(found.inv_freq, PLAIN)
    assert {"rope_theta", "rope_type", "factor"} <= lost(content)
    assert "takes 10000" in llamacpp.compute(content, length=1).notes[0]


def test_gemma3_windows_keep_their_base() -> None:
    rope = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
    }
    content = config("gemma3_text", head_dim=32, sliding_window=512, num_hidden_layers=6)
    content["rope_parameters"] = rope
    computed = llamacpp.compute(content, length=8192)
    for group in stock.read(content).groups:
        assert computed.groups[group.label].difference(Frequencies(inv_freq=group.inv_freq)) < TOLERANCE
    # The converter writes no pattern, so llama.cpp counts to six whatever the config says.
    content["layer_types"] = ["full_attention", *["sliding_attention"] * 5]
    computed = llamacpp.compute(content, length=8192)
    assert np.array_equal(computed.groups["full_attention"].inv_freq, geometric(2e4, DIM))
    assert "layers 5 turn by other numbers" in " ".join(computed.notes)


MLA = {"kv_lora_rank": 16, "q_lora_rank": None, "qk_rope_head_dim": 32, "qk_nope_head_dim": 32, "v_head_dim": 32}


def test_deepseek_puts_its_temperature_on_the_logits() -> None:
    for mscale in (1.0, 0.707):
        content = config("deepseek_v3", YARN | {"mscale": mscale, "mscale_all_dim": mscale}, **MLA)
        found = word(content)
        assert found.attention_factor == pytest.approx(1.0, rel=1e-6)
        assert found.logit_scale == pytest.approx((0.1 * mscale * math.log(4) + 1) ** 2, rel=1e-6)
        (group,) = stock.read(content).groups
        assert found.logit_scale == pytest.approx(group.logit_scale, rel=1e-6)
    # Without the pair transformers leaves the logits alone; llama.cpp does not.
    bare = word(config("deepseek_v3", YARN, **MLA))
    assert (bare.attention_factor, bare.logit_scale) == (pytest.approx(M4, rel=1e-6), pytest.approx(M4**2, rel=1e-6))
    linear = word(config("deepseek_v3", {"rope_type": "linear", "factor": 4.0}, **MLA))
    assert (linear.attention_factor, linear.logit_scale) == (1.0, pytest.approx(M4**2, rel=1e-6))


def test_gpt_oss_is_off_by_the_rounding_of_its_ramp() -> None:
    rope = YARN | {"factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False, "rope_theta": 150000.0}
    content = config("gpt_oss", rope, head_dim=32, sliding_window=128)
    (group,) = stock.read(content).groups
    off = word(content).difference(Frequencies(inv_freq=group.inv_freq, attention_factor=group.attention_factor))
    assert 1e-3 < off < 0.5
    assert lost(content) == {"truncate"}


def test_layers_without_positions_follow_llama_cpp_and_not_the_config() -> None:
    content = config("smollm3", YARN, num_hidden_layers=8, use_sliding_window=False)
    computed = llamacpp.compute(content, length=1)
    assert computed.groups["none"] is None
    content["no_rope_layers"] = [1, 1, 1, 1, 1, 1, 1, 0]
    computed = llamacpp.compute(content, length=1)
    assert computed.groups["rope"] is None
    assert "layers 3 turn by other numbers" in " ".join(computed.notes)


def test_configs_that_cannot_be_read_are_said_and_never_raised() -> None:
    for content in (
        {},
        {"model_type": "bloom"},
        config("llama", {"rope_type": "linear", "factor": "x"}),
        config(head_dim=-1),
    ):
        computed = llamacpp.compute(content, length=8192)
        assert (computed.unsupported is None, computed.groups) == (False, {}), content


def test_every_family_has_an_architecture_or_is_said_not_to() -> None:
    for family in FAMILIES:
        if family not in OF_MODEL_TYPE:
            content = config(family)
            assert "was not read" in str(llamacpp.compute(content, length=1).unsupported), family
    assert set(OF_MODEL_TYPE.values()) <= set(ARCHITECTURES)
    assert llamacpp.NAME == "llama.cpp"
    assert "0c1e57098" in llamacpp.VERSIONS
