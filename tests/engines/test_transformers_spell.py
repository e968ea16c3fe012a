"""What is spelled reads back as the plan, and the real model computes it."""

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
import tiny_families as tiny
import torch
from families_read import NAMES, built, compare, config_of, config_without, small
from tolerances import RELATIVE

from ropewalk.core.errors import HostError, PlanError, SourceError, UnsupportedError
from ropewalk.core.geometry import Geometry
from ropewalk.core.method import find
from ropewalk.core.plan import Frequencies, Plan, Regime
from ropewalk.engines.transformers import groups_at, read, spell
from ropewalk.engines.transformers.families import COMPOSITE
from ropewalk.engines.transformers.reading import measure, parameters
from ropewalk.engines.verdicts import verify

METHODS = [
    "pi",
    "ntk",
    "ntk-fixed",
    "ntk-mixed",
    "ntk-by-parts",
    "ntk-by-parts:ramp=rotations",
    "yarn",
    "yarn:truncate=false",
    "yarn:ramp=rotations",
    "yarn:attention_factor=1.2",
    "yarn:beta_fast=16,beta_slow=2",
    "abf",
    "llama3",
]
FACTORS = [1.5, 2, 3, 4, 8, 16, 32, 64]


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def stretched(config: dict[str, Any], method: str, factor: float = 4) -> Plan:
    geometry = read(config)
    return find(method).plan(geometry, round(geometry.start_length * factor))


def check_reads_as(config: dict[str, Any], plan: Plan, length: int | None = None) -> Geometry:
    """Asserts that each group of a config has the plan's word."""
    words = plan.at(length or plan.length).groups
    for group in groups_at(config, length or plan.length):
        word = words[group.label]
        if word is not None:
            used = Frequencies(
                inv_freq=group.inv_freq, attention_factor=group.attention_factor, logit_scale=group.logit_scale
            )
            assert used.difference(word) <= RELATIVE["float32"]
    return read(config)


def test_every_family_method_and_factor_reads_back(capsys: pytest.CaptureFixture[str]):
    count = 0
    for name in NAMES:
        config = config_of(name, "default")
        for method in METHODS:
            for factor in FACTORS:
                plan = stretched(config, method, factor)
                spelled = spell(config, plan)
                geometry = check_reads_as(spelled, plan)
                assert (geometry.lineage, geometry.original_length, geometry.trained_length) == ("runtime", 256, plan.length)
                assert not [finding for finding in geometry.findings if finding.severity != "note"]
                for group, before in zip(geometry.groups, read(config).groups, strict=True):
                    if plan.groups[group.label] is None:
                        assert group.to_dict() == before.to_dict()
                count += 1
    with capsys.disabled():
        print(f"\n{count} plans spelled and read back ({len(NAMES)} families, {len(METHODS)} methods, x1.5 to x64)")
    assert count == len(NAMES) * len(METHODS) * len(FACTORS)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "method", ["pi", "ntk", "ntk-mixed", "yarn", "yarn:truncate=false", "yarn:attention_factor=1.2", "llama3"]
)
def test_the_real_model_computes_it(name: str, method: str):
    config = config_of(name, "default")
    plan = stretched(config, method, 8)
    spelled = spell(config, plan)
    model = built(spelled)
    compare(read(spelled), model)
    assert model.config.ropewalk == spelled["ropewalk"]


@pytest.mark.parametrize("scaling", ["yarn", "llama3", "linear", "longrope", "dynamic"])
@pytest.mark.parametrize("lineage", ["trained", "runtime"])
@pytest.mark.parametrize("method", ["pi", "ntk", "yarn"])
def test_a_stretched_checkpoint_is_stretched_once(scaling: str, lineage: Any, method: str):
    config = config_of("llama", scaling)
    geometry = read(config).with_lineage(lineage)
    plan = find(method).plan(geometry, geometry.start_length * 8)
    spelled = spell(config, plan, geometry=geometry)
    again = check_reads_as(spelled, plan)
    compare(again, built(spelled))
    start, first = (g.start(g.extended_groups[0]) for g in (again, geometry))
    np.testing.assert_allclose(start.inv_freq, first.inv_freq, rtol=RELATIVE["float64"])
    assert (start.length, start.attention_factor, start.logit_scale) == (
        first.length,
        first.attention_factor,
        first.logit_scale,
    )
    # Another plan for the written checkpoint departs from the same origin, and is the same as one for the source.
    direct = find(method).plan(geometry, geometry.start_length * 16)
    assert find(method).plan(again, geometry.start_length * 16).difference(direct) <= RELATIVE["float64"]


@pytest.mark.parametrize("name", ["deepseek_v3", "gpt_oss", "olmo3", "gemma3_text", "qwen3"])
@pytest.mark.parametrize("method", ["pi", "ntk", "yarn", "yarn:attention_factor=1.1", "ntk-by-parts"])
def test_families_that_ship_stretched(name: str, method: str):
    config = config_of(name, {"gemma3_text": "linear", "deepseek_v3": "yarn-mscale"}.get(name, "yarn"))
    plan = stretched(config, method, 4)
    spelled = spell(config, plan)
    compare(check_reads_as(spelled, plan), built(spelled))


def test_two_extensions_keep_the_origin_and_both_steps():
    config = config_of("llama", "default")
    once = spell(config, stretched(config, "ntk", 2))
    twice = spell(once, find("yarn").plan(read(once), 2048))
    assert [step["method"] for step in twice["ropewalk"]["steps"]] == ["ntk", "yarn"]
    assert twice["ropewalk"]["origin"]["length"] == 256
    assert twice["ropewalk"]["origin"]["base"] == 20000.0
    assert twice["rope_parameters"] == spell(config, stretched(config, "yarn", 8))["rope_parameters"]


def test_a_tuned_step_makes_the_stretch_the_models_own():
    config = config_of("llama", "default")
    tuned = spell(config, stretched(config, "yarn", 4))
    tuned["ropewalk"]["steps"][-1]["tuned"] = True
    geometry = read(tuned)
    assert (geometry.lineage, geometry.original_length, geometry.trained_length) == ("trained", 256, 1024)
    start = geometry.start(geometry.groups[0])
    assert (start.length, start.attention_factor) == (1024, pytest.approx(0.1 * np.log(4) + 1))
    plan = find("pi").plan(geometry, 2048)
    again = read(spell(tuned, plan))
    assert (again.lineage, again.original_length, again.trained_length) == ("runtime", 1024, 2048)


def test_one_spelling_is_left():
    config = {
        **config_without(config_of("llama", "default"), "rope_parameters"),
        "rope_theta": 20000.0,
        "rope_scaling": {"type": "linear", "factor": 2},
        "original_max_position_embeddings": 99,
    }
    before = copy.deepcopy(config)
    geometry = read(config).with_lineage("runtime")
    spelled = spell(config, find("yarn").plan(geometry, 1024), geometry=geometry)
    assert config == before
    assert not {"rope_scaling", "rope_theta", "original_max_position_embeddings"} & set(spelled)
    assert spelled["rope_parameters"] == {
        "rope_type": "yarn",
        "rope_theta": 20000.0,
        "factor": 4.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "original_max_position_embeddings": 256,
    }
    assert spelled["max_position_embeddings"] == 1024


@pytest.mark.parametrize(
    ("method", "kind", "declared"),
    [
        ("pi", "linear", 256),
        ("ntk", "default", 1024),
        ("abf:base=500000", "default", 1024),
        ("ntk-mixed", "longrope", 1024),
        ("yarn", "yarn", 1024),
        ("yarn:ramp=rotations", "longrope", 1024),
        ("ntk-by-parts:ramp=rotations", "llama3", 1024),
        ("llama3", "llama3", 1024),
    ],
)
def test_the_most_readable_type_that_is_faithful(method: str, kind: str, declared: int):
    spelled = spell(config_of("llama", "default"), stretched(config_of("llama", "default"), method))
    assert (spelled["rope_parameters"]["rope_type"], spelled["max_position_embeddings"]) == (kind, declared)


def test_a_base_is_found_without_a_claim():
    config = config_of("llama", "default")
    plan = dataclasses.replace(stretched(config, "abf:base=500000"), native=None)
    assert spell(config, plan)["rope_parameters"] == {"rope_type": "default", "rope_theta": 500000.0}
    plan = dataclasses.replace(stretched(config, "pi"), native=None)
    assert spell(config, plan)["rope_parameters"] == {"rope_type": "linear", "factor": 4.0, "rope_theta": 20000.0}


def test_a_temperature_is_spelled_for_every_engine():
    params = spell(config_of("llama", "default"), stretched(config_of("llama", "default"), "yarn:attention_factor=1.2"))
    usual = 0.1 * np.log(4.0) + 1.0
    assert params["rope_parameters"]["attention_factor"] == 1.2
    assert params["rope_parameters"]["attn_factor"] == pytest.approx(1.2 / usual)
    rotations = spell(config_of("llama", "default"), stretched(config_of("llama", "default"), "yarn:ramp=rotations"))
    longrope = rotations["rope_parameters"]
    assert longrope["short_factor"] == longrope["long_factor"]
    assert longrope["attention_factor"] == longrope["short_mscale"] == longrope["long_mscale"] == pytest.approx(usual)
    assert longrope["original_max_position_embeddings"] == 1024
    assert all(isinstance(x, float) for x in longrope["long_factor"])


def test_mla_says_its_temperature_with_the_pair():
    config = config_of("deepseek_v3", "default")
    params = spell(config, stretched(config, "yarn"))["rope_parameters"]
    assert (params["mscale"], params["mscale_all_dim"]) == (pytest.approx(1.0), pytest.approx(1.0))
    assert "attention_factor" not in params


def test_no_claim_is_believed():
    config = config_of("llama", "default")
    plan = stretched(config, "yarn")
    native = dataclasses.replace(plan.native, options={**plan.native.options, "beta_fast": 8.0})
    lying = dataclasses.replace(plan, native=native)
    assert spell(config, lying)["rope_parameters"]["rope_type"] == "longrope"
    foreign = dataclasses.replace(plan, native=dataclasses.replace(plan.native, name="spiral"))
    check_reads_as(spell(config, foreign), plan)


@pytest.mark.parametrize("composite", sorted(COMPOSITE))
def test_nested_text_config_is_written_in_place(composite: str):
    config = {"model_type": composite, "text_config": tiny.fields(COMPOSITE[composite]), "vision_config": {"a": 1}}
    # YaRN has no word for a vector that ends in zeros.
    plan = stretched(config, "pi" if composite.startswith("gemma4") else "yarn")
    spelled = spell(config, plan)
    assert spelled["vision_config"] == {"a": 1}
    assert "ropewalk" in spelled
    assert not {"rope_parameters", "max_position_embeddings"} & set(spelled)
    compare(read(spelled), tiny.stock(spelled["text_config"]))


@pytest.mark.parametrize(("name", "share"), [("phi", 0.25), ("phi3", 0.75), ("stablelm", 0.5), ("qwen3_5_text", 0.5)])
def test_a_rotated_share_is_said_at_the_top_level_too(name: str, share: float):
    config = tiny.fields(name)
    config["rope_parameters"] = {**parameters(measure(config)).of(""), "partial_rotary_factor": share}
    spelled = spell(config, stretched(config, "ntk"))
    assert spelled["partial_rotary_factor"] == spelled["rope_parameters"]["partial_rotary_factor"] == share
    assert [sglang.status for sglang in verify(spelled, engines=["sglang"]).verdicts] == ["exact"]
    compare(read(spelled), tiny.stock(spelled))


def test_no_share_is_written_where_layer_types_have_their_own():
    config = tiny.fields("laguna")
    assert "partial_rotary_factor" not in spell(config, stretched(config, "ntk"))


@pytest.mark.parametrize("name", ["llama", "phi3", "olmo3", "gemma3_text"])
def test_switched_plans_become_two_lists(name: str):
    config = config_of(name, "default")
    count = read(config).extended_groups[0].rotary_dim // 2
    short, long = "|".join(["1.1"] * count), "|".join(str(1 + 0.2 * i) for i in range(count))
    plan = stretched(config, f"longrope:short_factor={short},long_factor={long}")
    assert plan.kind == "switched"
    spelled = spell(config, plan)
    geometry = read(spelled)
    assert geometry.varies
    assert (geometry.original_length, geometry.trained_length, geometry.declared_length) == (256, 1024, 1024)
    model = built(spelled)
    for length in (200, 256, 257, 1024):
        check_reads_as(spelled, plan, length)
        groups = [group.to_dict() for group in groups_at(spelled, length)]
        compare(Geometry.from_dict({**geometry.to_dict(), "groups": groups}), model, length)


def test_regimes_with_two_temperatures_are_refused():
    config = config_of("llama", "default")
    [label], count = (group.label for group in read(config).groups), 16
    words = [Frequencies(inv_freq=np.ones(count), attention_factor=a) for a in (1.0, 1.2)]
    regimes = (Regime(longest=256, groups={label: words[0]}), Regime(longest=None, groups={label: words[1]}))
    static = dataclasses.replace(stretched(config, "pi"), groups={label: words[1]}, native=None)
    plan = dataclasses.replace(static, kind="switched", regimes=regimes)
    with pytest.raises(HostError, match=r"for both regimes of longrope, got 1 short and 1\.2 long"):
        spell(config, plan)
    three = (regimes[0], Regime(longest=512, groups={label: words[0]}), regimes[1])
    with pytest.raises(HostError, match="longrope has two regimes"):
        spell(config, dataclasses.replace(plan, regimes=three))


def test_dynamic_plans_are_refused():
    config = config_of("llama", "default")
    with pytest.raises(HostError, match=r"freeze it for a length with plan.at\(n\)"):
        spell(config, stretched(config, "dynamic:ntk"))
    check_reads_as(spell(config, stretched(config, "dynamic:ntk").at(1024)), stretched(config, "ntk"))


def with_word(plan: Plan, **changes: Any) -> Plan:
    [(label, word)] = plan.groups.items()
    return dataclasses.replace(plan, groups={label: dataclasses.replace(word, **changes)}, native=None)


def test_what_would_be_lost_is_said():
    llama, deepseek = config_of("llama", "default"), config_of("deepseek_v3", "default")
    plan = stretched(llama, "yarn")
    with pytest.raises(HostError, match=r"a scale of 1\.5 on the whole q\.k of group 'all' would be lost"):
        spell(llama, with_word(plan, logit_scale=1.5))
    mla = with_word(stretched(deepseek, "ntk"), logit_scale=1.5, attention_factor=0.9)
    compare(check_reads_as(spell(deepseek, mla), mla), built(spell(deepseek, mla)))
    zero = plan.frequencies.inv_freq.copy()
    zero[-1] = 0.0
    with pytest.raises(HostError, match="frequencies of zero in group 'all' would be lost"):
        spell(llama, with_word(plan, inv_freq=zero))
    huge = plan.frequencies.inv_freq * 0.0 + 1e-320
    with pytest.raises(HostError, match="no rope type of transformers gives the frequencies of group 'all'"):
        spell(llama, with_word(plan, inv_freq=huge))


def test_plans_of_other_models_are_refused():
    llama = config_of("llama", "default")
    with pytest.raises(PlanError, match="this plan is for groups full_attention, sliding_attention, the model has all"):
        spell(llama, stretched(config_of("gemma3_text", "default"), "pi"))
    with pytest.raises(PlanError, match="this plan has 24 frequencies for group 'all', the model takes 16"):
        spell(llama, stretched(config_of("qwen3", "default"), "pi"))
    nothing = dataclasses.replace(stretched(llama, "pi"), groups={"all": None})
    with pytest.raises(PlanError, match="changes no group"):
        spell(llama, nothing)


def test_unknown_lineage_is_told_by_the_factor_or_refused():
    config = config_of("llama", "yarn")
    geometry = read(config)
    for lineage, length in (("trained", 256), ("runtime", 64)):
        plan = find("pi").plan(geometry.with_lineage(lineage), length * 8)
        assert spell(config, plan)["ropewalk"]["origin"]["length"] == length
    fixed = dataclasses.replace(find("pi").plan(geometry.with_lineage("trained"), 512), factor=3.7)
    with pytest.raises(UnsupportedError, match="say --lineage"):
        spell(config, fixed)


def test_an_edited_config_is_not_believed():
    config = config_of("llama", "default")
    spelled = spell(config, stretched(config, "ntk"))
    spelled["rope_parameters"]["rope_theta"] = 12345.0
    geometry = read(spelled)
    assert geometry.lineage == "unknown"
    assert [f.severity for f in geometry.findings if f.field == "ropewalk"] == ["error"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"schema_version": 99}, "has schema version 99, this release reads 1; update ropewalk"),
        ({"origin": {}}, "block of config.json is damaged"),
        ({"steps": []}, "block of config.json is damaged"),
        ({"groups": {"all": {}}}, "block of config.json is damaged"),
    ],
)
def test_a_damaged_block(damage: dict[str, Any], message: str):
    config = config_of("llama", "default")
    spelled = spell(config, stretched(config, "ntk"))
    spelled["ropewalk"].update(damage)
    with pytest.raises(SourceError, match=message):
        read(spelled)
    with pytest.raises(SourceError, match="has no schema_version"):
        read({**config, "ropewalk": "ntk"})


def test_mixtral_gets_the_head_dim_that_stock_code_needs():
    config = config_without(small("mixtral"), "head_dim")
    spelled = spell(config, stretched(config, "yarn"))
    assert spelled["head_dim"] == 32
    compare(read(spelled), built(spelled))


def test_phi3_switches_its_cache_beyond_the_extended_length():
    config = config_of("phi3", "default")
    for method in ("pi", "ntk"):
        assert spell(config, stretched(config, method))["original_max_position_embeddings"] == 1024
