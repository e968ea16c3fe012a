"""What `extend` writes is exact in as many engines as anything that could be written instead.

The search makes spellings of its own, by hand-written formulas and not from the candidates of the code: every rope type that
can say the plan, with every way of saying its temperature, times every length that could be declared. Each that transformers
computes the plan from is judged in all engines, and none may reach further than what was written. So the choice is held
against more than itself; that an engine's file is right is another test's business.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny_families as tiny
from test_all_families import WITHOUT_WINDOW

from ropewalk.core.errors import HostError, PlanError, UnsupportedError
from ropewalk.core.geometry import Geometry
from ropewalk.core.method import find
from ropewalk.core.plan import Frequencies, Plan
from ropewalk.engines.coverage import covers, widest
from ropewalk.engines.transformers import read, spell
from ropewalk.engines.transformers.families import FAMILIES, enter
from ropewalk.engines.verdicts import Verdict, verify

ENGINES = {"transformers", "vllm", "sglang", "llama.cpp"}
METHODS = ("pi", "ntk", "ntk-fixed", "ntk-mixed", "ntk-by-parts", "yarn", "yarn:attention_factor=1.2", "abf", "llama3")
ORIGINAL = "original_max_position_embeddings"
KEPT = ("partial_rotary_factor", "mrope_section", "mrope_interleaved")


def config_of(name: str, **fields: Any) -> dict[str, Any]:
    config = tiny.fields(name) | fields
    if name in WITHOUT_WINDOW:
        config |= {"sliding_window": None, "layer_types": ["full_attention"] * tiny.LAYERS}
    return config


def verdicts(config: dict[str, Any], plan: Plan) -> dict[str, Verdict]:
    return {verdict.engine: verdict for verdict in verify(config, reference=plan).verdicts}


def covered(config: dict[str, Any], plan: Plan, geometry: Geometry) -> set[str]:
    return {name for name, verdict in verdicts(config, plan).items() if covers(verdict, plan, geometry)}


def section_of(config: dict[str, Any]) -> dict[str, Any]:
    """The rope parameters of the layers that were extended."""
    found = enter(config)[1]["rope_parameters"]
    return found.get("full_attention", found)


def with_section(config: dict[str, Any], section: dict[str, Any], declared: int) -> dict[str, Any]:
    """The same config with other rope parameters for the extended layers and another declared length."""
    new = {**config}
    key = enter(config)[1] is not config
    text = {**enter(config)[1], "max_position_embeddings": declared}
    rope = text["rope_parameters"]
    text["rope_parameters"] = {**rope, "full_attention": section} if "full_attention" in rope else section
    if text.get(ORIGINAL) is not None and section.get(ORIGINAL) is not None:
        text[ORIGINAL] = section[ORIGINAL]
    return {**new, "text_config": text} if key else text


def sections(word: Frequencies, base: float, plan: Plan, start: int) -> Iterator[dict[str, Any]]:
    """Every rope type in every dress that may say one vector."""
    inv_freq, count = word.inv_freq, word.inv_freq.size
    if np.any(inv_freq <= 0.0):
        return
    own = (inv_freq[0] / inv_freq[-1]) ** (count / (count - 1)) if count > 1 else base
    for one in (own, math.floor(own), math.ceil(own)):
        yield {"rope_type": "default", "rope_theta": float(one)}
        alike = {"rope_theta": float(one), "factor": max(1.0, float(1.0 / inv_freq[0]))}
        yield {"rope_type": "linear", **alike}
        yield {"rope_type": "linear", **alike, ORIGINAL: start}
        yield {"rope_type": "llama3", **alike, "low_freq_factor": 1e6, "high_freq_factor": 2e6, ORIGINAL: start}
    if plan.native is not None:
        options = {key: value for key, value in plan.native.options.items() if key not in ("base", "original_length")}
        native = {"rope_theta": base, ORIGINAL: start, **{k: float(v) if type(v) is int else v for k, v in options.items()}}
        yield {"rope_type": plan.native.name, **native}
    usual, wanted = 0.1 * math.log(plan.factor) + 1.0, word.attention_factor
    stretched = {"rope_type": "yarn", "rope_theta": base, "factor": plan.factor, ORIGINAL: start}
    for dress in (
        {},
        {"attention_factor": wanted},
        {"attn_factor": wanted / usual},
        {"attention_factor": wanted, "attn_factor": wanted / usual},
        {"mscale": (2.0 * wanted - 1.0) / (0.1 * math.log(plan.factor)), "mscale_all_dim": 10.0 / math.log(plan.factor)},
    ):
        for betas in ({}, {"beta_fast": 32.0, "beta_slow": 1.0}):
            yield {**stretched, **betas, **dress}
    plain = base ** -(np.arange(count) / count)
    divisors = [float(x) for x in plain / inv_freq]
    lists = {"rope_type": "longrope", "rope_theta": base, "short_factor": divisors, "long_factor": divisors}
    for original in (start, plan.length):
        yield {**lists, "factor": plan.factor, "attention_factor": wanted, ORIGINAL: original}
        mscales = {"short_mscale": wanted, "long_mscale": wanted}
        yield {**lists, "factor": plan.factor, "attention_factor": wanted, ORIGINAL: original, **mscales}


def wider(config: dict[str, Any], plan: Plan, geometry: Geometry) -> tuple[int, str]:
    """How many other spellings transformers computes the plan from, and the first that reaches further; empty: none."""
    written = widest(config, plan, geometry=geometry)
    most = covered(written, plan, geometry)
    [group] = [group for group in geometry.groups if plan.groups[group.label] is not None]
    word = plan.groups[group.label]
    assert word is not None
    kept = {key: value for key, value in section_of(written).items() if key in KEPT}
    tried = 0
    for section in sections(word, geometry.start(group).nominal_base, plan, geometry.start_length):
        whole = with_section(written, {**section, **kept}, plan.length)
        [stock] = verify(whole, reference=plan, engines=["transformers"]).verdicts
        if stock.status != "exact":
            continue
        for declared in {plan.length, math.ceil(plan.length / section.get("factor", 1.0)), geometry.start_length}:
            tried += 1
            reached = covered(with_section(whole, {**section, **kept}, declared), plan, geometry)
            if len(reached) > len(most):
                return tried, f"{section} at {declared}: {sorted(reached)}, written: {section_of(written)}: {sorted(most)}"
    return tried, ""


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_no_other_spelling_is_exact_in_more_engines(name: str) -> None:
    config = config_of(name)
    geometry = read(config)
    tried = 0
    for method in METHODS:
        try:
            plan = find(method).plan(geometry, 4 * geometry.start_length)
            spell(config, plan, geometry=geometry)
        except (PlanError, UnsupportedError, HostError):
            continue
        num, found = wider(config, plan, geometry)
        assert not found, f"{method}: {found}"
        tried += num
    nothing = not geometry.extended_groups or any(np.any(g.inv_freq == 0.0) for g in geometry.extended_groups)
    assert nothing or tried >= len(METHODS)


@pytest.mark.parametrize("factor", [1.5, 7.3])
@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3_text", "laguna", "phi3", "starcoder2"])
def test_nor_is_it_at_other_factors(name: str, factor: float) -> None:
    config = config_of(name)
    geometry = read(config)
    for method in METHODS:
        plan = find(method).plan(geometry, round(factor * geometry.start_length))
        assert wider(config, plan, geometry)[1] == "", method


def test_the_search_finds_what_the_most_readable_spelling_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a choice the search must complain, or it sees nothing."""
    config = config_of("llama")
    geometry = read(config)
    plan = find("pi").plan(geometry, 4 * geometry.start_length)
    linear = spell(config, plan)
    assert section_of(linear)["rope_type"] == "linear"
    assert covered(linear, plan, geometry) == {"transformers", "vllm", "sglang"}
    assert covered(widest(config, plan), plan, geometry) == ENGINES
    monkeypatch.setitem(globals(), "widest", spell)
    assert "llama.cpp" in wider(config, plan, geometry)[1]


@pytest.mark.parametrize("method", ["pi", "ntk-fixed"])
def test_nested_linear_declares_the_whole_length(method: str) -> None:
    config = config_of("gemma3_text")
    geometry = read(config)
    plan = find(method).plan(geometry, 4 * geometry.start_length)
    written = widest(config, plan)
    assert section_of(written)["rope_type"] == "linear"
    assert written["max_position_embeddings"] == plan.length
    assert {"transformers", "vllm", "sglang"} <= covered(written, plan, geometry)
    divided = {**written, "max_position_embeddings": math.ceil(plan.length / section_of(written)["factor"])}
    assert {verdicts(divided, plan)[name].status for name in ("vllm", "sglang")} == {"differs"}


def test_an_engine_that_accepts_four_times_the_plan_does_not_count() -> None:
    config = config_of("qwen3")
    geometry = read(config)
    plan = find("pi").plan(geometry, 4 * geometry.start_length)
    full = {**spell(config, plan), "max_position_embeddings": plan.length}
    verdict = verdicts(full, plan)["vllm"]
    assert (verdict.status, verdict.max_length) == ("exact", 4 * plan.length)
    assert not covers(verdict, plan, geometry)
    assert covers(replace(verdict, max_length=plan.length), plan, geometry)
    assert widest(config, plan)["max_position_embeddings"] == geometry.start_length


def test_a_base_is_rounded_only_where_that_helps_and_moves_nothing() -> None:
    """SGLang cuts StarCoder 2's base to a whole number and Llama's not."""
    for name, base, written in (
        ("starcoder2", 600000.8, 600001.0),
        ("llama", 600000.8, 600000.8),
        # 8e-6 of the base: rounded it would be another plan.
        ("starcoder2", 60000.5, 60000.5),
    ):
        config = config_of(name)
        plan = find(f"abf:base={base}").plan(read(config), 1024)
        assert section_of(widest(config, plan))["rope_theta"] == written
        status = verdicts(widest(config, plan), plan)["sglang"].status
        assert status == ("differs" if (name, base) == ("starcoder2", 60000.5) else "exact")


def test_what_cannot_be_written_is_refused_as_before() -> None:
    config = config_of("llama")
    with pytest.raises(HostError, match="freeze it for a length"):
        widest(config, find("dynamic:yarn").plan(read(config), 1024))
    with pytest.raises(PlanError, match="plan for this model"):
        widest(config, find("pi").plan(read(config_of("gemma3_text")), 1024))
