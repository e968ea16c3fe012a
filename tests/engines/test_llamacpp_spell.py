"""How plans are said in GGUF metadata: llama.cpp computes the plan from it, or it is refused with what would be lost."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import ropewalk
from ropewalk.core.errors import HostError
from ropewalk.core.geometry import Geometry, geometric
from ropewalk.core.method import find
from ropewalk.core.plan import Frequencies, Plan
from ropewalk.engines import llamacpp
from ropewalk.engines import transformers as stock
from ropewalk.engines.llamacpp.spelling import spell_metadata

DIM, TRAINED = 64, 4096
METHODS = (
    "pi", "ntk", "ntk-fixed", "ntk-mixed", "ntk-by-parts", "yarn", "yarn:beta_fast=16", "yarn:truncate=false", "abf",
    "llama3",
)  # fmt: skip
EVERYWHERE = ("pi", "ntk", "ntk-fixed", "ntk-by-parts", "yarn", "abf")
"""Methods that an architecture can say without divisors."""
LOADING = ("llama", "granite", "phi3")


def metadata(arch: str, **keys: Any) -> dict[str, Any]:
    content = {
        "context_length": TRAINED,
        "block_count": 12,
        "rope.freq_base": 10000.0,
        "rope.dimension_count": DIM,
        **({"attention.sliding_window": 512} if arch == "gemma3" else {}),
        **{key.replace("__", "."): value for key, value in keys.items()},
    }
    return {"general.architecture": arch, **{f"{arch}.{key}": value for key, value in content.items()}}


def geometry(arch: str) -> Geometry:
    config: dict[str, Any] = {
        "model_type": {"gemma3": "gemma3_text", "phi3": "phi3"}.get(arch, arch),
        "hidden_size": 256,
        "num_attention_heads": 4,
        "num_hidden_layers": 12,
        "head_dim": DIM,
        "max_position_embeddings": TRAINED,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }
    if arch == "gemma3":
        plain = {"rope_type": "default", "rope_theta": 10000.0}
        config |= {"sliding_window": 512, "rope_parameters": {"full_attention": plain, "sliding_attention": plain}}
    if arch == "phi3":
        config |= {"original_max_position_embeddings": TRAINED, "sliding_window": None}
    return stock.read(config)


def planned(arch: str, method: str, factor: float = 2.5) -> Plan:
    return ropewalk.plan(geometry(arch), method, length=int(TRAINED * factor))


def read_back(before: dict[str, Any], changes: dict[str, Any], tensors: dict[str, Any], length: int) -> Any:
    after = {key: value for key, value in {**before, **changes}.items() if value is not None}
    factors = {name: np.asarray(vector, dtype=np.float64) for name, vector in tensors.items()}
    return llamacpp.compute_metadata(after, length=length, factors=factors)


@pytest.mark.parametrize("factor", [1.5, 2.5, 8.0, 64.0])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("arch", ["llama", "qwen2", "gemma3", "phi3", "granite", "olmo"])
def test_said_exactly_or_refused(arch: str, method: str, factor: float) -> None:
    plan, before = planned(arch, method, factor), metadata(arch)
    # Windowed layers would get the temperature too.
    sayable = method in EVERYWHERE and (arch, method) != ("gemma3", "ntk-by-parts")
    if arch not in LOADING and not sayable:
        with pytest.raises(HostError, match=f"llama.cpp cannot compute {plan.method} for {arch}: the nearest spelling"):
            spell_metadata(before, plan, arch=arch)
        return
    changes, tensors = spell_metadata(before, plan, arch=arch)
    computed = read_back(before, changes, tensors, plan.length)
    assert computed.max_length == plan.length
    for label, word in plan.groups.items():
        wanted = word or Frequencies(inv_freq=geometric(1e4, DIM))
        assert computed.groups[label].difference(wanted) <= 1e-6, label
    assert all(vector.dtype == np.float32 for vector in tensors.values())
    if method in EVERYWHERE:
        assert tensors == {}


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("ntk", {"rope.freq_base"}),
        ("abf", {"rope.freq_base"}),
        ("pi", {"rope.scaling.type", "rope.scaling.factor"}),
        ("yarn", {"rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length"}),
    ],
)
def test_the_plainest_spelling_is_taken(method: str, expected: set[str]) -> None:
    changes, tensors = spell_metadata(metadata("llama"), planned("llama", method), arch="llama")
    assert set(changes) == {f"llama.{key}" for key in expected | {"context_length"}}
    assert changes["llama.context_length"] == 10240
    assert tensors == {}


def test_a_temperature_of_ones_own_is_divided_by_yarns() -> None:
    changes, _ = spell_metadata(metadata("llama"), planned("llama", "ntk-by-parts"), arch="llama")
    temperature = 0.1 * math.log(2.5) + 1
    assert changes["llama.rope.scaling.type"] == "yarn"
    assert changes["llama.rope.scaling.attn_factor"] == pytest.approx(1 / temperature, rel=1e-6)


def test_divisors_replace_whatever_scaling_was_there() -> None:
    before = metadata("llama", rope__scaling__type="yarn", rope__scaling__factor=4.0, rope__scaling__attn_factor=2.0)
    changes, tensors = spell_metadata(before, planned("llama", "ntk-mixed"), arch="llama")
    assert changes["llama.rope.scaling.type"] is None
    assert changes["llama.rope.scaling.factor"] is None
    assert changes["llama.rope.scaling.attn_factor"] is None
    assert list(tensors) == ["rope_freqs.weight"]
    computed = read_back(before, changes, tensors, 10240)
    assert computed.groups["all"].difference(planned("llama", "ntk-mixed").frequencies) <= 1e-6


def test_window_layers_that_would_change_are_a_reason_to_refuse() -> None:
    with pytest.raises(
        HostError, match=r"attention factor of group sliding_attention, layers that the plan leaves alone, off by 8\.\d%"
    ):
        spell_metadata(metadata("gemma3"), planned("gemma3", "ntk-by-parts"), arch="gemma3")


def test_refusals_say_what_would_be_lost() -> None:
    with pytest.raises(HostError, match=r"compute llama3 for qwen2: .*, has frequency \d+ of group all off by [\d.e+]+%"):
        spell_metadata(metadata("qwen2"), planned("qwen2", "llama3"), arch="qwen2")
    with pytest.raises(HostError, match="qwen2 loads no tensor of divisors, so take ntk, abf, pi or yarn"):
        spell_metadata(metadata("qwen2"), planned("qwen2", "yarn:beta_fast=16"), arch="qwen2")
    plan = planned("llama", "yarn")
    with pytest.raises(HostError, match="'grok' was not read"):
        spell_metadata(metadata("grok"), plan, arch="grok")
    with pytest.raises(HostError, match="is that of 'qwen2', not of 'llama'"):
        spell_metadata(metadata("qwen2"), plan, arch="llama")
    with pytest.raises(HostError, match="groups all, the plan is for other"):
        spell_metadata(metadata("llama"), replace(plan, groups={"other": plan.frequencies}), arch="llama")
    with pytest.raises(HostError, match="one group of layers, and this plan stretches 2"):
        spell_metadata(metadata("llama"), replace(plan, groups={"a": plan.frequencies, "b": plan.frequencies}), arch="llama")
    loud = Frequencies(inv_freq=plan.frequencies.inv_freq, attention_factor=1.1, logit_scale=1.3)
    with pytest.raises(
        HostError,
        match=r"the logit scale of group all off by .*; llama has one temperature .* temperature_on=rotated",
    ):
        spell_metadata(metadata("llama"), replace(plan, groups={"all": loud}), arch="llama")
    still = Frequencies(inv_freq=np.where(np.arange(32) < 8, plan.frequencies.inv_freq, 0.0))
    with pytest.raises(HostError, match="nearest spelling"):
        spell_metadata(metadata("llama"), replace(plan, groups={"all": still}), arch="llama")
    with pytest.raises(HostError, match=r"this plan is dynamic; give plan.at\(length\)"):
        spell_metadata(metadata("llama"), find("dynamic:ntk", {}).plan(geometry("llama"), 8192), arch="llama")
