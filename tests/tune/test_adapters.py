"""Adapter folders: tied embeddings, the plan they carry, their base, and the merge."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from small import Tune
from tiny import write_tiny_checkpoint
from transformers import AutoModelForCausalLM

import ropewalk
from ropewalk.api.tuning import merge
from ropewalk.core.errors import HostError, InputError, RopewalkError, SourceError, UnsupportedError
from ropewalk.tune.recipes import whole_modules


@pytest.fixture(scope="module")
def adapter(tied: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LongLoRA adapter of the tied model."""
    from small import tuning

    out = tmp_path_factory.mktemp("adapter") / "run"
    tuning(tied)(out, recipe="longlora", attention="s2")
    return out


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(2, 60)[None]).logits


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning", "ignore:.*tie_word_embeddings.*")
def test_a_tied_embedding_is_lost_at_the_merge_without_weight_tying(tied: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tied)
    config = LoraConfig(target_modules=["q_proj"], modules_to_save=["embed_tokens"], task_type="CAUSAL_LM")
    dressed = get_peft_model(model, config)
    base = dressed.get_base_model()
    trained = base.get_input_embeddings().modules_to_save["default"].weight
    assert trained is not base.get_output_embeddings().weight


def test_tied_stays_tied_through_training_and_merge(tied: Path, tune: Tune, tmp_path: Path) -> None:
    tune(tmp_path / "out", recipe="longlora", merge=True)
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118
        trained = file.get_tensor("model.embed_tokens.weight")
    model, _ = ropewalk.load(tmp_path / "out", device="cpu", dtype="float32")
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    source = AutoModelForCausalLM.from_pretrained(tied).get_input_embeddings().weight
    assert float((trained - source.detach()).abs().max()) > 1e-3


def test_adapter_and_merge_compute_the_same_and_both_carry_the_plan(tied: Path, adapter: Path, tmp_path: Path) -> None:
    plan = ropewalk.plan(tied, "yarn", length=256)
    merge(adapter, tmp_path / "merged")
    loaded = [ropewalk.load(path, device="cpu", dtype="float32")[0] for path in (adapter, tmp_path / "merged")]
    torch.testing.assert_close(logits(loaded[0]), logits(loaded[1]))
    for path, model in zip((adapter, tmp_path / "merged"), loaded, strict=True):
        assert ropewalk.read_back(model).frequencies.difference(plan.frequencies) < 1e-6
        assert {verdict.status for verdict in ropewalk.verify(path).verdicts} == {"exact"}
        assert ropewalk.geometry(path).lineage == "trained"


def test_the_merged_folder_is_what_stock_transformers_loads(adapter: Path, tmp_path: Path) -> None:
    merge(adapter, tmp_path / "merged")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    ours, _ = ropewalk.load(adapter, device="cpu", dtype="float32")
    torch.testing.assert_close(logits(stock), logits(ours))


def test_an_adapter_for_another_base_is_refused(tied: Path, adapter: Path, tmp_path: Path) -> None:
    # The same shapes, names and config: only the numbers differ.
    parameters = {"rope_type": "default", "rope_theta": 50_000.0}
    other = write_tiny_checkpoint(tmp_path / "other", seed=1, tie_word_embeddings=True, rope_parameters=parameters)
    copy = shutil.copytree(adapter, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    config["ropewalk_base"]["source"] = str(other)
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(HostError, match="fingerprint"):
        ropewalk.load(copy)
    config["ropewalk_base"]["source"] = str(tmp_path / "gone")
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(SourceError, match=r"ropewalk_base\.source"):
        ropewalk.load(copy)


def test_what_needs_whole_weights_says_how_to_get_them(adapter: Path, tied: Path, tune: Tune, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="--merge"):
        ropewalk.extend(adapter, "yarn", length=512, out=tmp_path / "extended")
    with pytest.raises(InputError, match="--merge"):
        tune(tmp_path / "again", start=adapter, length=512)
    with pytest.raises(RopewalkError, match="adapter folder"):
        merge(tied, tmp_path / "merged")
    assert not list(tmp_path.iterdir())


def test_longlora_trains_embeddings_and_norms_and_lora_does_not(tied: Path, tune: Tune, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tied)
    assert whole_modules(model) == ["embed_tokens", "input_layernorm", "norm", "post_attention_layernorm"]
    tune(tmp_path / "lora", recipe="lora", steps=1)
    with safe_open(tmp_path / "lora" / "adapter_model.safetensors", "pt") as file:
        assert all("lora_" in name for name in file.keys())  # noqa: SIM118


def test_a_curriculum_of_two_plans(tied: Path, tune: Tune, tmp_path: Path) -> None:
    """From a plan at 4 to one at 8, planned again from the origin: the paper's transfer from s to 2s."""
    tune(tmp_path / "first", steps=1)
    tune(tmp_path / "second", start=tmp_path / "first", length=512, lineage="runtime", steps=1)
    plan = ropewalk.plan(tied, "yarn", length=512)
    model, _ = ropewalk.load(tmp_path / "second", device="cpu", dtype="float32")
    assert ropewalk.read_back(model).frequencies.difference(plan.frequencies) < 1e-6
    steps = json.loads((tmp_path / "second" / "config.json").read_text())["ropewalk"]["steps"]
    assert [(step["length"], step["tuned"]) for step in steps] == [(256, True), (512, True)]
