"""Models with towers for images or sound: what trains is what a text comes to, and nothing else is saved."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from small import Tune
from streams import Counting
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3Config,
    Phi4MultimodalConfig,
    TrainerCallback,
)

import ropewalk
from ropewalk.api.tuning import merge
from ropewalk.core.errors import UnsupportedError
from ropewalk.tune.batches import collate
from ropewalk.tune.learner import Learner
from ropewalk.tune.recipes import attention_modules, dress, whole_modules
from ropewalk.tune.settings import Settings, Stage
from ropewalk.tune.text_part import adapted, kept_whole

SHAPE: dict[str, Any] = {
    "vocab_size": 258, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
}  # fmt: skip
TOWER: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip


def gemma3() -> Any:
    text = {**SHAPE, "head_dim": 16, "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}
    config = Gemma3Config(text_config=text, vision_config=TOWER, mm_tokens_per_image=4, tie_word_embeddings=True)
    return AutoModelForCausalLM.from_config(config)


def phi4() -> Any:
    sound = {
        "hidden_size": 16, "intermediate_size": 32, "num_blocks": 1, "num_attention_heads": 2, "ext_pw_out_channel": 16,
        "nemo_conv_channels": 16, "input_size": 16,
    }  # fmt: skip
    images = {**TOWER, "crop_size": 28}
    return AutoModelForCausalLM.from_config(Phi4MultimodalConfig(**SHAPE, vision_config=images, audio_config=sound))


MODELS: dict[str, Callable[[], Any]] = {"gemma3": gemma3, "phi4": phi4}
SEEN = {
    "gemma3": r"(model\.language_model|lm_head)\..*", "phi4": r"(model\.(embed_tokens|layers|norm)|lm_head)\..*",
}  # fmt: skip
"""Names of what a text comes to, written down by hand."""


@pytest.mark.parametrize("recipe", ["full", "lora", "longlora", "lokr", "ia3"])
@pytest.mark.parametrize("family", MODELS)
def test_all_that_trains_gets_a_gradient_and_is_of_the_text(family: str, recipe: str) -> None:
    torch.manual_seed(0)
    model = MODELS[family]().train()
    bare = {name for name, _ in model.named_parameters()}
    settings = Settings(length=64, stages=(Stage(window=32, steps=1),), recipe=recipe, attention="own")
    learner = Learner(dress(model, settings), own_attention=True)
    learner(**collate([Counting(32, documents=1).row(0)]))["loss"].backward()
    trained = {name: p for name, p in learner.named_parameters() if p.requires_grad}
    assert [name for name, p in trained.items() if p.grad is None] == []
    names = {name.removeprefix("model.").removeprefix("base_model.model.") for name in trained}
    assert names
    assert [name for name in names if not re.fullmatch(SEEN[family], name)] == []
    if recipe == "full":
        assert names == {name for name in bare if re.fullmatch(SEEN[family], name)}


def test_a_model_that_reads_text_alone_has_the_names_it_always_had(tied: Path) -> None:
    """An adapter that is there, and a state, are found again by these names."""
    model = AutoModelForCausalLM.from_pretrained(tied)
    assert adapted(model, attention_modules(model)) == ["q_proj", "k_proj", "v_proj", "o_proj"]
    whole = ["embed_tokens", "input_layernorm", "norm", "post_attention_layernorm"]
    assert kept_whole(model, whole_modules(model)) == whole


def test_fused_layers_are_found_beside_a_tower_with_other_names() -> None:
    """The tower's q_proj, k_proj, v_proj and the text's o_proj make a whole set of names that nothing has."""
    assert attention_modules(phi4()) == ["qkv_proj", "o_proj"]


def test_a_head_that_passes_for_the_decoder_is_refused_by_name() -> None:
    config = AutoConfig.for_model(
        "modernbert-decoder", **{**SHAPE, "num_hidden_layers": 3}, cls_token_id=0, sep_token_id=1
    )  # fmt: skip
    with pytest.raises(UnsupportedError, match="ModernBertDecoderForCausalLM has no decoder and output head"):
        Learner(AutoModelForCausalLM.from_config(config))


class Stop(TrainerCallback):
    """A kill after the second step."""

    def on_step_begin(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        if state.global_step == 2:
            raise KeyboardInterrupt


@pytest.fixture
def whole(tied: Path, tmp_path: Path) -> Path:
    """A folder of the tiny Gemma 3 with its vision tower."""
    torch.manual_seed(0)
    gemma3().save_pretrained(tmp_path / "gemma3")
    AutoTokenizer.from_pretrained(tied).save_pretrained(tmp_path / "gemma3")
    return tmp_path / "gemma3"


def saved(path: Path) -> list[str]:
    with safe_open(path, "pt") as file:
        return sorted(file.keys())


@pytest.mark.parametrize("recipe", ["full", "lora", "longlora"])
def test_a_model_with_a_tower_goes_on_loads_and_merges(recipe: str, whole: Path, tune: Tune, tmp_path: Path) -> None:
    out, again = tmp_path / "out", tmp_path / "again"
    said = {"start": whole, "recipe": recipe, "attention": "own", "steps": 3, "learning_rate": 1e-1}
    card = tune(out, **said)
    assert any("no text comes to" in finding["problem"] for finding in card.findings)
    with pytest.raises(KeyboardInterrupt):
        tune(again, **said, callbacks=[Stop()])
    (state,) = (again / "state").glob("step-*")
    assert [name for name in saved(state / "parameters.safetensors") if "vision" in name or "projector" in name] == []
    tune(again, **said, resume=True)
    name = "model.safetensors" if recipe == "full" else "adapter_model.safetensors"
    assert (again / name).read_bytes() == (out / name).read_bytes()
    base, trained = load_file(whole / "model.safetensors"), ropewalk.load(out, device="cpu", dtype="float32")[0]
    towers = {key: tensor for key, tensor in trained.state_dict().items() if "vision_tower" in key}
    was = {key: tensor for key, tensor in AutoModelForCausalLM.from_pretrained(whole).state_dict().items() if key in towers}
    assert len(towers) > 10
    assert all(torch.equal(towers[key], was[key]) for key in towers)
    if recipe == "full":
        assert saved(out / name) == sorted(base)
        return
    assert [key for key in saved(out / name) if "language_model" not in key and "lm_head" not in key] == []
    merge(out, tmp_path / "merged")
    ids = torch.arange(2, 60)[None]
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    with torch.no_grad():
        ours = trained(input_ids=ids).logits
        torch.testing.assert_close(stock(input_ids=ids).logits, ours)
        assert float((AutoModelForCausalLM.from_pretrained(out / "base")(input_ids=ids).logits - ours).abs().max()) > 1e-3
    assert {one.status for one in ropewalk.verify(out, "transformers").verdicts} == {"exact"}
    assert isinstance(stock.get_output_embeddings(), nn.Linear)
    assert stock.get_output_embeddings().weight is stock.get_input_embeddings().weight
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["model_type"] == "gemma3"
