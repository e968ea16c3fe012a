"""Traps that show without an engine, and the mends that have only one way out."""

import math
from typing import Any

import pytest
from engines.configs import LENGTH, YARN, llama, longrope, yarn

import ropewalk
from ropewalk.core.errors import SourceError, UnsupportedError
from ropewalk.core.geometry import Finding
from ropewalk.engines import transformers
from ropewalk.engines.findings import Facts, findings, is_draft
from ropewalk.engines.mending import mend
from ropewalk.engines.reference import reference_of
from ropewalk.engines.verdicts import verify

ORIGINAL = "original_max_position_embeddings"
OLD = {key: value for key, value in YARN.items() if key not in ("rope_type", "rope_theta")} | {"type": "yarn"}


def found(config: dict[str, Any], field: str, **beside: Any) -> Finding:
    """The one finding of a field."""
    (one,) = [finding for finding in findings(config, **beside) if finding.field == field]
    assert one.problem
    assert one.mend
    return one


def serious(config: dict[str, Any], **beside: Any) -> list[str]:
    return [finding.field for finding in findings(config, **beside) if finding.severity != "note"]


@pytest.mark.parametrize("config", [llama(), yarn(), longrope(attention_factor=1.2)], ids=["plain", "yarn", "longrope"])
def test_a_clean_config_has_no_warning(config: dict[str, Any]) -> None:
    assert serious(config, tokenizer_config={"model_max_length": 4 * LENGTH}, facts=Facts()) == []


def test_what_we_write_has_no_warning() -> None:
    for method in ("pi", "ntk", "yarn", "ntk-by-parts", "abf", "yarn:truncate=false"):
        config = transformers.spell(llama(), ropewalk.plan(llama(), method, length=4 * LENGTH))
        assert serious(config) == [], method


# --- one trap each ----------------------------------------------------------------------------------------------------


def test_a_whole_number_for_a_factor() -> None:
    assert found(yarn(factor=4), "rope_parameters.factor").mend == "write 4.0"
    assert found(yarn(attention_factor=1), "rope_parameters.attention_factor").severity == "warning"


def test_a_missing_original_length() -> None:
    section = {key: value for key, value in YARN.items() if key != ORIGINAL}
    one = found(llama(rope_parameters=section), f"rope_parameters.{ORIGINAL}")
    assert one.severity == "error"


def test_both_spellings_contradicting() -> None:
    config = llama(rope_scaling={**OLD, "factor": 2.0}, rope_parameters=YARN, rope_theta=1e5)
    assert "differ in factor" in found(config, "rope_scaling").problem


def test_a_stale_base_beside_the_rope_parameters() -> None:
    assert "overruled" in found({**yarn(), "rope_theta": 5e5}, "rope_theta").problem


def test_a_stale_original_length_beside_the_rope_parameters() -> None:
    assert found({**yarn(), ORIGINAL: 2048}, ORIGINAL).severity == "warning"


def test_a_base_that_is_written_nowhere() -> None:
    dropped = {"rope_type": "yarn", "factor": 4.0, ORIGINAL: LENGTH}
    config = llama(rope_parameters=dropped, max_position_embeddings=4 * LENGTH)
    assert found(config, "rope_theta").severity == "error"
    lost = llama(rope_scaling=OLD, max_position_embeddings=4 * LENGTH)
    del lost["rope_theta"]
    assert found(lost, "rope_theta").severity == "warning"
    first = llama(max_position_embeddings=2048)
    del first["rope_theta"]
    assert serious(first) == []


def test_truncate_where_nothing_looks() -> None:
    nested = {
        "full_attention": {**YARN, "truncate": False},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    config = {"model_type": "olmo3", "rope_parameters": nested, "max_position_embeddings": 4 * LENGTH}
    assert found(config, "rope_parameters.full_attention.truncate").severity == "error"


PHI = {"model_type": "phi3", "hidden_size": 512, "num_attention_heads": 4, "max_position_embeddings": LENGTH}
INSIDE = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.75}


@pytest.mark.parametrize("top", [{}, {"partial_rotary_factor": 0.5}], ids=["nowhere", "another"])
def test_a_rotated_share_that_sglang_does_not_see(top: dict[str, float]) -> None:
    config = {**PHI, **top, "rope_parameters": INSIDE}
    assert found(config, "partial_rotary_factor").mend == "write partial_rotary_factor 0.75 at the top level too"
    [before] = verify(config, engines=["sglang"]).verdicts
    mended = mend(config).config
    [after] = verify(mended, engines=["sglang"]).verdicts
    assert (before.status, after.status) == ("differs", "exact")
    assert mended["partial_rotary_factor"] == 0.75
    assert serious(mended) == []


def test_a_rotated_share_that_every_reader_sees() -> None:
    for config in ({**PHI, "partial_rotary_factor": 0.75}, PHI, {**PHI, "rope_parameters": {"rope_theta": 1e4}}):
        assert serious(config) == []


def test_dynamic_scaling_that_was_exported() -> None:
    config = llama(rope_scaling={"type": "dynamic", "factor": 4.0})
    assert found(config, "rope_parameters.rope_type").severity == "error"


@pytest.mark.parametrize(
    ("fields", "field", "severity"),
    [
        ({"max_seq_len": 2048}, "max_seq_len", "warning"),
        ({"n_positions": 10**6}, "n_positions", "note"),
        ({"max_position_embeddings": LENGTH}, "max_position_embeddings", "warning"),
        ({"max_position_embeddings": 16 * LENGTH}, "max_position_embeddings", "warning"),
        ({"max_position_embeddings": LENGTH // 2}, ORIGINAL, "error"),
    ],
)
def test_lengths_that_contradict_or_lie(fields: dict[str, int], field: str, severity: str) -> None:
    assert found({**yarn(), **fields}, field).severity == severity


def test_longrope_with_its_original_length_outside_too() -> None:
    config = {**longrope(attention_factor=1.2), ORIGINAL: LENGTH}
    assert "--max-model-len" in found(config, ORIGINAL).mend


def test_a_tokenizer_that_stops_early() -> None:
    field = "tokenizer_config.json: model_max_length"
    assert (
        found(yarn(), field, tokenizer_config={"model_max_length": LENGTH}).mend == f"set model_max_length to {4 * LENGTH}"
    )
    assert serious(yarn(), tokenizer_config={"model_max_length": 1e30}) == []
    assert serious(yarn(), tokenizer_config={"model_max_length": "many"}) == []


@pytest.mark.parametrize(("dtype", "severity"), [("BF16", "warning"), ("F16", "warning"), ("F32", "note")])
def test_stored_buffers_of_frequencies(dtype: str, severity: str) -> None:
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    assert found(yarn(), name, facts=Facts(tensors={name: dtype})).severity == severity


@pytest.mark.parametrize(
    ("draft", "says"),
    [
        (llama(), f"it reads {LENGTH} tokens of {4 * LENGTH}"),
        (llama(max_position_embeddings=4 * LENGTH), "its frequencies are others"),
        (yarn(attention_factor=1.0), "its attention factor is 1 for 1.13863"),
    ],
)
def test_a_draft_model_that_does_not_carry_the_plan(draft: dict[str, Any], says: str) -> None:
    one = found(yarn(), "eagle", facts=Facts(drafts={"eagle": draft}))
    assert says in one.problem


def test_drafts_that_carry_the_plan_or_are_none() -> None:
    assert serious(yarn(), facts=Facts(drafts={"eagle": yarn(), "vision": llama()})) == []
    stretched = yarn() | {"hidden_size": 256}
    assert serious(yarn(), facts=Facts(drafts={"eagle": stretched})) == []
    assert is_draft("head", {"architectures": ["LlamaForCausalLMEagle3"]})
    assert is_draft("head", {"model_type": "medusa"})
    assert not is_draft("vision", {"model_type": "llama"})


def test_a_draft_of_another_shape_that_claims_the_length_and_has_no_stretch() -> None:
    narrow = llama(hidden_size=256, max_position_embeddings=4 * LENGTH)
    one = found(yarn(), "eagle", facts=Facts(drafts={"eagle": narrow}))
    assert one.severity == "warning"
    assert f"it claims {4 * LENGTH} tokens without a stretch" in one.problem
    apart = llama(hidden_size=256, max_position_embeddings=4 * LENGTH, rope_theta=1e6)
    one = found(yarn(), "eagle", facts=Facts(drafts={"eagle": apart}))
    assert one.severity == "note"
    assert "nothing here shows that it was trained" in one.problem
    plain = llama(max_position_embeddings=4 * LENGTH)
    assert serious(plain, facts=Facts(drafts={"eagle": narrow})) == []


def test_a_draft_inside_the_config() -> None:
    inner = {**llama(), "num_hidden_layers": 1}
    assert serious({**yarn(), "speculative_config": inner}) == ["speculative_config"]


def test_layers_for_guessing_ahead_are_told() -> None:
    plan = ropewalk.plan(llama(), "yarn", length=4 * LENGTH)
    config = {**transformers.spell(llama(), plan), "num_nextn_predict_layers": 1}
    assert found(config, "num_nextn_predict_layers").severity == "note"


DEEPSEEK: dict[str, Any] = {
    "model_type": "deepseek_v3", "hidden_size": 512, "num_attention_heads": 4, "num_key_value_heads": 4,
    "num_hidden_layers": 4, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "rope_theta": 1e4,
    "max_position_embeddings": 163840, "num_nextn_predict_layers": 1,
}  # fmt: skip
STRETCH = {
    "type": "yarn", "factor": 40.0, ORIGINAL: 4096, "mscale": 1.0, "mscale_all_dim": 1.0, "beta_fast": 32.0,
    "beta_slow": 1.0,
}  # fmt: skip


def test_layers_for_guessing_ahead_in_a_checkpoint_of_others() -> None:
    one = found({**DEEPSEEK, "rope_scaling": STRETCH}, "num_nextn_predict_layers")
    assert (one.severity, "does not say whether" in one.problem) == ("note", True)
    assert "num_nextn_predict_layers" not in [f.field for f in findings(DEEPSEEK)]
    assert found({**yarn(), "mtp_num_hidden_layers": 1}, "mtp_num_hidden_layers").severity == "note"


@pytest.mark.parametrize("config", [{}, {"model_type": "nobody"}, llama(rope_theta=-1), llama(rope_scaling=[])])
def test_a_config_that_cannot_be_read_never_raises(config: dict[str, Any]) -> None:
    name = "rotary.inv_freq"
    assert [f.field for f in findings(config, facts=Facts(tensors={name: "BF16"}))] == [name]


# --- mends ------------------------------------------------------------------------------------------------------------


def test_a_mend_changes_no_number_and_leaves_nothing_to_warn_of() -> None:
    broken = llama(
        rope_scaling={**OLD, "factor": 4, "attention_factor": 1}, rope_theta=1e5, max_seq_len=2048, hidden_size=512
    )
    before = dict(broken)
    mended = mend(broken, tokenizer_config={"model_max_length": 512})
    assert broken == before
    assert mended.left == ()
    assert serious(mended.config, tokenizer_config=mended.tokenizer_config) == []
    assert mended.tokenizer_config == {"model_max_length": 4 * LENGTH}
    assert "rope_scaling" not in mended.config
    assert "rope_theta" not in mended.config
    section = mended.config["rope_parameters"]
    assert {key: type(section[key]) for key in ("factor", "attention_factor", "rope_theta")} == {
        "factor": float, "attention_factor": float, "rope_theta": float
    }  # fmt: skip
    assert section["attn_factor"] == pytest.approx(1 / (1 + 0.1 * math.log(4)))
    assert (mended.config["max_position_embeddings"], mended.config["max_seq_len"]) == (4 * LENGTH, 4 * LENGTH)
    words = [transformers.groups_at(config, 4 * LENGTH)[0].inv_freq for config in (broken, mended.config)]
    assert words[0] is not None
    assert words[1] is not None
    assert (words[0] == words[1]).all()
    assert len(mended.changes) >= 6


def test_a_clean_config_needs_no_mend() -> None:
    for config in (llama(), yarn(), longrope(attention_factor=1.0, short_mscale=1.0, long_mscale=1.0)):
        mended = mend(config)
        assert mended.config == config
        assert mended.changes == ()


def test_longrope_gets_its_factor_for_every_engine() -> None:
    section = mend(longrope(attention_factor=1.25)).config["rope_parameters"]
    assert (section["short_mscale"], section["long_mscale"]) == (1.25, 1.25)


def test_truncate_that_nothing_reads_is_taken_out() -> None:
    nested = {
        "full_attention": {**YARN, "truncate": False},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    config = {"model_type": "olmo3", "rope_parameters": nested, "max_position_embeddings": 4 * LENGTH}
    mended = mend(config)
    assert "truncate" not in mended.config["rope_parameters"]["full_attention"]
    assert mended.left == ()


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (llama(rope_parameters={"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e5}), f"rope_parameters.{ORIGINAL}"),
        (llama(rope_parameters={"rope_type": "default"}), "rope_theta"),
        (llama(rope_scaling={"type": "dynamic", "factor": 4.0}), "rope_parameters.rope_type"),
    ],
)
def test_what_needs_a_decision_is_left(config: dict[str, Any], field: str) -> None:
    mended = mend(config)
    assert field in [finding.field for finding in mended.left]
    assert reference_of(mended.config).groups == reference_of(config).groups


def test_names_of_code_are_not_carried() -> None:
    mended = mend(llama(auto_map={"AutoConfig": "code.Config"}))
    assert "auto_map" not in mended.config
    assert any("auto_map is gone" in change for change in mended.changes)


def test_what_cannot_be_read_cannot_be_mended() -> None:
    with pytest.raises(SourceError, match="factor must be a number"):
        mend(yarn(factor=-1.0))
    with pytest.raises(UnsupportedError, match="'nobody' is not a family"):
        mend({"model_type": "nobody"})
