"""The judge: what counts as exact, what is said of a difference, and where the reference comes from."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from engines.configs import LENGTH, engine, llama, longrope, yarn

import ropewalk
from ropewalk.core.errors import InputError, PlanError, SourceError
from ropewalk.core.geometry import Finding
from ropewalk.core.plan import Frequencies, Plan
from ropewalk.engines import transformers, verdicts
from ropewalk.engines.computed import Computed
from ropewalk.engines.reference import completed, reference_of, source_of
from ropewalk.engines.transformers.compute import compute
from ropewalk.engines.verdicts import gap_of, judge

CONTRACT = [
    "engine", "version", "status", "max_relative_error", "first_dimension", "worst_dimension", "attention_factor",
    "max_length", "reason", "mend", "how",
]  # fmt: skip
ONLY = ["transformers"]


def same(word: Frequencies) -> Frequencies:
    return word


def judged(config: Mapping[str, Any], made: Any) -> verdicts.Verdict:
    return judge(made, completed(config, reference_of(config)))


def test_the_document_is_the_contract_s() -> None:
    document = verdicts.verify(yarn(), engines=ONLY).to_dict()
    assert list(document) == ["reference", "verdicts", "findings"]
    assert list(document["verdicts"][0]) == CONTRACT
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["reference"]["length"] == 4 * LENGTH
    assert Plan.from_dict(document["reference"]) == reference_of(yarn())


def test_an_engine_that_computes_the_reference_is_exact() -> None:
    verdict = judged(yarn(), engine(yarn(), same, max_length=4 * LENGTH))
    assert (verdict.status, verdict.max_relative_error, verdict.first_dimension) == ("exact", 0.0, None)
    assert verdict.attention_factor == pytest.approx(1 + 0.1 * math.log(4))


@pytest.mark.parametrize(("error", "status"), [(5e-7, "exact"), (2e-6, "differs")])
def test_the_border_is_a_millionth(error: float, status: str) -> None:
    off = engine(yarn(), lambda word: replace(word, inv_freq=word.inv_freq * (1 + error)))
    assert judged(yarn(), off).status == status


def test_a_difference_names_its_first_and_its_worst_dimension() -> None:
    def bend(word: Frequencies) -> Frequencies:
        factors = np.ones(32)
        factors[5], factors[20] = 1.001, 2.0
        return replace(word, inv_freq=word.inv_freq * factors)

    verdict = judged(yarn(), engine(yarn(), bend))
    assert (verdict.status, verdict.first_dimension, verdict.worst_dimension) == ("differs", 5, 20)
    assert verdict.max_relative_error == pytest.approx(0.5)
    assert "2 of 32 frequencies differ from dimension 5 on, most in 20 (2 times the reference)" in verdict.reason
    assert verdict.mend


def test_an_attention_factor_alone_differs_without_a_dimension() -> None:
    verdict = judged(yarn(), engine(yarn(), lambda w: replace(w, attention_factor=1.0), ignored=("attention_factor",)))
    assert (verdict.status, verdict.first_dimension, verdict.worst_dimension) == ("differs", None, None)
    assert verdict.max_relative_error == pytest.approx(1 - 1 / (1 + 0.1 * math.log(4)))
    assert "attention factor 1 for 1.13863" in verdict.reason
    assert "does not read attention_factor" in verdict.reason


def test_a_shorter_length_differs_though_every_number_is_right() -> None:
    verdict = judged(yarn(), engine(yarn(), same, max_length=LENGTH))
    assert (verdict.status, verdict.max_relative_error, verdict.max_length) == ("differs", 0.0, LENGTH)
    assert verdict.reason == f"it accepts {LENGTH} tokens of {4 * LENGTH}"
    assert f"to {4 * LENGTH}" in verdict.mend


def test_llamacpp_is_mended_in_its_own_file() -> None:
    off = engine(yarn(), lambda word: replace(word, attention_factor=1.0), engine="llama.cpp")
    assert "extend MODEL.gguf" in judged(yarn(), off).mend


def test_refusals_and_families_without_code_are_told_apart() -> None:
    refuses = judged(yarn(), engine(yarn(), same, refuses="an int where a list is needed"))
    unsupported = judged(yarn(), engine(yarn(), same, unsupported="not read"))
    assert (refuses.status, refuses.reason) == ("refuses", "an int where a list is needed")
    assert (unsupported.status, unsupported.reason) == ("unsupported", "not read")


def test_a_group_that_is_missing_or_of_another_size_cannot_be_compared() -> None:
    missing = judged(yarn(), lambda length: Computed(engine="stub", versions="1", groups={}, max_length=None))
    smaller = judged(yarn(), engine(yarn(), lambda word: replace(word, inv_freq=word.inv_freq[:16])))
    assert (missing.status, missing.max_relative_error) == ("differs", None)
    assert "has no group 'all'" in missing.reason
    assert (smaller.status, smaller.max_relative_error) == ("differs", None)
    assert "16 frequencies, the reference 32" in smaller.reason


def test_rotating_what_the_reference_leaves_alone_differs() -> None:
    word = Frequencies(inv_freq=np.ones(4))
    assert gap_of("none", 8, None, None).error == 0.0
    assert "rotates and the reference does not" in gap_of("none", 8, None, word).words
    assert "rotates nothing" in gap_of("all", 8, word, None).words


# --- numbers that depend on the length ----------------------------------------------------------------------------------


def test_two_regimes_are_judged_at_both_lengths() -> None:
    plan = reference_of(longrope())
    assert (plan.kind, plan.original_length, plan.length) == ("switched", LENGTH, 4 * LENGTH)
    long = plan.at(4 * LENGTH).groups

    def always_long(length: int) -> Computed:
        return Computed(engine="stub", versions="1", groups=long, max_length=None, depends_on="deployment")

    verdict = judge(always_long, completed(longrope(), plan))
    assert verdict.status == "differs"
    assert f"at {LENGTH} tokens" in verdict.reason
    assert judged(longrope(), engine(longrope(), same, depends_on="batch")).status == "exact"


def test_an_engine_that_changes_with_the_length_is_judged_inside_the_original_length_too() -> None:
    asked: list[int] = []

    def watched(length: int) -> Computed:
        asked.append(length)
        computed: Computed = engine(yarn(), same, depends_on="request")(length)
        return computed

    assert judged(yarn(), watched).status == "exact"
    assert asked == [4 * LENGTH, LENGTH]


def test_a_dynamic_reference_is_judged_at_both_lengths() -> None:
    config = llama()
    plan = ropewalk.plan(config, "dynamic:ntk", length=4 * LENGTH)
    full = completed(config, plan)
    assert full.kind == "switched"
    assert full.at(LENGTH).groups == plan.at(LENGTH).groups
    assert full.groups == plan.at(4 * LENGTH).groups


# --- where the reference comes from -----------------------------------------------------------------------------------


def test_the_block_comes_before_the_rope_parameters() -> None:
    plan = ropewalk.plan(llama(), "yarn", length=4 * LENGTH)
    config = transformers.spell(llama(), plan)
    assert reference_of(config).groups == plan.groups
    assert source_of(config) == "the 'ropewalk' block of the checkpoint"
    config["rope_parameters"]["factor"] = 2.0
    found = verdicts.verify(config, engines=ONLY)
    assert found.verdicts[0].status == "differs"
    assert not found.passed


@pytest.mark.parametrize(
    "method", ["longrope:short_factor={},long_factor={}".format("|".join("1" * 32), "|".join("4" * 32))]
)
def test_a_block_of_two_regimes_is_read_back_as_two(method: str) -> None:
    plan = ropewalk.plan(llama(), method, length=4 * LENGTH)
    config = transformers.spell(llama(), plan)
    reference = reference_of(config)
    assert reference.kind == plan.kind == "switched"
    assert reference.at(LENGTH).difference(plan.at(LENGTH)) < 1e-9
    assert verdicts.verify(config, engines=ONLY).passed


def test_groups_left_alone_are_held_to_what_they_were() -> None:
    config = {
        "model_type": "gemma3_text", "hidden_size": 256, "num_attention_heads": 4, "num_hidden_layers": 6, "head_dim": 64,
        "max_position_embeddings": LENGTH, "rope_theta": 1e6,
    }  # fmt: skip
    plan = ropewalk.plan(config, "yarn", length=4 * LENGTH)
    assert plan.groups["sliding_attention"] is None
    full = completed(config, plan)
    assert full.groups["sliding_attention"] is not None

    def stretches_all(length: int) -> Computed:
        word = full.groups["sliding_attention"]
        assert word is not None
        halved = {**full.groups, "sliding_attention": replace(word, inv_freq=word.inv_freq / 2)}
        return Computed(engine="stub", versions="1", groups=halved, max_length=None)

    verdict = judge(stretches_all, full)
    assert verdict.status == "differs"
    assert "'sliding_attention'" in verdict.reason


def test_a_reference_of_another_model_is_refused() -> None:
    plan = replace(reference_of(llama()), groups={"rope": None})
    with pytest.raises(
        PlanError, match="the reference is for groups rope, the checkpoint has all; give a plan of this model"
    ):
        verdicts.verify(llama(), reference=plan, engines=ONLY)


def test_a_damaged_block_is_an_error_finding() -> None:
    config = transformers.spell(llama(), ropewalk.plan(llama(), "yarn", length=4 * LENGTH))
    del config["ropewalk"]["length"]
    with pytest.raises(SourceError, match=r"block of config\.json is damaged"):
        reference_of(config)
    found = verdicts.verify(config, engines=ONLY)
    assert [finding.severity for finding in found.findings] == ["error"]
    assert found.reference is None


# --- wrong configs, names, and what passes ------------------------------------------------------------------------------

WRONG = {
    "nan": llama(rope_parameters={"rope_type": "linear", "factor": math.nan, "rope_theta": 1e5}),
    "negative": llama(rope_parameters={"rope_type": "yarn", "factor": -4.0, "rope_theta": 1e5}),
    "infinite": llama(rope_parameters={"rope_type": "linear", "factor": math.inf, "rope_theta": 1e5}),
    "short list": longrope() | {"head_dim": 128},
    "text": llama(rope_theta="1e5"),
    "no factor": llama(rope_parameters={"rope_type": "yarn", "rope_theta": 1e5}),
    "unknown type": llama(rope_parameters={"rope_type": "spiral", "rope_theta": 1e5}),
    "unknown family": llama(model_type="nobody"),
    "no family": {"hidden_size": 4},
    "block": llama(ropewalk=3),
}


@pytest.mark.parametrize("config", WRONG.values(), ids=WRONG)
def test_a_wrong_config_is_an_error_finding_with_a_full_document(config: dict[str, Any]) -> None:
    found = verdicts.verify(config, engines=ONLY)
    document = found.to_dict()
    assert not found.passed
    assert document["reference"] is None
    assert document["verdicts"][0]["status"] in ("refuses", "unsupported")
    (finding,) = document["findings"]
    assert finding["severity"] == "error"
    assert all(finding.values())
    json.dumps(document, allow_nan=False)


def test_the_finding_names_the_field() -> None:
    (finding,) = verdicts.verify(WRONG["nan"], engines=ONLY).findings
    assert (finding.field, "got nan" in finding.problem) == ("factor", True)


def test_unsupported_fails_only_where_it_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = SimpleNamespace(
        NAME="vllm", VERSIONS="1",
        compute=lambda config, *, length, tokenizer_config: Computed(
            engine="vllm", versions="1", groups={}, max_length=None, unsupported="not read"
        ),
    )  # fmt: skip
    monkeypatch.setattr(verdicts, "ENGINES", {"transformers": verdicts.ENGINES["transformers"], "vllm": lambda: stub})
    assert verdicts.verify(yarn()).passed
    assert not verdicts.verify(yarn(), engines=["vllm"]).passed


def test_an_error_finding_fails_and_a_warning_passes() -> None:
    def finding(severity: Any) -> Finding:
        return Finding(field="x", severity=severity, problem="p", mend="m")

    assert verdicts.verify(yarn(), engines=ONLY, findings=[finding("warning"), finding("note")]).passed
    assert not verdicts.verify(yarn(), engines=ONLY, findings=[finding("error")]).passed


def test_unknown_engines_are_named_with_near_ones() -> None:
    with pytest.raises(InputError, match=r"unknown engine 'llamacpp'; did you mean llama\.cpp or vllm\?"):
        verdicts.verify(yarn(), engines=["llamacpp"])
    with pytest.raises(InputError, match="unknown engine ''"):
        verdicts.verify(yarn(), engines=[])


# --- transformers' own file -------------------------------------------------------------------------------------------


def test_transformers_is_read_at_the_length_that_is_asked() -> None:
    short, long = (compute(longrope(), length=n) for n in (LENGTH, LENGTH + 1))
    assert short.depends_on == "batch"
    assert short.groups["all"] != long.groups["all"]
    assert compute(longrope(long=1.0), length=LENGTH).depends_on == "nothing"
    assert compute(llama(rope_scaling={"type": "dynamic", "factor": 4.0}), length=LENGTH).depends_on == "batch"


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (WRONG["no factor"], "lack factor"),
        (WRONG["unknown type"], "'spiral' is not one that transformers knows"),
        (longrope(short_factor=[1.0] * 3), "short_factor has 3 numbers for 32 frequencies"),
        (longrope(long_factor=4.0), "long_factor has 4.0 for 32 frequencies"),
        (llama(rope_parameters={"rope_type": "llama3", "rope_theta": 1e5, "factor": 8.0}), "lack low_freq_factor and"),
        (llama(partial_rotary_factor=0.5), "rotates whole heads"),
        ({**yarn(), "model_type": "mixtral"}, "cannot be built where head_dim is left out"),
    ],
)
def test_what_stops_transformers_is_a_refusal(config: dict[str, Any], reason: str) -> None:
    computed = compute(config, length=LENGTH)
    assert computed.unsupported is None
    assert reason in (computed.refuses or "")


@pytest.mark.parametrize("name", ["nan", "negative", "unknown family", "text"])
def test_what_cannot_be_told_is_unsupported(name: str) -> None:
    computed = compute(WRONG[name], length=LENGTH)
    assert computed.refuses is None
    assert computed.unsupported


def test_fields_that_stock_code_does_not_look_at_are_named() -> None:
    nested = {"full_attention": {"rope_type": "yarn", "factor": 4.0, "truncate": False, "rope_theta": 1e6,
                                 "original_max_position_embeddings": LENGTH}}  # fmt: skip
    config = {"model_type": "olmo3", "rope_parameters": nested, "max_position_embeddings": 4 * LENGTH}
    assert compute(config, length=LENGTH).ignored == ("rope_parameters.full_attention.truncate",)
    assert compute(longrope(short_mscale=1.2, long_mscale=1.2), length=1).ignored == ("short_mscale", "long_mscale")
    linear = llama(rope_parameters={"rope_type": "linear", "factor": 4.0, "attention_factor": 1.2, "rope_theta": 1e5})
    assert compute(linear, length=1).ignored == ("attention_factor",)
