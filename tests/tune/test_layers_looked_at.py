"""What only a model's layers show is refused before the data are read and before a folder is made."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from small import Tune
from streams import Counting
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from ropewalk.core.errors import UnsupportedError
from ropewalk.hosts import live

SHAPE: dict[str, Any] = {
    "vocab_size": 258, "hidden_size": 32, "intermediate_size": 48, "moe_intermediate_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 64, "bos_token_id": 0,
    "eos_token_id": 1, "pad_token_id": 1, "rope_parameters": {"rope_type": "default", "rope_theta": 5e4},
}  # fmt: skip
LATENT = {
    "num_key_value_heads": 2, "q_lora_rank": None, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 8, "head_dim": 8, "first_k_dense_replace": 2, "n_routed_experts": 4, "num_experts_per_tok": 2,
}  # fmt: skip
HYBRID = {
    "num_experts": 4, "num_experts_per_tok": 2, "shared_expert_intermediate_size": 16,
    "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
PREFIX = {"recipe": "prefix", "checkpoint_every": 0}
WINDOWS = ["sliding_attention", "full_attention"]
REFUSED = {
    "qwen3_next": (HYBRID, {}, "of the kind linear_attention"),
    "doge": ({}, {}, "make a mask of their own"),
    "gpt_oss": ({"num_local_experts": 4, "layer_types": ["full_attention"] * 2}, {}, "no sdpa attention"),
    "deepseek_v2": (LATENT, {"recipe": "longlora"}, "no attention layers of a name that adapters are known for"),
    "gemma3_text": ({"sliding_window": 16, "layer_types": WINDOWS}, {**PREFIX, "attention": "own"}, "sees a prefix"),
    "mistral": ({"sliding_window": 128}, PREFIX, "of the kind sliding_attention, where not every token sees a prefix"),
    "gpt_neox": ({}, PREFIX, "of a shape that a prefix is not known for"),
    "deepseek_v3": ({**LATENT, "q_lora_rank": 8}, PREFIX, "keys 1 x 16, values 1 x 8, expected 2 x 8"),
}
"""Fields of a tiny config, options, and the words of the refusal."""


def write(family: str, folder: Path, tokenizer: Path, **fields: Any) -> Path:
    # A config writes into the parameters that it is given.
    config = AutoConfig.for_model(family, **copy.deepcopy({**SHAPE, **fields}))
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", REFUSED)
def test_layers_that_cannot_be_trained_are_refused_before_the_data(
    family: str, tied: Path, tune: Tune, tmp_path: Path
) -> None:
    fields, options, words = REFUSED[family]
    read: list[int] = []

    def data(window: int) -> Counting:
        read.append(window)
        return Counting(window)

    source = write(family, tmp_path / "source", tied, **fields)
    with pytest.raises(UnsupportedError, match=words):
        tune(tmp_path / "out", start=source, data=data, steps=1, **options)
    assert read == []
    assert not (tmp_path / "out").exists()


def test_a_skeleton_holds_no_weights_and_draws_nothing(tied: Path) -> None:
    before = torch.get_rng_state()
    model = live.skeleton(tied)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert torch.equal(torch.get_rng_state(), before)
