"""Configs with anything in their fields: every engine says something, the document is strict JSON, and nothing raises."""

import json
import math
import random
from typing import Any

import pytest

from ropewalk.core.errors import RopewalkError
from ropewalk.engines import verdicts
from ropewalk.engines.findings import Facts, findings
from ropewalk.engines.mending import mend
from ropewalk.engines.transformers.families import FAMILIES

VALUES: list[Any] = [
    None, 0, 1, -1, 4, 4.0, 0.5, 1e5, 1e300, 1e-300, -0.0, 10**30, math.nan, math.inf, True, [], {}, "x", "8192", 8192, 2048,
    "yarn", "linear", "longrope", "dynamic", "llama3", "default", [1.0] * 32, [1.0] * 3, [math.nan] * 32,
]  # fmt: skip
KEYS = [
    "rope_theta", "max_position_embeddings", "rope_scaling", "rope_parameters", "head_dim", "num_attention_heads",
    "hidden_size", "sliding_window", "layer_types", "original_max_position_embeddings", "partial_rotary_factor", "ropewalk",
    "text_config", "model_max_length", "max_seq_len", "num_nextn_predict_layers", "speculative_config",
    "qk_rope_head_dim", "num_hidden_layers",
]  # fmt: skip
INSIDE = [
    "rope_type", "type", "factor", "attention_factor", "attn_factor", "mscale", "mscale_all_dim", "beta_fast", "beta_slow",
    "short_factor", "long_factor", "original_max_position_embeddings", "rope_theta", "low_freq_factor", "high_freq_factor",
    "truncate", "full_attention", "sliding_attention", "short_mscale", "partial_rotary_factor",
]  # fmt: skip


def section(draw: random.Random) -> dict[str, Any]:
    """Rope parameters that are right, or have some fields that are not."""
    kind = draw.choice(["yarn", "linear", "longrope", "dynamic", "llama3", "default"])
    made: dict[str, Any] = {
        "rope_type": kind, "factor": 4.0, "rope_theta": 1e5, "original_max_position_embeddings": 2048
    }  # fmt: skip
    if kind == "longrope":
        made |= {"short_factor": [1.0] * 32, "long_factor": [4.0] * 32}
    if kind == "llama3":
        made |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    return made | {draw.choice(INSIDE): draw.choice(VALUES) for _ in range(draw.choice([0, 0, 1, 2]))}


def config(draw: random.Random) -> dict[str, Any]:
    """A config of any family, with one spelling, both or none, and some fields that are wrong."""
    made: dict[str, Any] = {
        "model_type": draw.choice([*FAMILIES]) if draw.random() < 0.7 else "llama", "hidden_size": 512, "head_dim": 64,
        "num_attention_heads": 8, "num_hidden_layers": 4, "max_position_embeddings": 8192,
    }  # fmt: skip
    if draw.random() < 0.6:
        made["rope_parameters"] = section(draw)
    if draw.random() < 0.3:
        made["rope_scaling"] = section(draw)
    if draw.random() < 0.3:
        made["rope_theta"] = 1e5
    return made | {draw.choice(KEYS): draw.choice(VALUES) for _ in range(draw.choice([0, 0, 1, 2]))}


@pytest.mark.parametrize("num_cases", [600, pytest.param(10_000, marks=pytest.mark.slow)])
def test_nothing_in_a_config_is_a_traceback(num_cases: int) -> None:
    draw = random.Random(num_cases)
    statuses = set()
    for _ in range(num_cases):
        made, tokenizer = config(draw), draw.choice([None, {"model_max_length": draw.choice(VALUES)}])
        found = findings(made, tokenizer_config=tokenizer, facts=Facts(drafts={"eagle": {**made, "rope_theta": 3.0}}))
        document = verdicts.verify(made, tokenizer_config=tokenizer, findings=found).to_dict()
        assert json.loads(json.dumps(document, allow_nan=False)) == document, made
        assert len(document["verdicts"]) == 4
        if document["reference"] is None:
            assert "error" in [finding["severity"] for finding in document["findings"]], made
        statuses |= {verdict["status"] for verdict in document["verdicts"]}
        try:
            mended = mend(made, tokenizer_config=tokenizer)
        except RopewalkError:
            continue
        again = mend(mended.config, tokenizer_config=mended.tokenizer_config)
        assert json.dumps(again.config) == json.dumps(mended.config), made
    assert statuses == {"exact", "differs", "refuses", "unsupported"}
