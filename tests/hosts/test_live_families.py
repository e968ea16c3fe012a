"""A plan on every family: carried, read back, equal to stock transformers with the same numbers, and taken off exactly."""

import math
from collections.abc import Callable

import families
import numpy as np
import pytest
import torch

from ropewalk.core.errors import UnsupportedError
from ropewalk.core.geometry import Geometry, Group
from ropewalk.core.plan import Frequencies, Plan
from ropewalk.hosts.live import apply, geometry_of, read_back

CARRIED = [name for name in families.TINY if name != "llama4-temperature"]
FACTOR = 4.0

Word = Callable[[Group, Geometry], Frequencies]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def stretch_of(geometry: Geometry) -> float:
    """From the origin to four times what the model reads now."""
    return FACTOR * geometry.trained_length / geometry.original_length


def pi_word(group: Group, geometry: Geometry) -> Frequencies:
    return Frequencies(
        inv_freq=group.origin_inv_freq / stretch_of(geometry),
        attention_factor=group.attention_factor,
        logit_scale=group.logit_scale,
    )


def yarn_word(
    group: Group,
    geometry: Geometry,
    *,
    truncate: bool = True,
    attention_factor: float | None = None,
    logit_scale: float = 1.0,
) -> Frequencies:
    """YaRN written out naively, one dimension at a time."""

    def dimension(rotations: float) -> float:
        return group.rotary_dim * math.log(geometry.original_length / (2 * math.pi * rotations)) / (2 * math.log(group.base))

    factor = stretch_of(geometry)
    low, high = dimension(32.0), dimension(1.0)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, group.rotary_dim - 1)
    inv_freq = []
    for i, plain in enumerate(group.origin_inv_freq):
        ramp = min(max((i - low) / (high - low), 0.0), 1.0)
        inv_freq.append(plain / factor * ramp + plain * (1.0 - ramp))
    if attention_factor is None:
        attention_factor = 0.1 * math.log(factor) + 1.0
    return Frequencies(inv_freq=np.array(inv_freq), attention_factor=attention_factor, logit_scale=logit_scale)


def plan_of(geometry: Geometry, word: Word) -> Plan:
    """A plan by hand: `word` for the groups that see the whole text, nothing for the others."""
    groups = {group.label: None for group in geometry.groups}
    groups |= {group.label: word(group, geometry) for group in geometry.extended_groups}
    return Plan(
        method="by-hand",
        options={},
        kind="static",
        original_length=geometry.original_length,
        trained_length=geometry.trained_length,
        length=int(geometry.trained_length * FACTOR),
        factor=FACTOR,
        groups=groups,
    )


def changes(model, plan: Plan) -> dict[str, float]:
    """Relative difference of each group that the plan names from what is read back."""
    got = read_back(model)
    return {label: word.difference(got.groups[label]) for label, word in plan.groups.items() if word is not None}


def state(model) -> dict[str, object]:
    """Every buffer, and every number and label that a rotary or attention module carries."""
    held: dict[str, object] = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, int | float | str | dict) and not name.startswith("_"):
                held[f"{path}:{name}"] = dict(value) if isinstance(value, dict) else value
    return held


def assert_same_state(before: dict[str, object], after: dict[str, object]) -> None:
    assert before.keys() == after.keys()
    for name, value in before.items():
        same = torch.equal(value, after[name]) if isinstance(value, torch.Tensor) else value == after[name]
        assert same, name


@pytest.mark.parametrize("word", [pi_word, yarn_word])
@pytest.mark.parametrize("name", CARRIED)
def test_a_plan_is_carried_and_taken_off(name, word):
    model = families.model(name)
    plan = plan_of(geometry_of(model), word)
    before, untouched = families.logits(model), state(model)
    assert max(changes(model, plan).values()) > 0.1
    with apply(model, plan):
        assert max(changes(model, plan).values()) <= 1e-6
        during = families.logits(model)
        assert max(changes(model, plan).values()) <= 1e-6
    assert (during - before).abs().max() > 1e-2
    assert_same_state(untouched, state(model))
    assert torch.equal(families.logits(model), before)


@pytest.mark.parametrize("name", CARRIED)
def test_the_identity_changes_no_bit(name):
    model = families.model(name)
    families.logits(model)
    now, geometry = read_back(model), geometry_of(model)
    before = families.logits(model)
    with apply(model, plan_of(geometry, lambda group, _: now.groups[group.label])):
        assert torch.equal(families.logits(model), before)


YARN = {"rope_type": "yarn", "factor": FACTOR, "original_max_position_embeddings": families.TRAINED_LENGTH}


def _scaled(name: str) -> dict[str, object]:
    """The family's own spelling of YaRN x4 on the layers that see the whole text."""
    params = families.TINY[name].fields["rope_parameters"]
    if "full_attention" in params:
        params = {**params, "full_attention": {**params["full_attention"], **YARN}}
        return {"rope_parameters": params}
    return {"rope_parameters": {**params, **YARN}}


@pytest.mark.parametrize(
    "name",
    ["llama", "mistral", "qwen2", "qwen3", "gpt-neox", "gemma3", "olmo3", "smollm3", "llama4", "qwen3.5-text", "qwen3.5"],
)
def test_logits_equal_those_of_a_stock_model_with_yarn_in_its_config(name):
    model = families.model(name)
    reference = families.logits(families.twin(model, name, **_scaled(name)))
    with apply(model, plan_of(geometry_of(model), yarn_word)):
        assert torch.allclose(families.logits(model), reference, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(families.logits(model), reference, rtol=1e-2, atol=1e-2)


def test_gpt_oss_is_stretched_further_from_its_origin():
    model = families.model("gpt-oss")
    params = {**families.YARN_TRUNCATE_OFF, "factor": 16.0}
    reference = families.logits(families.twin(model, "gpt-oss", rope_parameters=params, max_position_embeddings=256))
    plan = plan_of(geometry_of(model), lambda g, all_of: yarn_word(g, all_of, truncate=False))
    with apply(model, plan):
        assert torch.allclose(families.logits(model), reference, rtol=1e-5, atol=1e-5)


def test_deepseek_takes_its_logit_scale_apart_from_the_factor_on_cos_and_sin():
    model = families.model("deepseek-v3")
    params = {**families.YARN_MSCALE, "factor": 16.0}
    reference = families.logits(families.twin(model, "deepseek-v3", rope_parameters=params, max_position_embeddings=256))
    on_rotated, on_all = 0.1 * 0.7 * math.log(16.0) + 1.0, 0.1 * 1.0 * math.log(16.0) + 1.0
    plan = plan_of(
        geometry_of(model),
        lambda g, all_of: yarn_word(g, all_of, attention_factor=on_rotated / on_all, logit_scale=on_all**2),
    )
    with apply(model, plan):
        assert torch.allclose(families.logits(model), reference, rtol=1e-5, atol=1e-5)
        attention = model.model.layers[0].self_attn
        assert attention.scaling == pytest.approx(32**-0.5 * on_all**2, rel=1e-12)
        assert model.model.rotary_emb.attention_scaling == pytest.approx(on_rotated / on_all, rel=1e-12)
    assert attention.scaling == pytest.approx(32**-0.5 * (0.1 * math.log(4.0) + 1.0) ** 2, rel=1e-12)


def test_phi3_equals_its_own_spelling():
    model = families.model("phi3")
    geometry = geometry_of(model)
    plan = plan_of(geometry, yarn_word)
    factors = list(geometry.groups[0].inv_freq / plan.frequencies.inv_freq)
    spelled = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": factors,
        "long_factor": factors,
        "attention_factor": plan.frequencies.attention_factor,
        "original_max_position_embeddings": families.TRAINED_LENGTH,
    }
    reference = families.logits(families.twin(model, "phi3", rope_parameters=spelled))
    with apply(model, plan):
        assert torch.allclose(families.logits(model), reference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["gemma3", "olmo3"])
def test_only_full_attention_layers_are_extended(name):
    model = families.model(name)
    rotary = model.get_decoder().rotary_emb
    window_buffer = rotary.sliding_attention_inv_freq
    full = rotary.full_attention_inv_freq.clone()
    with apply(model, plan_of(geometry_of(model), pi_word)):
        assert rotary.sliding_attention_inv_freq is window_buffer
        assert torch.allclose(rotary.full_attention_inv_freq, full / 4, rtol=1e-6, atol=0.0)
        assert rotary.sliding_attention_attention_scaling == 1.0


@pytest.mark.parametrize(("name", "rotated", "free"), [("smollm3", "rope", "none"), ("llama4", "rope", "none")])
def test_a_logit_scale_stays_off_position_free_layers(name, rotated, free):
    model = families.model(name)
    plan = plan_of(geometry_of(model), lambda g, _: Frequencies(inv_freq=g.inv_freq, logit_scale=1.5))
    assert plan.groups[free] is None
    attentions = [layer.self_attn for layer in model.model.layers]
    with apply(model, plan):
        assert [attention.scaling for attention in attentions] == [0.375, 0.375, 0.375, 0.25]
        assert read_back(model).groups[rotated].logit_scale == pytest.approx(1.5, rel=1e-12)


@pytest.mark.parametrize("name", ["qwen3.5-text", "qwen3.5"])
def test_recurrent_layers_and_towers_are_left_alone(name):
    model = families.model(name)
    others = {
        path: (module, dict(module.named_buffers(recurse=False)), dict(vars(module)))
        for path, module in model.named_modules()
        if "linear_attn" in path or "visual" in path
    }
    assert others
    plan = plan_of(geometry_of(model), lambda g, all_of: yarn_word(g, all_of, logit_scale=1.1))
    assert plan.groups["linear_attention"] is None
    with apply(model, plan):
        assert read_back(model).groups["linear_attention"] is None
        for module, buffers, attributes in others.values():
            assert dict(module.named_buffers(recurse=False)) == buffers
            assert vars(module) == attributes


def test_llama4_is_refused_by_name_while_its_temperature_is_on():
    model = families.model("llama4-temperature")
    plan = plan_of(geometry_of(families.model("llama4")), pi_word)
    with pytest.raises(UnsupportedError, match="attn_temperature_tuning"), apply(model, plan):
        raise AssertionError("the block must not run")


LENGTHS = [20, 48, 100]
"""Below and above the trained length of both tiny models."""


@pytest.mark.parametrize("name", ["phi3-longrope", "llama-dynamic"])
def test_a_live_longrope_or_dynamic_type_cannot_overwrite_the_plan(name):
    model = families.model(name)
    untouched = [families.logits(model, length) for length in LENGTHS]
    assert not torch.equal(model.model.rotary_emb.inv_freq, model.model.rotary_emb.original_inv_freq)
    kept = state(model)
    plan = plan_of(geometry_of(model), yarn_word)
    with apply(model, plan):
        buffer = model.model.rotary_emb.inv_freq
        for length in [*LENGTHS, *reversed(LENGTHS)]:
            families.logits(model, length)
            assert model.model.rotary_emb.inv_freq is buffer
            assert max(changes(model, plan).values()) <= 1e-6
    assert_same_state(kept, state(model))
    assert all(torch.equal(families.logits(model, n), before) for n, before in zip(LENGTHS, untouched, strict=True))
