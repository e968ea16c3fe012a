"""Recipes on families other than Llama: norms on queries and keys, and layers with windows."""

from pathlib import Path
from typing import Any

import pytest
from small import Tune
from transformers import AutoTokenizer, Gemma3ForCausalLM, Gemma3TextConfig, Qwen3Config, Qwen3ForCausalLM

import ropewalk
from ropewalk.core.errors import InputError

SHAPE: dict[str, Any] = {
    "vocab_size": 258, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 1,
    "pad_token_id": 1,
}  # fmt: skip


def write(folder: Path, model: Any, tokenizer: Path) -> Path:
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("recipe", ["full", "longlora"])
def test_norms_on_queries_and_keys_train_too(recipe: str, tied: Path, tune: Tune, tmp_path: Path) -> None:
    source = write(tmp_path / "qwen3", Qwen3ForCausalLM(Qwen3Config(**SHAPE)), tied)
    tune(tmp_path / "out", start=source, recipe=recipe, steps=1)
    assert {verdict.status for verdict in ropewalk.verify(tmp_path / "out").verdicts} == {"exact"}
    model, _ = ropewalk.load(tmp_path / "out", device="cpu", dtype="float32")
    assert isinstance(model, Qwen3ForCausalLM)


def test_layers_with_windows_train_with_their_own_attention(tied: Path, tune: Tune, tmp_path: Path) -> None:
    config = Gemma3TextConfig(**SHAPE, sliding_window=16, layer_types=["sliding_attention", "full_attention"])
    source = write(tmp_path / "gemma3", Gemma3ForCausalLM(config), tied)
    with pytest.raises(InputError, match="--attention own"):
        tune(tmp_path / "out", start=source, steps=1)
    assert not (tmp_path / "out").exists()
    tune(tmp_path / "out", start=source, steps=1, attention="own")
    assert ropewalk.verify(tmp_path / "out", "transformers").verdicts[0].status == "exact"


def test_the_models_own_attention_is_refused_for_packs(tied: Path, tune: Tune, tmp_path: Path) -> None:
    from streams import Counting

    with pytest.raises(InputError, match="see each other"):
        tune(tmp_path / "out", attention="own", data=lambda window: Counting(window, documents=2))
    assert not (tmp_path / "out").exists()
