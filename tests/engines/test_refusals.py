"""Configs that stock transformers refuses to load are told as such, and no others: held against its own config classes."""

import copy
import importlib
import warnings
from typing import Any

import pytest

from ropewalk.engines import transformers
from ropewalk.engines.mending import mend
from ropewalk.engines.transformers.families import COMPOSITE, FAMILIES, name_of
from ropewalk.engines.transformers.refusals import COUNTS, UNDECLARED, refusals, unread, whole_numbers
from ropewalk.engines.verdicts import verify

LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2,
    "max_position_embeddings": 1024, "vocab_size": 128, "head_dim": 16, "rope_theta": 1e4,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192}
STRETCHES: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 2.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "yarn": YARN,
    "yarn without its length": {"rope_type": "yarn", "factor": 4.0},
    "linear without a factor": {"rope_type": "linear"},
    "llama3": {
        "rope_type": "llama3",
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "mrope": {"type": "mrope", "mrope_section": [16, 24, 24]},
}


def loads(config: dict[str, Any]) -> bool:
    """Whether stock transformers makes a config object of it."""
    stock = importlib.import_module("transformers")
    from huggingface_hub.errors import StrictDataclassError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            stock.CONFIG_MAPPING[config["model_type"]].from_dict(copy.deepcopy(config))
        except (StrictDataclassError, AttributeError, KeyError, TypeError, ValueError):
            return False
    return True


@pytest.mark.parametrize("key", COUNTS)
@pytest.mark.parametrize("value", [16.0, "16", True])
def test_a_count_that_is_no_whole_number_is_refused_as_transformers_refuses_it(key: str, value: Any) -> None:
    stock = importlib.import_module("transformers")
    for model_type in FAMILIES:
        name = name_of(model_type, key)
        if model_type not in stock.CONFIG_MAPPING or not loads({"model_type": model_type}):
            continue
        config = {"model_type": model_type, name: value}
        refused = [finding.field for finding in refusals(config)]
        if not loads(config):
            windowless = key == "sliding_window" and FAMILIES[model_type].window == "none"
            assert refused == [name] or windowless, model_type
        elif key not in ("head_dim", "qk_rope_head_dim", "qk_nope_head_dim", "sliding_window"):
            # Those a class without the field takes as they stand, and its model breaks on them.
            assert refused == [], model_type
        assert key not in UNDECLARED.get(model_type, ()) or refused == []


@pytest.mark.parametrize("name", STRETCHES)
@pytest.mark.parametrize("declared", [None, 32768])
def test_a_scaling_beside_text_config_is_judged_as_transformers_takes_it(name: str, declared: int | None) -> None:
    for model_type, inner in COMPOSITE.items():
        config: dict[str, Any] = {
            "model_type": model_type,
            "text_config": {"model_type": inner},
            "rope_scaling": dict(STRETCHES[name]),
        }
        config |= {} if declared is None else {"max_position_embeddings": declared}
        assert bool(refusals(config)) != loads(config), model_type
        stretches = "default" not in name and name != "mrope"
        assert bool(refusals(config) or unread(config)) == stretches


def test_a_copy_of_the_scaling_inside_is_no_trap() -> None:
    linear = STRETCHES["linear"]
    config = {
        "model_type": "gemma3",
        "text_config": {"model_type": "gemma3_text", "rope_scaling": linear},
        "rope_scaling": linear,
    }
    assert refusals(config) == []
    assert unread(config) == []


@pytest.mark.parametrize("original", [None, 4096])
def test_phi3_su_is_refused_where_transformers_refuses_it(original: int | None) -> None:
    lists = {"short_factor": [1.0] * 48, "long_factor": [2.0] * 48}
    scaling = {"type": "su", **lists} | ({} if original is None else {"original_max_position_embeddings": original})
    config = {
        "model_type": "phi3",
        "max_position_embeddings": 131072,
        "original_max_position_embeddings": 4096,
        "rope_theta": 1e4,
        "rope_scaling": scaling,
    }
    assert [f.field for f in refusals(config)] == (["type"] if original is None else [])
    assert loads(config) == (original is not None)
    mended = mend(config).config
    assert refusals(mended) == []
    assert loads(mended)


def test_the_verdict_refuses_and_the_finding_is_an_error_with_its_mend() -> None:
    config = LLAMA | {"max_position_embeddings": 1024.0}
    found = verify(config, engines=["transformers"], findings=transformers.read(config).findings)
    assert not found.passed
    assert found.verdicts[0].status == "refuses"
    assert "max_position_embeddings is 1024.0, and its config class takes whole numbers only" in found.verdicts[0].reason
    assert any(f.severity == "error" and f.mend == "write 1024, as --fix does" for f in found.findings)


def test_a_mend_writes_whole_numbers_and_says_which() -> None:
    config = LLAMA | {"max_position_embeddings": 1024.0, "vocab_size": 128.0}
    mended = mend(config)
    assert {key: mended.config[key] for key in LLAMA} == LLAMA
    assert type(mended.config["vocab_size"]) is int
    assert "max_position_embeddings is the whole number 1024, was 1024.0" in mended.changes
    assert mended.left == ()


def test_a_nested_count_is_mended_where_it_stands() -> None:
    config = {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "sliding_window": 512.0}}
    new, changes = whole_numbers(config)
    assert new["text_config"]["sliding_window"] == 512
    assert changes == ["sliding_window is the whole number 512, was 512.0"]
    assert config["text_config"]["sliding_window"] == 512.0  # type: ignore[index]
