"""What a plan from the origin does not take over from the stretch that was on is told."""

from typing import Any

import pytest

from ropewalk.core.method import find
from ropewalk.engines.transformers import read
from ropewalk.engines.transformers.replaced import replaced

QWEN: dict[str, Any] = {
    "model_type": "qwen3", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "head_dim": 16,
    "max_position_embeddings": 1024, "rope_theta": 1e6,
}  # fmt: skip


def told(method: str, **options: Any) -> dict[str, str]:
    """Field to mend of every note for a plan from the origin of a Qwen with these YaRN options."""
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256, **options}
    config = QWEN | {"rope_scaling": yarn}
    geometry = read(config)
    assert geometry.from_origin
    plan = find(method).plan(geometry, 2048)
    return {note.field: note.mend for note in replaced(config, plan, from_origin=True)}


def test_a_plain_yarn_loses_nothing() -> None:
    assert told("yarn") == {}
    assert told("yarn", beta_fast=32, beta_slow=0, truncate=True, attention_factor=None) == {}


def test_every_option_that_is_dropped_is_named_with_how_to_keep_it() -> None:
    found = told("yarn", beta_fast=16.0, truncate=False, attention_factor=1.0)
    assert list(found) == ["beta_fast", "truncate", "attention_factor"]
    assert "say yarn:beta_fast=16 to keep it" in found["beta_fast"]
    assert "say yarn:truncate=false to keep it" in found["truncate"]


@pytest.mark.parametrize("option", ["beta_fast=16", "truncate=false", "attention_factor=1"])
def test_an_option_that_is_kept_is_not_named(option: str) -> None:
    found = told(f"yarn:{option}", beta_fast=16.0, truncate=False, attention_factor=1.0)
    assert len(found) == 2
    assert option.split("=")[0] not in found


def test_a_method_without_the_option_says_so_without_an_impossible_way() -> None:
    assert told("pi", beta_fast=16.0) == {"beta_fast": "nothing to do where the usual numbers are meant"}
    assert list(told("yarn", mscale=1.0, mscale_all_dim=0.5)) == ["mscale", "mscale_all_dim"]


def test_a_model_trained_at_its_stretch_keeps_its_vector_and_so_loses_nothing() -> None:
    config = QWEN | {
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256, "beta_fast": 8.0}
    }
    plan = find("yarn").plan(read(config).with_lineage("trained"), 2048)
    assert replaced(config, plan, from_origin=False) == []
