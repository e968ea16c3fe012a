"""Recipes on families other than Llama: norms on queries and keys, fused projections, layers with windows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small import Tune
from streams import Counting
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

import ropewalk
from ropewalk.api.tuning import merge
from ropewalk.attention.registered import put_on
from ropewalk.attention.shifted import Shifted
from ropewalk.core.errors import InputError, UnsupportedError
from ropewalk.tune.batches import collate
from ropewalk.tune.learner import Learner
from ropewalk.tune.loss import IGNORED

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


WITHOUT_SHARED = {key: value for key, value in SHAPE.items() if key != "num_key_value_heads"}
FUSED: dict[str, Callable[[], Any]] = {
    "phi3": lambda: Phi3ForCausalLM(Phi3Config(**{**SHAPE, "num_key_value_heads": 2})),
    "gpt_neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**WITHOUT_SHARED, rotary_pct=0.5)),
}
"""Queries, keys and values in one linear layer."""


@pytest.mark.parametrize("recipe", ["lora", "longlora", "oft", "prefix"])
@pytest.mark.parametrize("family", FUSED)
def test_fused_projections_learn_and_merge(family: str, recipe: str, tied: Path, tune: Tune, tmp_path: Path) -> None:
    source = write(tmp_path / family, FUSED[family](), tied)
    more = {"checkpoint_every": 0} if recipe == "prefix" else {}
    tune(tmp_path / "out", start=source, recipe=recipe, steps=2, learning_rate=1e-1, **more)
    ids = torch.arange(2, 60)[None]
    models = [ropewalk.load(tmp_path / path, device="cpu", dtype="float32")[0] for path in ("out", "out/base")]
    plan = ropewalk.plan(source, "yarn", length=256)
    assert ropewalk.read_back(models[0]).frequencies.difference(plan.frequencies) < 1e-6
    with torch.no_grad():
        ours, untrained = (model(ids).logits for model in models)
        assert float((ours - untrained).abs().max()) > 1e-4
        if recipe != "prefix":
            merge(tmp_path / "out", tmp_path / "merged")
            whole = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
            torch.testing.assert_close(whole(ids).logits, ours)


@pytest.mark.parametrize("family", ["stablelm", "nemotron"])
@pytest.mark.parametrize("shifted", [None, Shifted(group=16)], ids=["packed", "s2"])
def test_what_a_document_costs_is_its_own(family: str, shifted: Shifted | None) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SHAPE, initializer_range=0.3)).train()
    batch = collate([Counting(64, documents=2).row(0)])
    batch["labels"][:, :32] = IGNORED
    other = {**batch, "input_ids": torch.where(batch["document_ids"] == 0, 7, batch["input_ids"])}
    assert not torch.equal(other["input_ids"], batch["input_ids"])
    with put_on(model, shifted):
        learner = Learner(model)
        assert torch.equal(learner(**batch)["loss"], learner(**other)["loss"])


def test_keys_of_an_unknown_shape_take_no_prefix(tied: Path, tune: Tune, tmp_path: Path) -> None:
    # GPT-NeoX shares no keys, whatever its config says.
    source = write(tmp_path / "gpt_neox", GPTNeoXForCausalLM(GPTNeoXConfig(**SHAPE)), tied)
    with pytest.raises(UnsupportedError, match="of a shape that a prefix is not known for"):
        tune(tmp_path / "out", start=source, recipe="prefix", checkpoint_every=0)
    assert not (tmp_path / "out").exists()


def test_layers_with_windows_train_with_their_own_attention(tied: Path, tune: Tune, tmp_path: Path) -> None:
    config = Gemma3TextConfig(**SHAPE, sliding_window=16, layer_types=["sliding_attention", "full_attention"])
    source = write(tmp_path / "gemma3", Gemma3ForCausalLM(config), tied)
    with pytest.raises(InputError, match="--attention own"):
        tune(tmp_path / "out", start=source, steps=1)
    assert not (tmp_path / "out").exists()
    tune(tmp_path / "out", start=source, steps=1, attention="own")
    assert ropewalk.verify(tmp_path / "out", "transformers").verdicts[0].status == "exact"


@pytest.mark.parametrize("family", ["gemma2", "gpt_oss"])
def test_a_family_without_sdpa_trains_with_its_own_attention(family: str, tied: Path, tune: Tune, tmp_path: Path) -> None:
    more: dict[str, Any] = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}
    if family == "gpt_oss":
        more |= {"num_local_experts": 4, "num_experts_per_tok": 2}
    more["rope_parameters"] = {"rope_type": "default", "rope_theta": 5e4}
    source = write(tmp_path / family, AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SHAPE, **more)), tied)
    for recipe in ("full", "lora"):
        with pytest.warns(UserWarning, match="no sdpa attention, eager is used instead"):
            tune(tmp_path / recipe, start=source, steps=1, attention="own", recipe=recipe)
        with pytest.warns(UserWarning, match="no sdpa attention, eager is used instead"):
            model, _ = ropewalk.load(tmp_path / recipe, device="cpu", dtype="float32")
        assert model.config._attn_implementation == "eager"


def test_the_models_own_attention_is_refused_for_packs(tied: Path, tune: Tune, tmp_path: Path) -> None:
    from streams import Counting

    with pytest.raises(InputError, match="see each other"):
        tune(tmp_path / "out", attention="own", data=lambda window: Counting(window, documents=2))
    assert not (tmp_path / "out").exists()
