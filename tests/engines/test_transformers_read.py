"""What is read from a config is what the real model computes: every family, every type it takes, both spellings."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from families_read import NAMES, SCALINGS, allowed, built, compare, config_of, config_without, scaled, small
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ropewalk.core.errors import SourceError, UnsupportedError
from ropewalk.core.geometry import Geometry, geometric
from ropewalk.engines.transformers import defaults, groups_at, read
from ropewalk.engines.transformers.families import COMPOSITE, FAMILIES, REFUSED


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("scaling", sorted(SCALINGS))
@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_those_of_the_real_model(name: str, scaling: str):
    config = config_of(name, scaling)
    if not allowed(name, scaling):
        if FAMILIES[name].rope_types:
            with pytest.raises((UnsupportedError, SourceError), match=r"is not one that phi3 takes|lack 'short_factor'"):
                read(config)
        return
    geometry = read(config)
    # LongRoPE's long list is what the model uses at its declared length; at birth it holds the short one.
    compare(geometry, built(config), 256 if scaling == "longrope" else None)


@pytest.mark.parametrize("scaling", ["longrope", "dynamic"])
@pytest.mark.parametrize("length", [48, 65, 300, 1000])
def test_numbers_that_follow_the_length(scaling: str, length: int):
    config = config_of("llama", scaling)
    model = built(config)
    geometry = read(config)
    assert geometry.varies
    groups = groups_at(config, length)
    compare(Geometry.from_dict({**geometry.to_dict(), "groups": [g.to_dict() for g in groups]}), model, length)


@pytest.mark.parametrize("scaling", ["default", "linear", "yarn", "llama3", "longrope"])
@pytest.mark.parametrize("name", NAMES)
def test_old_spelling(name: str, scaling: str):
    family = FAMILIES[name]
    if not allowed(name, scaling):
        pytest.skip(f"{name} does not take {scaling}")
    params = scaled(name, scaling, base=30000.0)
    base = params.pop("rope_theta")
    params["type"] = params.pop("rope_type")
    config = {**small(name), family.base_key: base}
    if scaling != "default" or family.mrope:
        config["rope_scaling"] = params
    if family.local_base_key:
        config[family.local_base_key] = 700.0
    if family.partial:
        config[family.partial_key] = 0.5
    if scaling == "longrope":
        if family.partial:
            count = len(params["short_factor"])
            half = int(read(config_without(config, "rope_scaling")).head_dim * 0.5) // 2
            for key in ("short_factor", "long_factor"):
                params[key] = (params[key] * 2)[:half] if half > count else params[key][:half]
        config["original_max_position_embeddings"] = params["original_max_position_embeddings"]
    geometry = read(config)
    extended = geometry.groups[0]
    assert extended.base == 30000.0
    compare(geometry, built(config), 256 if scaling == "longrope" else None)


@pytest.mark.parametrize("name", NAMES)
def test_class_defaults_fill_what_a_config_leaves_out(name: str):
    stock = CONFIG_MAPPING[name]()
    temperature = {"attn_temperature_tuning": False} if FAMILIES[name].temperature_tuning else {}
    geometry = read({"model_type": name, **temperature})
    assert geometry.declared_length == stock.max_position_embeddings
    assert geometry.num_layers == stock.num_hidden_layers
    assert geometry.num_kv_heads == (
        stock.num_key_value_heads if hasattr(stock, "num_key_value_heads") else geometry.num_heads
    )
    types = getattr(stock, "layer_types", None)
    for group in geometry.groups:
        if types and (group.window is not None or FAMILIES[name].typed):
            assert {types[i] for i in group.layers} == {group.label}
    parameters = stock.rope_parameters.get("full_attention", stock.rope_parameters)
    assert geometry.groups[0].base == parameters["rope_theta"]


@pytest.mark.parametrize("composite", sorted(COMPOSITE))
def test_nested_text_config_is_entered(composite: str):
    inner = config_of(COMPOSITE[composite], "default")
    outer = read({"model_type": composite, "text_config": inner})
    alone = read(inner)
    assert outer.model_type == composite
    assert outer.to_dict() | {"model_type": ""} == alone.to_dict() | {"model_type": ""}
    without_type = read({"model_type": composite, "text_config": config_without(inner, "model_type")})
    assert without_type.to_dict() == outer.to_dict()


def test_groups_of_mixed_families():
    gemma = read(config_of("gemma3_text", "linear"))
    assert [(g.label, g.layers, g.window) for g in gemma.groups] == [
        ("full_attention", (1, 3), None),
        ("sliding_attention", (0, 2), 32),
    ]
    assert [g.label for g in gemma.extended_groups] == ["full_attention"]
    np.testing.assert_array_equal(gemma.groups[1].inv_freq, geometric(500.0, 48))

    oss = read(config_of("gpt_oss", "yarn"))
    assert [(g.label, g.layers, g.window, g.shared_with_window) for g in oss.groups] == [("all", (0, 1, 2, 3), None, True)]

    smol = read(config_of("smollm3", "default"))
    assert [(g.label, g.layers, g.position) for g in smol.groups] == [("rope", (0, 1, 2), "rope"), ("none", (3,), "none")]

    qwen = read(config_of("qwen3_5_text", "default"))
    assert [(g.label, g.layers, g.position, g.rotary_dim) for g in qwen.groups] == [
        ("full_attention", (3,), "mrope", 16),
        ("linear_attention", (0, 1, 2), "none", 0),
    ]

    llama4 = read(config_of("llama4_text", "default"))
    assert (llama4.layout, [(g.label, g.layers) for g in llama4.groups]) == (
        "interleaved",
        [("rope", (0, 1, 2)), ("none", (3,))],
    )

    deepseek = read(config_of("deepseek_v3", "yarn-mscale"))
    [group] = deepseek.groups
    assert (group.head_dim, group.rotary_dim, group.layout, group.temperature_on) == (40, 16, "interleaved", "logits")
    assert group.logit_scale == pytest.approx((0.1 * 0.9 * np.log(8.0) + 1.0) ** 2)
    assert group.attention_factor == pytest.approx((0.07 * np.log(8.0) + 1.0) / (0.09 * np.log(8.0) + 1.0))
    assert read({**config_of("deepseek_v3", "default"), "rope_interleave": False}).layout == "half"


@pytest.mark.parametrize("name", ["mistral", "phi3", "mixtral", "starcoder2"])
def test_window_over_all_layers(name: str):
    windowed = {**small(name), "sliding_window": 32}
    assert [group.window for group in read(windowed).groups] == [32]
    assert read(windowed).extended_groups == ()
    wide = read({**small(name), "sliding_window": 4096})
    assert wide.extended_groups == wide.groups


def test_window_needs_its_switch():
    config = {**small("qwen3"), "sliding_window": 32, "max_window_layers": 0}
    assert [group.window for group in read(config).groups] == [None]
    assert [group.window for group in read({**config, "use_sliding_window": True}).groups] == [32]


@pytest.mark.parametrize(
    ("name", "scaling", "lineage", "original", "trained"),
    [
        ("llama", "default", "plain", 256, 256),
        ("llama", "linear", "unknown", 256, 1024),
        ("llama", "yarn", "unknown", 64, 256),
        ("llama", "dynamic", "runtime", 256, 1024),
        ("llama", "llama3", "trained", 64, 256),
        ("qwen3", "yarn", "runtime", 64, 256),
        ("deepseek_v3", "yarn", "trained", 64, 256),
        ("phi3", "longrope", "trained", 64, 256),
        ("llama", "longrope", "unknown", 64, 256),
        ("gpt_oss", "yarn", "trained", 64, 256),
        ("olmo3", "yarn", "trained", 64, 256),
        ("gemma3_text", "linear", "trained", 32768, 256),
    ],
)
def test_lineage_and_lengths(name: str, scaling: str, lineage: str, original: int, trained: int):
    geometry = read(config_of(name, scaling))
    found = (geometry.lineage, geometry.original_length, geometry.trained_length, geometry.declared_length)
    assert found == (lineage, original, trained, 256)


def findings(config: dict[str, Any]) -> dict[str, str]:
    """Field to what is worst about it."""
    found = [f for severity in ("note", "warning", "error") for f in read(config).findings if f.severity == severity]
    return {finding.field: f"{finding.severity}: {finding.problem}" for finding in found}


def test_old_spelling_wins_and_the_contradiction_is_found():
    config = config_of("llama", "yarn")
    config["rope_scaling"] = {"type": "linear", "factor": 2.0}
    config["rope_theta"] = 7000.0
    geometry = read(config)
    compare(geometry, built(config))
    assert (geometry.scheme, geometry.groups[0].base) == ("linear", 7000.0)
    found = findings(config)
    assert found["rope_scaling"].startswith("error: rope_scaling and rope_parameters differ in rope_type")
    assert found["rope_parameters"] == "warning: the base 20000 in rope_parameters is overruled by 7000.0"


def test_top_level_base_loses_against_rope_parameters():
    config = {**config_of("llama", "default"), "rope_theta": 7000.0}
    compare(read(config), built(config))
    assert findings(config)["rope_theta"] == "warning: the base 7000 in top-level rope_theta is overruled by 20000.0"


def test_top_level_original_length_wins():
    config = {**config_of("llama", "yarn"), "original_max_position_embeddings": 32}
    compare(read(config), built(config))
    assert findings(config)["original_max_position_embeddings"].startswith("warning: the top-level")


def test_missing_original_length_is_an_error():
    config = config_of("llama", "yarn")
    del config["rope_parameters"]["original_max_position_embeddings"]
    compare(read(config), built(config))
    found = findings(config)["rope_parameters.original_max_position_embeddings"]
    assert found == "error: yarn scaling without original_max_position_embeddings: max_position_embeddings (256) is taken"


def test_int_factor_and_ambiguous_length():
    config = config_of("llama", "linear")
    config["rope_parameters"]["factor"] = 4
    found = findings(config)
    assert found["rope_parameters.factor"].startswith("warning: factor is the whole number 4")
    assert found["max_position_embeddings"].startswith("warning: with linear scaling 256 may be the length before or after")


def test_truncate_of_one_layer_type_is_ignored():
    config = config_of("olmo3", "yarn-flat")
    compare(read(config), built(config))
    assert findings(config)["rope_parameters.full_attention.truncate"].startswith("error: truncate is false for one layer")


def test_olmo3_hands_its_base_to_full_layers_only():
    config = {**small("olmo3"), "rope_theta": 9000.0}
    compare(read(config), built(config))
    assert [group.base for group in read(config).groups] == [9000.0, 500000.0]


def test_mixtral_needs_its_head_dim_written():
    config = config_without(config_of("mixtral", "yarn"), "head_dim")
    with pytest.raises(TypeError):
        built(config)
    assert findings(config)["head_dim"].startswith("error: transformers cannot build a mixtral with yarn scaling")
    assert "head_dim" not in findings(config_of("mixtral", "yarn"))


def test_chunked_layers_are_named():
    config = {**config_of("llama4_text", "default"), "attention_chunk_size": 64}
    assert findings(config)["attention_chunk_size"].startswith("warning: rotated layers attend inside chunks of 64 tokens")
    assert "attention_chunk_size" not in findings({**config, "attention_chunk_size": 256})


def test_undeclared_stretch_is_named():
    config = config_of("qwen3", "yarn")
    config["rope_parameters"]["factor"] = 16.0
    assert findings(config)["max_position_embeddings"].startswith("warning: yarn stretches to 1024 tokens")


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_other_position_schemes_are_refused_by_name(name: str):
    with pytest.raises(UnsupportedError, match=f"^{name} has .* instead of rotary positions"):
        read({"model_type": name})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "has no model_type"),
        ({"model_type": "falcon", "alibi": True}, "this falcon has ALiBi slopes"),
        ({"model_type": "lama"}, "'lama' is not a family that ropewalk reads yet; did you mean llama"),
        ({"model_type": "llama4", "text_config": {}}, "attention temperature that grows with the position"),
        ({"model_type": "llama", "rope_parameters": {"rope_type": "spiral"}}, "'spiral' is not one that transformers knows"),
        ({"model_type": "llama", "partial_rotary_factor": 0.5}, "llama rotates whole heads"),
        (
            {"model_type": "gpt_oss", "rope_parameters": {"full_attention": {}, "sliding_attention": {}}},
            "nested by layer type",
        ),
    ],
)
def test_unsupported(config: dict[str, Any], message: str):
    with pytest.raises(UnsupportedError, match=message):
        read(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": "x"}, "num_hidden_layers = 'x', expected a whole number from 1 to 10000"),
        ({"max_position_embeddings": 0}, "max_position_embeddings = 0"),
        ({"rope_scaling": "yarn"}, "rope_scaling is an object of rope fields"),
        ({"rope_theta": None}, "rope_theta must be a number above 1"),
        ({"rope_theta": "1e4"}, "rope_theta = .1e4., expected a number above 0"),
        ({"rope_scaling": {"type": "linear"}}, "of type linear lack 'factor'"),
        ({"rope_scaling": {"type": "linear", "factor": -2.0}}, "factor must be a number above 0"),
        ({"rope_scaling": {"type": "yarn"}}, "of type yarn lack 'factor'"),
        ({"rope_scaling": {"type": "longrope", "short_factor": [1], "long_factor": [1, 2]}}, "positive numbers, got 1"),
        ({"rope_scaling": {"type": "longrope", "short_factor": ["a"], "long_factor": ["a"]}}, "is a list of 64 numbers"),
        ({"head_dim": 7}, "rotate 7 dimensions, expected an even number"),
    ],
)
def test_senseless_fields(changes: dict[str, Any], message: str):
    with pytest.raises(SourceError, match=message):
        read({"model_type": "llama", **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "qwen2", "layer_types": ["full_attention"]}, "layer_types is a list of 32"),
        ({"model_type": "smollm3", "no_rope_layers": [1, 0]}, "no_rope_layers is a list of 36"),
        ({"model_type": "olmo3", "rope_parameters": {"full_attention": "yarn"}}, "is an object of rope fields, got 'yarn'"),
    ],
)
def test_senseless_layers(changes: dict[str, Any], message: str):
    with pytest.raises(SourceError, match=message):
        read(changes)


def test_reading_imports_neither_torch_nor_transformers():
    code = (
        "import sys, json; from ropewalk.hosts import folder; from ropewalk.engines.transformers import read, spell;"
        f"read(json.loads({json.dumps(config_of('llama', 'yarn'))!r}.replace(chr(39), chr(34))));"
        "print(sorted(m for m in ('torch', 'transformers', 'huggingface_hub', 'safetensors') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_defaults_are_current():
    import make_defaults

    assert make_defaults.collect() == defaults.DEFAULTS, "run python tests/engines/make_defaults.py"
    if transformers.__version__ == defaults.TRANSFORMERS:
        assert make_defaults.render() == make_defaults.TARGET.read_text(encoding="utf-8")


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (4.0, 4.0), (4.0, 1.0)])
def test_llama3_bounds_without_room_between_blend_nothing_as_in_transformers(low: float, high: float) -> None:
    scaling = {
        "rope_type": "llama3", "factor": 16.0, "low_freq_factor": low, "high_freq_factor": high,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    config = transformers.LlamaConfig(
        hidden_size=256, num_attention_heads=2, max_position_embeddings=131072, rope_theta=5e5, rope_scaling=dict(scaling)
    )
    expected, _ = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    geometry = read(config.to_dict())
    np.testing.assert_allclose(geometry.groups[0].inv_freq, expected.double().numpy(), rtol=1e-6, atol=0.0)
