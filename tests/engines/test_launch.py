"""Launch lines: what is said to each engine, what the engine then sees, and what no line can say."""

import json
from typing import Any

import pytest
from engines.configs import LENGTH, YARN, llama, yarn

import ropewalk
from ropewalk.core.errors import HostError, InputError
from ropewalk.core.plan import Plan
from ropewalk.engines import llamacpp, transformers, verdicts
from ropewalk.engines.computed import Launch
from ropewalk.engines.launch import apply_launch, launch
from ropewalk.engines.llamacpp import flags
from ropewalk.engines.reference import completed
from ropewalk.engines.verdicts import Verdict, judge

METHODS = ["pi", "ntk", "ntk-by-parts", "yarn", "abf", "yarn:beta_fast=16", "yarn:beta_fast=24,beta_slow=2"]
LENGTHS = [4 * LENGTH, 45056, 12345, 20000]
ORIGINAL = "original_max_position_embeddings"
GEMMA = {
    "model_type": "gemma3_text", "hidden_size": 256, "num_attention_heads": 4, "num_hidden_layers": 6, "head_dim": 64,
    "max_position_embeddings": LENGTH, "rope_theta": 1e6, "sliding_window": 512,
}  # fmt: skip


def planned(config: dict[str, Any], method: str = "yarn", length: int = 4 * LENGTH) -> Plan:
    return ropewalk.plan(config, method, length=length, lineage="runtime" if "rope_parameters" in config else None)


def judged(config: dict[str, Any], plan: Plan, line: Launch) -> Verdict:
    """What the engine's own reader makes of the line."""
    full = completed(config, plan)
    if line.engine == "llama.cpp":
        metadata, factors = flags.file_of(config)
        return judge(lambda n: flags.compute_flags(metadata, factors, line.arguments, length=n), full)
    seen = apply_launch(config, line, line.engine)
    compute = verdicts.ENGINES[line.engine]().compute
    return judge(lambda n: compute(seen, length=n), full)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("engine", ["vllm", "sglang", "transformers", "llama.cpp"])
def test_the_line_says_the_plan(engine: str, method: str, length: int) -> None:
    plan = planned(llama(), method, length)
    verdict = judged(llama(), plan, launch(llama(), plan, engine))
    assert (verdict.status, verdict.max_length in (None, length)) == ("exact", True), verdict.reason


@pytest.mark.parametrize("engine", ["vllm", "sglang", "transformers"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_the_line_says_the_plan_over_a_stretch_that_is_there(engine: str, wrapped: bool) -> None:
    config = yarn(factor=2.0, attention_factor=1.5, mscale=2.0, beta_fast=8.0)
    if wrapped:
        config = {"model_type": "qwen3_5", "text_config": {**config, "model_type": "qwen3_5_text", "head_dim": 64}}
    plan = planned_from_runtime(config)
    assert judged(config, plan, launch(config, plan, engine, geometry=runtime(config))).status == "exact"


def runtime(config: dict[str, Any]) -> Any:
    return transformers.read(config).with_lineage("runtime")


def planned_from_runtime(config: dict[str, Any]) -> Plan:
    return ropewalk.plan(runtime(config), "yarn", length=8 * LENGTH)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "transformers", "llama.cpp"])
def test_a_group_that_is_left_alone_stays_so(engine: str) -> None:
    plan = planned(GEMMA)
    assert judged(GEMMA, plan, launch(GEMMA, plan, engine)).status == "exact"


# --- what each engine is told -------------------------------------------------------------------------------------------


def test_vllm_replaces_the_whole_object_so_all_of_it_is_said() -> None:
    line = launch(llama(), planned(llama()), "vllm")
    assert line.arguments[0] == "--hf-overrides"
    said = json.loads(line.arguments[1])
    assert said["rope_parameters"]["rope_theta"] == 1e5
    assert said["max_position_embeddings"] == 4 * LENGTH
    assert line.arguments[2:] == ("--max-model-len", str(4 * LENGTH))
    partial = Launch(engine="vllm", arguments=("--hf-overrides", json.dumps({"rope_parameters": {"factor": 2.0}})))
    assert apply_launch(yarn(), partial, "vllm")["rope_parameters"] == {"factor": 2.0}


def test_sglang_merges_so_what_would_stay_is_unsaid() -> None:
    config = yarn(factor=2.0, attention_factor=1.5)
    line = launch(config, planned_from_runtime(config), "sglang", geometry=runtime(config))
    assert line.arguments[0] == "--json-model-override-args"
    assert json.loads(line.arguments[1])["rope_parameters"]["attention_factor"] is None
    partial = Launch(
        engine="sglang", arguments=("--json-model-override-args", json.dumps({"rope_parameters": {"factor": 2.0}}))
    )
    assert apply_launch(yarn(), partial, "sglang")["rope_parameters"] == {**YARN, "factor": 2.0}


def test_a_nested_config_is_merged_by_vllm_and_replaced_by_sglang() -> None:
    nested = {"model_type": "gemma3", "text_config": {**GEMMA}}
    said = {"text_config": {"rope_parameters": {"full_attention": {"factor": 2.0}}}}
    seen = apply_launch(nested, Launch(engine="vllm", arguments=("--hf-overrides", json.dumps(said))), "vllm")
    assert set(seen["text_config"]["rope_parameters"]) == {"full_attention", "sliding_attention"}
    line = Launch(engine="sglang", arguments=("--json-model-override-args", json.dumps(said)))
    assert apply_launch(nested, line, "sglang")["text_config"]["rope_parameters"] == said["text_config"]["rope_parameters"]


def test_an_original_length_beside_the_rope_parameters_is_overridden_too() -> None:
    config = {**llama(), ORIGINAL: 2048}
    plan = planned(config)
    line = launch(config, plan, "vllm")
    assert json.loads(line.arguments[1])[ORIGINAL] == LENGTH
    assert judged(config, plan, line).status == "exact"


def test_llamacpp_gets_flags_and_the_factor_through_a_key() -> None:
    line = launch(llama(), planned(llama(), "ntk-by-parts"), "llama.cpp")
    text = " ".join(line.arguments)
    assert "--rope-scaling yarn --rope-scale 4.0 --rope-freq-base 100000.0 --yarn-orig-ctx 8192" in text
    assert "llama.rope.scaling.attn_factor=float:0.878" in text
    assert "--yarn-attn-factor" not in text
    assert any("Ollama" in said for said in line.says)


def test_a_dropped_flag_shows() -> None:
    plan = planned(llama(), "ntk-by-parts")
    line = launch(llama(), plan, "llama.cpp")
    without = line.arguments[: line.arguments.index("--override-kv")]
    verdict = judged(llama(), plan, Launch(engine="llama.cpp", arguments=without))
    assert verdict.status == "differs"
    assert "attention factor 1.13863 for 1" in verdict.reason


def test_betas_of_the_command_line_reach_every_architecture() -> None:
    plan = planned(llama(), "yarn:beta_fast=16")
    line = launch(llama(), plan, "llama.cpp")
    at = line.arguments.index("--yarn-beta-fast")
    assert judged(llama(), plan, line).status == "exact"
    cut = Launch(engine="llama.cpp", arguments=(*line.arguments[:at], *line.arguments[at + 2 :]))
    assert judged(llama(), plan, cut).status == "differs"


def test_a_context_that_llamacpp_would_round_a_token_short_is_said_in_keys() -> None:
    original, factor = next(
        (n, length / n)
        for n in range(1000, 9000)
        for length in (5 * n + 1,)
        if flags._trained_context(n, length / n) < length
    )
    config = llama(max_position_embeddings=original)
    plan = planned(config, "yarn", round(original * factor))
    line = launch(config, plan, "llama.cpp")
    assert "--rope-scale" not in line.arguments
    verdict = judged(config, plan, line)
    assert (verdict.status, verdict.max_length) == ("exact", plan.length)


# --- what no line says --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "method", "reason"),
    [
        (llama(), "llama3", "has no flags for llama3 scaling"),
        (llama(), "yarn:truncate=false", "truncate=false would be lost"),
        ({"model_type": "gpt_oss", "max_position_embeddings": 131072}, "pi", "no flags for|do not reach the sliding-window"),
        (
            {"model_type": "gemma2", "head_dim": 64, "max_position_embeddings": LENGTH, "num_hidden_layers": 4,
             "num_attention_heads": 4},
            "yarn", "do not reach the sliding-window layers of gemma2",
        ),
    ],
)  # fmt: skip
def test_what_llamacpp_cannot_be_told_is_refused(config: dict[str, Any], method: str, reason: str) -> None:
    length = 4 * int(config["max_position_embeddings"])
    with pytest.raises(HostError, match=reason):
        launch(config, ropewalk.plan(config, method, length=length), "llama.cpp")


def test_a_family_that_was_not_read_has_no_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flags, "OF_MODEL_TYPE", {})
    with pytest.raises(HostError, match=r"llama\.cpp's code for llama was not read"):
        launch(llama(), planned(llama()), "llama.cpp")
    with pytest.raises(HostError, match="architecture 'nobody' was not read"):
        flags.arguments_for({"general.architecture": "nobody"}, YARN, planned(llama()))


def test_unknown_engines_and_flags_are_refused() -> None:
    with pytest.raises(InputError, match="no launch line is known for 'vlm'; did you mean vllm"):
        launch(llama(), planned(llama()), "vlm")
    with pytest.raises(InputError, match="the flag '--yarn-attn-factor'"):
        flags.apply_flags(flags.file_of(llama())[0], ["--yarn-attn-factor", "1.2"])


def test_reading_the_file_alone_is_not_reading_the_line() -> None:
    metadata, factors = flags.file_of(llama())
    plain = llamacpp.compute_metadata(metadata, length=1, factors=factors)
    line = launch(llama(), planned(llama()), "llama.cpp")
    assert flags.compute_flags(metadata, factors, line.arguments, length=1).groups != plain.groups


def test_the_note_on_the_factor_is_said_only_where_one_is_overridden() -> None:
    usual = launch(llama(), planned(llama()), "llama.cpp")
    assert not any("attn-factor" in said for said in usual.says)
    own = launch(llama(), planned(llama(), "yarn:attention_factor=1.5"), "llama.cpp")
    assert any("rope.scaling.attn_factor=" in argument for argument in own.arguments)
    assert any("attn-factor" in said for said in own.says)
