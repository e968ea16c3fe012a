"""Whole models that see images, asked for text alone: their text part is extended inside them, in both ways it is written.

Positions have a row for time, one for height and one for width. On text the three are equal, so a plan holds as it is.
"""

import copy
from typing import Any

import numpy as np
import pytest
import tiny_families as tiny
import torch
from test_all_families import TOLERANCE, logits
from transformers import AutoModelForImageTextToText, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ropewalk.core.errors import UnsupportedError
from ropewalk.core.method import find
from ropewalk.engines.transformers import read, spell
from ropewalk.engines.transformers.families import COMPOSITE, FLAT
from ropewalk.hosts.live import apply, read_back

VISION: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 64},
    "qwen2_vl": {"depth": 1, "embed_dim": 32, "hidden_size": 64, "num_heads": 2},
    "qwen3_vl": {
        "depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 64,
        "num_position_embeddings": 16, "deepstack_visual_indexes": [0],
    },
    "qwen3_vl_moe": {
        "depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 64,
        "num_position_embeddings": 16, "deepstack_visual_indexes": [0],
    },
}  # fmt: skip
"""Small towers for images: what they compute is not asked here."""


def whole(model_type: str, *, flat: bool) -> dict[str, Any]:
    """A whole config, with the text part's fields at the top or in `text_config`."""
    text = tiny.fields(COMPOSITE[model_type])
    del text["model_type"]
    vision = {"model_type": model_type, "vision_config": VISION[model_type]}
    # Token ids that mark an image, none of which is in the text.
    marks = dict.fromkeys(("image_token_id", "video_token_id", "vision_start_token_id"), 63)
    return {**vision, **marks, **(text if flat else {"text_config": {**text, "model_type": COMPOSITE[model_type]}})}


def stock(config: dict[str, Any]) -> PreTrainedModel:
    content = copy.deepcopy(config)
    built = CONFIG_MAPPING[content.pop("model_type")](**content)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: PreTrainedModel = AutoModelForImageTextToText.from_config(built, attn_implementation="eager")
        for parameter in model.parameters():
            parameter.data = torch.nan_to_num(parameter.data, nan=0.0) + torch.randn_like(parameter) * 0.05
    return model.float().eval()


CASES = [(name, flat) for name in VISION for flat in (False, True) if not flat or name in FLAT]


@pytest.mark.parametrize("method", ["pi", "yarn"])
@pytest.mark.parametrize(("model_type", "flat"), CASES)
def test_a_whole_computes_what_is_planned_and_what_is_written(model_type: str, flat: bool, method: str) -> None:
    config = whole(model_type, flat=flat)
    geometry, model = read(config), stock(config)
    assert [group.position for group in geometry.groups] == ["mrope"]
    plan = find(method).plan(geometry, 4 * tiny.TRAINED_LENGTH)
    before = logits(model)
    with apply(model, plan):
        during, carried = logits(model), read_back(model)
    assert plan.frequencies.difference(carried.frequencies) <= 1e-6
    spelled = spell(config, plan)
    assert ("text_config" in spelled) == (not flat)
    written = stock(spelled)
    written.load_state_dict(model.state_dict())
    assert (logits(written) - during).abs().max() < TOLERANCE
    assert (during - before).abs().max() > 10 * TOLERANCE


@pytest.mark.parametrize("model_type", FLAT)
def test_flat_and_nested_say_the_same(model_type: str) -> None:
    text = tiny.fields(COMPOSITE[model_type])
    nested = {"model_type": model_type, "text_config": text}
    flat = {**text, "model_type": model_type}
    assert [group.to_dict() for group in read(flat).groups] == [group.to_dict() for group in read(nested).groups]


def test_a_whole_that_takes_nothing_from_the_top_is_read_by_its_part_alone() -> None:
    config = {"model_type": "qwen3_vl", "max_position_embeddings": 77, "text_config": {"max_position_embeddings": 4096}}
    assert read(config).trained_length == 4096


def test_the_type_that_qwen2_vl_was_published_with() -> None:
    scaling = {"type": "mrope", "mrope_section": [16, 24, 24]}
    config = {"model_type": "qwen2_vl", "hidden_size": 1536, "num_attention_heads": 12, "num_hidden_layers": 28,
              "max_position_embeddings": 32768, "rope_theta": 1000000.0, "rope_scaling": scaling}  # fmt: skip
    [group] = read(config).groups
    assert group.inv_freq is not None
    assert (group.rotary_dim, group.base, group.window) == (128, 1e6, None)
    np.testing.assert_allclose(group.inv_freq, 1e6 ** (-np.arange(64) / 64))
    section = spell(config, find("yarn").plan(read(config), 131072))["rope_parameters"]
    assert (section["rope_type"], section["mrope_section"]) == ("yarn", [16, 24, 24])


def test_a_share_that_stock_code_breaks_on_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="rotates whole heads, got partial_rotary_factor"):
        read({"model_type": "qwen2_vl", "rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}})
