"""What single families have of their own: two sizes of heads, other names, layers that look at an image."""

import json
from typing import Any

import numpy as np
import pytest
import tiny_families as tiny
from rotary_probe import configure, turned

from ropewalk.core.errors import SourceError, UnsupportedError
from ropewalk.core.geometry import geometric
from ropewalk.core.method import find
from ropewalk.engines.transformers import read, spell

FULL, SLIDING = "full_attention", "sliding_attention"


def gemma4(**changes: Any) -> dict[str, Any]:
    return {**tiny.fields("gemma4_text"), **changes}


def check_stock(config: dict[str, Any]) -> None:
    """Asserts that stock rotary modules turn as was read."""
    built = configure(config)
    for group in read(config).groups:
        if group.inv_freq is not None:
            got = turned(built, group.label, group.inv_freq.size, 64)
            np.testing.assert_allclose(got.inv_freq, group.inv_freq, rtol=1e-6, atol=0.0)


def test_gemma4_has_heads_of_two_sizes_and_a_vector_that_ends_in_zeros() -> None:
    full, sliding = read(gemma4()).groups
    assert (full.label, full.head_dim, full.rotary_dim, full.window) == (FULL, 32, 32, None)
    assert (sliding.label, sliding.head_dim, sliding.rotary_dim, sliding.window) == (SLIDING, 16, 16, 32)
    assert full.inv_freq is not None
    assert int((full.inv_freq > 0.0).sum()) == 4
    assert full.softmax_scale == sliding.softmax_scale == 1.0
    check_stock(gemma4())


def test_gemma4_as_newer_releases_save_it_layer_by_layer() -> None:
    saved = json.loads(configure(gemma4()).to_json_string(use_diff=False))
    assert "global_head_dim" not in saved
    assert saved["per_layer_config"] == {"1": {"head_dim": 32}, "3": {"head_dim": 32}}
    saved = {key: value for key, value in saved.items() if value is not None}
    assert [group.to_dict() for group in read(saved).groups] == [group.to_dict() for group in read(gemma4()).groups]
    padded = {**saved, "per_layer_config": {"01": {"head_dim": 32}, "03": {"head_dim": 32}}}
    assert read(padded).groups[0].head_dim == 32
    plan = find("pi").plan(read(saved), 1024)
    check_stock(spell(saved, plan))


@pytest.mark.parametrize("method", ["pi", "ntk", "ntk-fixed", "abf"])
def test_gemma4_keeps_its_type(method: str) -> None:
    config = gemma4()
    section = spell(config, find(method).plan(read(config), 1024))["rope_parameters"]
    assert section[FULL]["rope_type"] == "proportional"
    assert section[FULL]["partial_rotary_factor"] == 0.25
    assert section[SLIDING] == {"rope_type": "default", "rope_theta": 10000.0}


def test_gemma4s_last_layer_sees_the_whole_text_whatever_is_listed() -> None:
    full, sliding = read(gemma4(layer_types=[SLIDING] * 4)).groups
    assert (full.layers, sliding.layers) == ((3,), (0, 1, 2))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"per_layer_config": {"1": {"head_dim": 32}}}, UnsupportedError, "heads of several sizes"),
        ({"per_layer_config": {"0": {"head_dim": 32}}}, UnsupportedError, "heads of several sizes"),
        ({"global_head_dim": None}, SourceError, "global_head_dim = None, expected a whole number"),
        ({"global_head_dim": [32]}, SourceError, r"global_head_dim = \[32\], expected a whole number"),
        ({"use_bidirectional_attention": "all"}, UnsupportedError, "attends in both directions"),
    ],
)
def test_what_is_not_read_of_gemma4(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read(gemma4(**changes))


def test_modernberts_old_spelling_stretches_both_kinds_of_layers() -> None:
    scaling = {"rope_type": "linear", "factor": 2.0}
    config = tiny.fields("modernbert-decoder") | {"global_rope_theta": 1e5, "local_rope_theta": 1e3, "rope_scaling": scaling}
    full, sliding = read(config).groups
    assert full.inv_freq is not None
    assert sliding.inv_freq is not None
    np.testing.assert_allclose(full.inv_freq, geometric(1e5, 16) / 2)
    np.testing.assert_allclose(sliding.inv_freq, geometric(1e3, 16) / 2)
    assert (full.window, sliding.window) == (None, 32)
    check_stock(config)


def test_llama_vision_turns_in_its_own_layers_only() -> None:
    turning, crossing = read(
        tiny.fields("mllama_text_model") | {"num_hidden_layers": 10, "cross_attention_layers": None}
    ).groups
    assert crossing.layers == (3, 8)
    assert (turning.label, turning.position, crossing.position) == ("rope", "rope", "none")


def test_lfm3_has_three_kinds_of_layers() -> None:
    groups = read({"model_type": "lfm3"}).groups
    assert [(group.label, group.position, len(group.layers)) for group in groups] == [
        (FULL, "rope", 6), (SLIDING, "rope", 5), ("conv", "none", 13)
    ]  # fmt: skip
