"""Patching for every architecture whose code in llama.cpp was read: exact or refused, tensor data byte for byte the same."""

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_synthetic import DIM, LAYERS, TRAINED, write_synthetic

import ropewalk
from ropewalk.core.errors import HostError, PlanError, SourceError, UnsupportedError
from ropewalk.core.geometry import geometric
from ropewalk.core.plan import Plan
from ropewalk.engines import llamacpp
from ropewalk.engines.llamacpp.architectures import ARCHITECTURES
from ropewalk.hosts.gguf import geometry, positions, read_header, write_patched

FACTORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
TEMPERATURE = 0.1 * math.log(4) + 1
UNDONE = 0.1 * (1 / TEMPERATURE - 1) / (0.1 * math.log(4))
"""The multiplier that takes YaRN's temperature out of the softmax scale of MLA."""
METHODS = ("pi", "ntk", "ntk-by-parts", "yarn", "ntk-mixed", "llama3")
PATCHED = [name for name in ARCHITECTURES if name != "llama4"]
SHARED = (("olmo2", "ntk"), ("gemma3", "ntk-by-parts"))
"""Where sliding-window layers would get the base, or the temperature, that is meant for the others."""
NO_DIVISORS = [name for name in PATCHED if ARCHITECTURES[name].loads == "none" or not ARCHITECTURES[name].uses]


def digest(path: Path) -> dict[str, str]:
    header, data = read_header(path), path.read_bytes()
    return {
        name: hashlib.sha256(data[tensor.offset : tensor.offset + tensor.num_bytes]).hexdigest()
        for name, tensor in header.tensors.items()
        if name not in FACTORS
    }


def off(path: Path, plan: Plan, before: Path) -> float:
    """How far llama.cpp is from the plan; groups that it leaves alone must be as they were."""
    words = []
    for source in (path, before):
        header = read_header(source)
        computed = llamacpp.compute_metadata(header.metadata, length=1, factors=positions.factors_of(header))
        assert (computed.refuses, computed.unsupported) == (None, None)
        words.append(computed.groups)
    new, old = words
    assert set(new) == set(plan.groups)
    pairs = [(new[label], word or old[label]) for label, word in plan.groups.items()]
    assert all((found is None) == (wanted is None) for found, wanted in pairs)
    return max(found.difference(wanted) for found, wanted in pairs if found is not None and wanted is not None)


def refused(source: Path, plan: Plan, out: Path) -> None:
    start = f"llama.cpp cannot compute {plan.method} for {read_header(source).architecture}: the nearest spelling, "
    with pytest.raises(HostError, match=start):
        write_patched(source, plan, out)
    assert not out.exists()


def changed(path: Path, before: Path) -> dict[str, Any]:
    """The keys below the architecture that a patch gave another value, without their prefix."""
    new, old = read_header(path), read_header(before)
    prefix = f"{new.architecture}."
    assert all(key in new.metadata for key in old.metadata)
    return {k.removeprefix(prefix): v for k, v in new.metadata.items() if k.startswith(prefix) and old.metadata.get(k) != v}


@pytest.mark.parametrize("architecture", PATCHED)
def test_every_architecture_is_patched_exactly_or_refused(tmp_path: Path, architecture: str) -> None:
    source, out = write_synthetic(tmp_path / "m.gguf", architecture), tmp_path / "out.gguf"
    done = []
    for method in METHODS:
        plan = ropewalk.plan(source, method, length=16384)
        if (architecture in NO_DIVISORS and method in ("ntk-mixed", "llama3")) or (architecture, method) in SHARED:
            refused(source, plan, out)
            continue
        write_patched(source, plan, out)
        done.append(method)
        assert off(out, plan, source) <= 1e-6
        assert digest(out) == digest(source)
        factors = [name for name in read_header(out).tensors if name in FACTORS]
        assert bool(factors) == (method in ("ntk-mixed", "llama3"))
        found = geometry(read_header(out))
        assert (found.lineage, found.original_length, found.trained_length) == ("runtime", TRAINED, 16384)
        # The block tells the origin, so a second stretch starts there.
        assert ropewalk.plan(out, "yarn", length=32768).factor == 8.0
        (verdict,) = ropewalk.verify(out, "llama.cpp").verdicts
        assert (verdict.status, verdict.max_length) == ("exact", 16384)
        out.unlink()
    assert {"pi", "yarn"} <= set(done)


def test_phi3_gets_its_two_tensors_and_nothing_else_does(tmp_path: Path) -> None:
    factors = {FACTORS[1]: np.linspace(1.0, 32.0, DIM // 2), FACTORS[2]: np.linspace(1.0, 1.5, DIM // 2)}
    keys = {"context_length": 131072, "rope.scaling.original_context_length": 4096, "rope.scaling.attn_factor": 1.19}
    source, out = write_synthetic(tmp_path / "m.gguf", "phi3", keys, factors), tmp_path / "out.gguf"
    found = geometry(read_header(source))
    assert (found.scheme, found.lineage, found.original_length, found.trained_length) == (
        "longrope",
        "trained",
        4096,
        131072,
    )
    (group,) = found.groups
    assert group.inv_freq is not None
    assert np.allclose(group.inv_freq, geometric(1e4, DIM) / factors[FACTORS[1]], rtol=1e-6)
    assert group.attention_factor == pytest.approx(1.19, rel=1e-6)
    plan = ropewalk.plan(source, "pi", length=262144)
    write_patched(source, plan, out)
    assert off(out, plan, source) <= 1e-6
    assert digest(out) == digest(source)
    after = positions.factors_of(read_header(out))
    assert set(after) == set(FACTORS[1:])
    # Whichever of the two llama.cpp takes, it is the plan; the temperature that was there stays.
    assert np.array_equal(after[FACTORS[1]], after[FACTORS[2]])
    assert np.allclose(after[FACTORS[1]], 2 * factors[FACTORS[1]], rtol=1e-6)
    assert read_header(out).metadata["phi3.rope.scaling.attn_factor"] == pytest.approx(1.19, rel=1e-6)


def test_gemma3_leaves_its_windows_alone(tmp_path: Path) -> None:
    source, out = write_synthetic(tmp_path / "m.gguf", "gemma3"), tmp_path / "out.gguf"
    for method in ("yarn", "ntk", "pi"):
        plan = ropewalk.plan(source, method, length=16384)
        assert plan.groups["sliding_attention"] is None
        write_patched(source, plan, out, force=True)
        assert off(out, plan, source) <= 1e-6
    with pytest.raises(
        HostError, match=r"yarn, has the attention factor of group sliding_attention, layers that the plan leaves alone, off"
    ):
        write_patched(source, ropewalk.plan(source, "ntk-by-parts", length=16384), out, force=True)


def test_stablelm_turns_a_part_of_each_head(tmp_path: Path) -> None:
    source, out = write_synthetic(tmp_path / "m.gguf", "stablelm"), tmp_path / "out.gguf"
    (group,) = ropewalk.geometry(source).groups
    assert (group.rotary_dim, group.head_dim, group.layout) == (16, DIM, "half")
    plan = ropewalk.plan(source, "yarn", length=16384)
    write_patched(source, plan, out)
    assert plan.frequencies.inv_freq.shape == (8,)
    assert changed(out, source) == {
        "context_length": 16384,
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": 4.0,
        "rope.scaling.original_context_length": TRAINED,
    }


def test_heads_of_which_a_part_is_rotated_stop_a_llama(tmp_path: Path) -> None:
    source = write_synthetic(tmp_path / "m.gguf", "falcon", {"rope.dimension_count": 32})
    with pytest.raises(SourceError, match=r"llama.cpp stops at falcon.rope.dimension_count = 32, it expects 64; get"):
        ropewalk.geometry(source)


@pytest.mark.parametrize(
    ("method", "multiplier", "attention"),
    [
        ("yarn", 0.1, None),
        ("pi", UNDONE, None),
        ("ntk", None, None),
        ("ntk-by-parts", None, 1 / TEMPERATURE),
        ("yarn:temperature_on=rotated", UNDONE, TEMPERATURE),
    ],
)
def test_mla_says_its_softmax_scale_by_the_multiplier(
    tmp_path: Path, method: str, multiplier: float | None, attention: float | None
) -> None:
    source, out = write_synthetic(tmp_path / "m.gguf", "deepseek2"), tmp_path / "out.gguf"
    plan = ropewalk.plan(source, method, length=16384)
    if method == "yarn":
        # YaRN's temperature belongs on the whole q.k here, not on the rotated third of it.
        assert plan.frequencies.attention_factor == 1.0
        assert plan.frequencies.logit_scale == pytest.approx(TEMPERATURE**2)
    write_patched(source, plan, out)
    assert off(out, plan, source) <= 1e-6
    assert digest(out) == digest(source)
    keys = changed(out, source)
    assert keys.get("rope.scaling.yarn_log_multiplier") == (
        None if multiplier is None else pytest.approx(multiplier, rel=1e-5)
    )
    assert keys.get("rope.scaling.attn_factor") == (None if attention is None else pytest.approx(attention, rel=1e-6))


def test_deepseek_was_trained_at_its_stretch(tmp_path: Path) -> None:
    keys = {
        "context_length": 163840, "rope.scaling.type": "yarn", "rope.scaling.factor": 40.0,
        "rope.scaling.original_context_length": 4096, "rope.scaling.yarn_log_multiplier": 0.1,
    }  # fmt: skip
    source, out = write_synthetic(tmp_path / "m.gguf", "deepseek2", keys), tmp_path / "out.gguf"
    found = geometry(read_header(source))
    assert (found.lineage, found.original_length, found.trained_length) == ("trained", 4096, 163840)
    (group,) = found.groups
    assert group.logit_scale == pytest.approx((0.1 * math.log(40) + 1) ** 2, rel=1e-6)
    assert (group.head_dim, group.rotary_dim, group.layout) == (192, DIM, "interleaved")
    plan = ropewalk.plan(source, "yarn", length=327680)
    with pytest.raises(
        HostError, match=r"no stretch on top of the one that the file has can be said: say --lineage runtime"
    ):
        write_patched(source, plan, out)
    again = ropewalk.geometry(source, lineage="runtime")
    plan = ropewalk.plan(again, "yarn", length=327680)
    assert plan.factor == 80.0
    write_patched(source, plan, out, geometry=again)
    assert off(out, plan, source) <= 1e-6
    assert changed(out, source) == {"context_length": 327680, "rope.scaling.factor": 80.0}


def test_a_mixture_of_experts_under_the_name_llama_takes_divisors(tmp_path: Path) -> None:
    source, out = write_synthetic(tmp_path / "m.gguf", "llama"), tmp_path / "out.gguf"
    assert read_header(source).metadata["llama.expert_count"] == 8
    plan = ropewalk.plan(source, "llama3", length=16384)
    write_patched(source, plan, out)
    assert off(out, plan, source) <= 1e-6
    found = positions.factors_of(read_header(out))
    assert list(found) == ["rope_freqs.weight"]
    with pytest.raises(UnsupportedError, match=r"llama.expert_count = 8, which a llama folder cannot carry"):
        ropewalk.convert(out, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_a_multiplier_that_was_there_is_no_temperature_twice(tmp_path: Path) -> None:
    source = write_synthetic(tmp_path / "m.gguf", "mistral3", {"rope.scaling.yarn_log_multiplier": 1.0})
    plan = ropewalk.plan(source, "yarn", length=16384)
    write_patched(source, plan, tmp_path / "out.gguf")
    assert off(tmp_path / "out.gguf", plan, source) <= 1e-6
    assert changed(tmp_path / "out.gguf", source)["rope.scaling.yarn_log_multiplier"] == 0.0


def test_olmo3_shares_its_base_with_its_windows(tmp_path: Path) -> None:
    source = write_synthetic(tmp_path / "m.gguf", "olmo2")
    with pytest.raises(HostError, match=r"base, has .* leaves alone, off by .* layers of olmo2 the same, so take pi or"):
        write_patched(source, ropewalk.plan(source, "ntk", length=16384), tmp_path / "out.gguf")


# --- what is read, and what is refused --------------------------------------------------------------------------------


def test_geometry_is_what_llama_cpp_turns_by(tmp_path: Path) -> None:
    by_name = {name: ropewalk.geometry(write_synthetic(tmp_path / f"{name}.gguf", name)) for name in PATCHED}
    assert [group.label for group in by_name["qwen35"].groups] == ["full_attention", "linear_attention"]
    assert by_name["qwen35"].groups[0].layers == (3, 7)
    assert [len(group.layers) for group in by_name["smollm3"].groups] == [6, 2]
    assert by_name["gemma2"].groups[0].shared_with_window
    assert [group.window for group in by_name["gemma3"].groups] == [None, 512]
    assert by_name["olmo2"].groups[0].layers == (3, 7)
    # Phi-3's window is in its files and switched off in llama.cpp.
    assert by_name["phi3"].groups[0].window is None
    assert all(found.num_layers == LAYERS and found.lineage == "plain" for found in by_name.values())


@pytest.mark.parametrize(
    ("architecture", "keys", "error", "message"),
    [
        ("llama4", {}, UnsupportedError, "temperature of llama4 grow with the position"),
        ("mistral3", {"attention.temperature_scale": 0.1}, UnsupportedError, "mistral3.attention.temperature_scale = 0.1"),
        ("granite", {"rope.scaling.finetuned": False}, UnsupportedError, "rotates nothing in this file"),
        ("gpt-oss", {"rope.dimension_count_swa": 32}, UnsupportedError, "sliding-window layers have heads of their own"),
        ("grok", {}, UnsupportedError, "'grok' was not read; take the original checkpoint, or a file of apertus, arcee"),
        ("stablelm", {"attention.head_count": 0}, SourceError, "stablelm.attention.head_count is 0, expected a number"),
        ("stablelm", {"rope.freq_base": -1.0}, SourceError, r"stablelm.rope.freq_base is -1.0, expected a number above 0"),
        ("stablelm", {"context_length": "x"}, SourceError, "llama.cpp stops at stablelm.context_length = 'x'"),
    ],
)
def test_refused_by_name(tmp_path: Path, architecture: str, keys: dict[str, Any], error: Any, message: str) -> None:
    source = write_synthetic(tmp_path / "m.gguf", architecture, keys)
    with pytest.raises(error, match=message):
        ropewalk.geometry(source)
    document = ropewalk.verify(source).to_dict()
    assert document["reference"] is None
    assert [finding["severity"] for finding in document["findings"]] == ["error"]


def test_a_tensor_that_llama_cpp_does_not_load_is_a_verdict(tmp_path: Path) -> None:
    source = write_synthetic(tmp_path / "m.gguf", "qwen2moe", factors={"rope_freqs.weight": np.ones(DIM // 2)})
    verification = ropewalk.verify(source, "llama.cpp")
    assert verification.verdicts[0].status == "refuses"
    assert "loads no rope_freqs.weight for qwen2moe" in verification.verdicts[0].reason
    assert not verification.passed


def test_verify_against_another_file_and_a_plan_of_another_model(tmp_path: Path) -> None:
    source, out = write_synthetic(tmp_path / "m.gguf", "qwen2moe"), tmp_path / "out.gguf"
    write_patched(source, ropewalk.plan(source, "yarn", length=16384), out)
    assert ropewalk.verify(out, "llama.cpp", against=out).passed
    (verdict,) = ropewalk.verify(source, "llama.cpp", against=out).verdicts
    assert verdict.status == "differs"
    assert "it accepts 4096 tokens of 16384" in verdict.reason
    with pytest.raises(PlanError, match="the file has all; give a plan of this model"):
        ropewalk.verify(source, against=write_synthetic(tmp_path / "w.gguf", "olmo2"))


def test_unknown_lineage_is_asked_for(tmp_path: Path) -> None:
    keys = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 1024}
    found = ropewalk.geometry(write_synthetic(tmp_path / "f.gguf", "falcon", keys))
    assert (found.lineage, found.original_length, found.trained_length) == ("unknown", 1024, 4096)
    found = ropewalk.geometry(write_synthetic(tmp_path / "q.gguf", "qwen2moe", keys))
    assert found.lineage == "runtime"
    with pytest.raises(UnsupportedError, match="say --lineage trained"):
        ropewalk.plan(tmp_path / "f.gguf", "yarn", length=16384)
