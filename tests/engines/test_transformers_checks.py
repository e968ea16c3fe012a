"""Fields of a config that cannot be meant are named before anything is computed with them."""

import math
from typing import Any

import pytest

from ropewalk.core.errors import SourceError
from ropewalk.engines.transformers import read
from ropewalk.engines.transformers.checks import check_fields

TINY: dict[str, Any] = {
    "model_type": "llama",
    "max_position_embeddings": 64,
    "hidden_size": 32,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 2**31}, "num_hidden_layers = 2147483648, expected a whole number from 1 to 10000"),
        ({"num_attention_heads": math.nan}, "num_attention_heads = nan, expected a whole number from 1 to 1048576"),
        ({"head_dim": math.inf}, "head_dim = inf, expected a whole number"),
        ({"head_dim": True}, "head_dim = True, expected a whole number"),
        ({"num_attention_heads": 64}, "gives a head 0 dimensions .*, expected at least 2"),
        ({"max_position_embeddings": 2**31}, "max_position_embeddings = 2147483648, expected a whole number from 1 to 2147"),
        ({"rope_theta": 10**400}, r"rope_theta = 1000.*, expected a number above 0 and at most 1e\+18"),
        ({"rope_theta": math.nan}, "rope_theta = nan, expected a number above 0"),
        ({"rope_scaling": {"rope_type": ["yarn"]}}, r"rope_scaling has rope_type = \['yarn'\], expected a text"),
        ({"rope_parameters": {"beta_fast": "x"}}, "rope_parameters has beta_fast = 'x', expected a number above 0"),
        ({"rope_parameters": {"mscale": -1}}, r"rope_parameters has mscale = -1, expected a number from 0 to 1e\+18"),
        ({"rope_parameters": {"full_attention": {"rope_theta": []}}}, r"full_attention has rope_theta = \[\], expected"),
        ({"rope_parameters": {"original_max_position_embeddings": 0.5}}, "expected a number of tokens from 1 to 1e"),
        ({"model_type": "laguna", "rope_scaling": 3}, "rope_scaling is an object of rope fields, got 3"),
        (
            {"model_type": "laguna", "rope_parameters": {"a": 1}},
            "laguna has no object for its full_attention layers; add it",
        ),
        ({"model_type": "exaone4", "sliding_window_pattern": 0}, "sliding_window_pattern = 0 without layer_types"),
        ({"model_type": "jetmoe", "num_experts_per_tok": "x"}, "num_experts_per_tok = 'x', expected a whole number from 1"),
        (
            {"model_type": "hunyuan_v1_dense", "rope_parameters": {"rope_type": "dynamic", "alpha": -1, "factor": 1.0}},
            "rope_parameters has alpha = -1, expected a number above 0",
        ),
        ({"model_type": "bamba", "attn_layer_indices": 3}, "attn_layer_indices = 3, expected a list of whole numbers"),
        ({"model_type": "gpt_neox", "rotary_pct": 1.5}, "rotary_pct = 1.5, expected a share above 0 and at most 1"),
        ({"model_type": "smollm3", "no_rope_layers": 3}, "no_rope_layers = 3, expected a list of whole numbers"),
        (
            {"model_type": "smollm3", "no_rope_layer_interval": 0},
            "no_rope_layer_interval = 0, expected a whole number from 1",
        ),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": math.inf}}, r"factor must be a number above 0 .*, got inf"),
        ({"head_dim": 2, "rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "no formula for heads that rotate 2"),
    ],
)
def test_a_field_that_cannot_be_meant_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read(TINY | changes)


def test_null_counts_as_left_out_and_zero_betas_as_not_given() -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0, "original_max_position_embeddings": 16}
    plain = read(TINY | {"rope_parameters": yarn}).groups[0]
    zero = read(TINY | {"rope_parameters": yarn | {"beta_fast": 0, "beta_slow": 0, "mscale": None}}).groups[0]
    assert plain.inv_freq is not None
    assert zero.inv_freq is not None
    assert (plain.inv_freq == zero.inv_freq).all()


def test_fields_that_nothing_reads_pass() -> None:
    assert read(TINY | {"wandb_run": math.nan, "auto_map": {"rope_type": 3}}).trained_length == 64


def test_a_pattern_in_letters_is_let_through_where_the_layers_are_listed():
    """EXAONE 4's published configs carry both; stock transformers stops on the letters alone."""
    config = {"model_type": "exaone4", "sliding_window_pattern": "LLLG"}
    with pytest.raises(SourceError, match="sliding_window_pattern = 'LLLG', expected a whole number"):
        check_fields(config)
    check_fields(config | {"layer_types": ["full_attention"]})
