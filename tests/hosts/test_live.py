"""What a live model refuses, what it restores, and that reading back believes buffers and not configs."""

from dataclasses import replace

import families
import numpy as np
import pytest
import torch
from torch import nn

from ropewalk.core.errors import HostError, PlanError
from ropewalk.core.geometry import Geometry
from ropewalk.core.plan import Frequencies, Plan, Regime
from ropewalk.hosts.live import apply, geometry_of, read_back


def plan_of(geometry: Geometry, *, factor: float = 4.0, **changes: float) -> Plan:
    """Interpolation by hand for every group that sees the whole text; `changes` are fields of its words."""
    groups: dict[str, Frequencies | None] = {group.label: None for group in geometry.groups}
    for group in geometry.extended_groups:
        groups[group.label] = Frequencies(inv_freq=group.inv_freq / factor, **changes)
    return Plan(
        method="by-hand",
        options={},
        kind="static",
        original_length=geometry.original_length,
        trained_length=geometry.trained_length,
        length=256,
        factor=factor,
        groups=groups,
    )


@pytest.fixture
def llama():
    return families.model("llama")


@pytest.fixture
def plan(llama):
    return plan_of(geometry_of(llama))


def refuse(model: nn.Module, plan: Plan, error: type[Exception], match: str) -> None:
    """`apply` raises before the block, and the model is as it was."""
    before = families.logits(model)
    with pytest.raises(error, match=match), apply(model, plan):
        raise AssertionError("the block must not run")
    assert torch.equal(families.logits(model), before)


def test_read_back_is_a_static_plan_that_survives_json(llama, plan):
    with apply(llama, plan):
        got = read_back(llama)
    assert (got.method, got.kind, got.options) == ("read-back", "static", {})
    assert got.frequencies.inv_freq.dtype == np.float64
    assert Plan.from_dict(got.to_dict()) == got
    assert got.frequencies.difference(plan.frequencies) < 1e-7


def test_read_back_believes_the_buffers_and_not_the_config(llama, plan):
    llama.config.rope_parameters = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
    assert read_back(llama).frequencies.difference(plan.frequencies) == pytest.approx(0.75)
    refuse(llama, plan, HostError, "does not use the numbers of its config")


def test_read_back_shows_windowed_groups_too():
    model = families.model("gemma3")
    groups = read_back(model).groups
    assert groups["sliding_attention"].inv_freq[1] == pytest.approx(10000.0 ** (-2 / 32), rel=1e-6)
    assert groups["full_attention"].inv_freq[1] == pytest.approx(1000000.0 ** (-2 / 32), rel=1e-6)


def test_apply_gives_the_model_and_swaps_float32(llama, plan):
    with apply(llama, plan) as same:
        assert same is llama
        assert llama.model.rotary_emb.inv_freq.dtype == torch.float32
        assert torch.equal(llama.model.rotary_emb.original_inv_freq, llama.model.rotary_emb.inv_freq)
        assert "inv_freq" not in " ".join(llama.state_dict())


def test_an_exception_in_the_block_takes_the_plan_off(llama, plan):
    before, held = families.logits(llama), llama.model.rotary_emb.inv_freq
    with pytest.raises(KeyboardInterrupt), apply(llama, plan):
        raise KeyboardInterrupt
    assert llama.model.rotary_emb.inv_freq is held
    assert torch.equal(families.logits(llama), before)


def test_plans_do_not_stack(llama, plan):
    with apply(llama, plan):
        during = families.logits(llama)
        with pytest.raises(HostError, match=r"another plan is on"), apply(llama, plan_of(geometry_of(llama), factor=2.0)):
            raise AssertionError("the block must not run")
        assert torch.equal(families.logits(llama), during)
        assert geometry_of(llama).groups[0].attention_factor == 1.0
    with apply(llama, plan_of(geometry_of(llama), factor=2.0)):
        assert not torch.equal(families.logits(llama), during)


@pytest.mark.parametrize("name", ["llama-dynamic", "phi3-longrope"])
def test_plans_do_not_stack_on_a_type_that_switches(name):
    model = families.model(name)
    with apply(model, plan_of(geometry_of(model))):
        refuse(model, plan_of(geometry_of(model), factor=2.0), HostError, "another plan is on")


def test_plans_that_depend_on_the_length_are_refused_until_frozen(llama, plan):
    short = plan_of(geometry_of(llama), factor=2.0)
    regimes = (Regime(longest=64, groups=short.groups), Regime(longest=None, groups=plan.groups))
    switched = replace(plan, kind="switched", regimes=regimes)
    refuse(llama, switched, HostError, r"got a switched one; freeze it for a length with plan\.at\(n\)")
    refuse(llama, replace(plan, kind="dynamic", geometry=geometry_of(llama)), HostError, "got a dynamic one")
    with apply(llama, switched.at(64)):
        assert read_back(llama).frequencies.difference(short.frequencies) < 1e-7


def test_plans_for_another_model_are_refused(llama, plan):
    word = plan.frequencies
    refuse(llama, replace(plan, groups={"al": word}), PlanError, "group 'al' that the model has not; did you mean all")
    refuse(llama, replace(plan, groups={}), PlanError, "says nothing of the model's group 'all'")
    longer = Frequencies(inv_freq=np.ones(16))
    refuse(llama, replace(plan, groups={"all": longer}), PlanError, "16 frequencies for group 'all', the model takes 8")


def test_frequencies_for_layers_that_rotate_nothing_are_refused():
    model = families.model("smollm3")
    plan = plan_of(geometry_of(model))
    groups = {**plan.groups, "none": plan.frequencies}
    refuse(model, replace(plan, groups=groups), PlanError, "group 'none', whose layers rotate nothing")


def test_a_logit_scale_is_refused_where_attention_takes_no_scaling(llama, plan):
    for layer in llama.model.layers:
        # As in a family whose code has the scale built in.
        layer.self_attn.scaling = torch.tensor(0.25)
    scaled = plan_of(geometry_of(llama), logit_scale=1.2)
    refuse(llama, scaled, HostError, "takes no scaling, so the scale would be lost")
    with apply(llama, plan):
        assert read_back(llama).frequencies.logit_scale == 1.0


def test_layers_that_disagree_are_named(llama, plan):
    llama.model.layers[1].self_attn.scaling = 0.5
    with pytest.raises(HostError, match=r"different numbers: layer 1 \(0\.5\) beside layer 0 \(0\.25\)"):
        read_back(llama)
    with pytest.raises(HostError, match="layer 1"), apply(llama, plan):
        raise AssertionError("the block must not run")


def test_a_changed_softmax_scaling_is_not_taken_for_the_family_s_own(llama, plan):
    for layer in llama.model.layers:
        layer.self_attn.scaling = 0.3
    assert read_back(llama).frequencies.logit_scale == pytest.approx(1.2)
    refuse(llama, plan, HostError, r"relative difference 0\.17")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_rounded_buffer_is_a_difference(dtype):
    model = families.model("llama")
    plan = plan_of(geometry_of(model))
    name = str(dtype).removeprefix("torch.")
    model.to(dtype)
    refuse(model, plan, HostError, rf"rounded to {name} by model\.to\({name}\).*load the model with dtype={name}")
    assert read_back(model).frequencies.difference(plan_of(geometry_of(model), factor=1.0).frequencies) > 1e-4
    model.to(torch.float32)
    refuse(model, plan, HostError, rf"rounded to {name}")


def test_a_rounded_buffer_of_a_group_left_alone_is_found():
    model = families.model("gemma3")
    plan = plan_of(geometry_of(model))
    rotary = model.model.rotary_emb
    rotary.sliding_attention_inv_freq = rotary.sliding_attention_inv_freq.bfloat16()
    refuse(model, plan, HostError, r"group 'sliding_attention' \(rotary_emb\.sliding_attention_inv_freq\) were rounded")


def test_the_host_s_own_float32_arithmetic_is_not_a_difference():
    """YaRN x40 over 128 dimensions without truncation: the strongest rounding found among realistic configs."""
    params = {**families.PLAIN, "rope_type": "yarn", "factor": 40.0, "truncate": False}
    params["original_max_position_embeddings"] = 4096
    changes = {"head_dim": 128, "max_position_embeddings": 163840, "rope_parameters": params}
    model = families.model("qwen3", **changes)
    geometry = geometry_of(model).with_lineage("trained")
    said = Frequencies(inv_freq=geometry.groups[0].inv_freq, attention_factor=geometry.groups[0].attention_factor)
    assert 1e-6 < read_back(model).frequencies.difference(said) < 1e-5
    plan = plan_of(geometry)
    with apply(model, plan):
        assert read_back(model).frequencies.difference(plan.frequencies) < 1e-7


def test_a_model_in_bfloat16_with_float32_frequencies_is_carried():
    model = families.model("llama")
    plan = plan_of(geometry_of(model))
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16()
    with apply(model, plan):
        assert families.logits(model).dtype == torch.bfloat16
        assert read_back(model).frequencies.difference(plan.frequencies) < 1e-7


def test_double_is_not_a_rounding(llama, plan):
    llama.double()
    before = families.logits(llama)
    with apply(llama, plan):
        assert read_back(llama).frequencies.difference(plan.frequencies) < 1e-7
    assert torch.equal(families.logits(llama), before)


def test_a_module_that_does_not_take_the_number_is_found_before_the_block(llama):
    class Stubborn(type(llama.model.rotary_emb)):
        attention_scaling = property(lambda self: 1.0, lambda self, value: None)

    del llama.model.rotary_emb.attention_scaling
    llama.model.rotary_emb.__class__ = Stubborn
    refuse(llama, plan_of(geometry_of(llama), attention_factor=1.1), HostError, r"reads back with .* 0\.091 from the plan")


def test_a_model_without_numbers_is_refused(llama, plan):
    llama.to("meta")
    with pytest.raises(HostError, match=r"rotary_emb\.inv_freq is on the meta device"), apply(llama, plan):
        raise AssertionError("the block must not run")


def test_a_model_that_moves_inside_the_block_gets_its_numbers_where_it_is(llama, plan):
    with apply(llama, plan):
        llama.to("meta")
    assert llama.model.rotary_emb.inv_freq.is_meta


class Own(nn.Module):
    """A rotary module inside each layer, as older architectures have it."""

    def __init__(self, rotary: nn.Module):
        super().__init__()
        self.register_buffer("inv_freq", rotary.inv_freq.clone(), persistent=False)
        self.attention_scaling = 1.0


def test_vectors_inside_each_layer_are_carried(llama, plan):
    for layer in llama.model.layers:
        layer.self_attn.rotary_emb = Own(llama.model.rotary_emb)
    del llama.model.rotary_emb
    held = [layer.self_attn.rotary_emb.inv_freq for layer in llama.model.layers]
    with apply(llama, plan):
        for layer, before in zip(llama.model.layers, held, strict=True):
            assert torch.allclose(layer.self_attn.rotary_emb.inv_freq * 4, before)
        llama.model.layers[1].self_attn.rotary_emb.inv_freq *= 2
        with pytest.raises(HostError, match=r"layers\.1\.self_attn\.rotary_emb\.inv_freq differ from layers\.0"):
            read_back(llama)
    assert all(layer.self_attn.rotary_emb.inv_freq is before for layer, before in zip(llama.model.layers, held, strict=True))


def test_vectors_that_nothing_tells_apart_are_refused(llama, plan):
    llama.model.rotary_emb_unscaled = Own(llama.model.rotary_emb)
    refuse(llama, plan, HostError, r"found: rotary_emb\.inv_freq, rotary_emb_unscaled\.inv_freq")
    del llama.model.rotary_emb_unscaled
    llama.model.layers[0].self_attn.rotary_emb = Own(llama.model.rotary_emb)
    refuse(llama, plan, HostError, "no single frequency vector of this llama belongs to group 'all'")


def test_generation_runs_under_a_plan(llama, plan):
    prompt = families.tokens(20)
    options = {"max_new_tokens": 8, "do_sample": False, "attention_mask": torch.ones_like(prompt)}
    with apply(llama, plan):
        cached = llama.generate(prompt, **options)
        uncached = llama.generate(prompt, use_cache=False, **options)
    assert torch.equal(cached, uncached)
