"""Adapter folders: tied embeddings, the plan they carry, their base, and the merge."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from small import Tune
from tiny import write_tiny_checkpoint
from transformers import AutoModelForCausalLM

import ropewalk
from ropewalk.api.tuning import merge
from ropewalk.core.errors import HostError, InputError, RopewalkError, SourceError, UnsupportedError
from ropewalk.hosts.folder import files
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


def other_base(folder: Path) -> Path:
    """The same shapes, names and config: only the numbers differ."""
    parameters = {"rope_type": "default", "rope_theta": 50_000.0}
    return write_tiny_checkpoint(folder, seed=1, tie_word_embeddings=True, rope_parameters=parameters)


def test_an_adapter_for_another_base_is_refused(tied: Path, adapter: Path, tmp_path: Path) -> None:
    other = other_base(tmp_path / "other")
    copy = shutil.copytree(adapter, tmp_path / "copy")
    shutil.copyfile(other / "model.safetensors", copy / "base" / "model.safetensors")
    for refused in (lambda: ropewalk.load(copy), lambda: merge(copy, tmp_path / "merged")):
        with pytest.raises(HostError, match="fingerprint"):
            refused()
    assert not (tmp_path / "merged").exists()


def test_a_base_without_weights_beside_the_adapter_is_taken_from_its_source(
    tied: Path, adapter: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(adapter, tmp_path / "copy")
    (copy / "base" / "model.safetensors").unlink()
    loaded = [ropewalk.load(path, device="cpu", dtype="float32")[0] for path in (adapter, copy)]
    torch.testing.assert_close(logits(loaded[0]), logits(loaded[1]), rtol=0, atol=0)
    assert [one.field for one in ropewalk.verify(copy).findings if one.severity == "error"] == [
        "base_model_name_or_path", "base",
    ]  # fmt: skip
    config = json.loads((copy / "base" / "config.json").read_text())
    config["ropewalk_base"]["source"] = str(tmp_path / "gone")
    (copy / "base" / "config.json").write_text(json.dumps(config))
    with pytest.raises(SourceError, match="put its weights into"):
        ropewalk.load(copy)


def test_a_source_below_home_is_recorded_by_its_whole_path(
    tied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from small import tuning

    monkeypatch.setenv("HOME", str(tied.parent))
    tuning(Path("~") / tied.name)(tmp_path / "out", recipe="lora", steps=1)
    config = json.loads((tmp_path / "out" / "base" / "config.json").read_text())
    assert config["ropewalk_base"]["source"] == str(tied)


def test_a_run_goes_on_with_the_weights_it_began_on(tied: Path, tmp_path: Path) -> None:
    from small import tuning

    def stop(model: object, length: int) -> float:
        raise KeyboardInterrupt

    source = shutil.copytree(tied, tmp_path / "source")
    with pytest.raises(KeyboardInterrupt):
        tuning(source)(tmp_path / "out", scorer=stop, validate_lengths=[32], validate_every=3)
    other = other_base(tmp_path / "other")
    shutil.copyfile(other / "model.safetensors", source / "model.safetensors")
    with pytest.raises(HostError, match="the run began on weights"):
        tuning(source)(tmp_path / "out", scorer=stop, validate_lengths=[32], validate_every=3, resume=True)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning", "ignore:.*tie_word_embeddings.*")
@pytest.mark.parametrize("reader", ["AutoPeftModel", "PeftModel", "AutoModel"])
def test_stock_peft_and_transformers_get_the_plan_and_the_adapter(reader: str, tied: Path, adapter: Path) -> None:
    stock: Any
    if reader == "AutoPeftModel":
        stock = AutoPeftModelForCausalLM.from_pretrained(adapter).get_base_model()
    elif reader == "PeftModel":
        stock = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(adapter / "base"), adapter).get_base_model()
    else:
        stock = AutoModelForCausalLM.from_pretrained(adapter)
    plan = ropewalk.plan(tied, "yarn", length=256)
    assert ropewalk.read_back(stock).frequencies.difference(plan.frequencies) < 1e-6
    ours, _ = ropewalk.load(adapter, device="cpu", dtype="float32")
    torch.testing.assert_close(logits(stock.eval()), logits(ours), rtol=1e-4, atol=1e-4)
    without = AutoModelForCausalLM.from_pretrained(adapter / "base")
    assert float((logits(without) - logits(ours)).abs().max()) > 1e-2


def test_the_base_takes_no_room_and_is_a_checkpoint_of_its_own(tied: Path, adapter: Path) -> None:
    assert (adapter / "base" / "model.safetensors").samefile(tied / "model.safetensors")
    assert ropewalk.geometry(adapter / "base").lineage == "runtime"
    assert ropewalk.geometry(adapter).lineage == "trained"
    assert {verdict.status for verdict in ropewalk.verify(adapter / "base").verdicts} == {"exact"}


def test_a_folder_that_was_moved_still_loads_and_says_what_others_would_miss(adapter: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(adapter, tmp_path / "moved")
    before, after = (ropewalk.load(path, device="cpu", dtype="float32")[0] for path in (adapter, moved))
    torch.testing.assert_close(logits(before), logits(after), rtol=0, atol=0)
    found = [one for one in ropewalk.verify(moved).findings if one.severity == "error"]
    assert [one.field for one in found] == ["base_model_name_or_path"]
    assert str(moved / "base") in found[0].mend
    assert not [one for one in ropewalk.verify(adapter).findings if one.severity == "error"]


def test_on_another_disk_the_base_is_linked_by_its_path(
    tied: Path, tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", elsewhere)
    monkeypatch.setattr(files, "share_blocks", lambda *_: False)
    tune(tmp_path / "out", recipe="lora", steps=1)
    assert (tmp_path / "out" / "base" / "model.safetensors").is_symlink()
    ours, _ = ropewalk.load(tmp_path / "out", device="cpu", dtype="float32")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(logits(stock), logits(ours), rtol=1e-4, atol=1e-4)


def test_other_links_in_a_base_are_not_followed(adapter: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(adapter, tmp_path / "copy")
    (tmp_path / "secret").write_text("{}")
    (copy / "base" / "tokenizer.json").unlink()
    (copy / "base" / "tokenizer.json").symlink_to(tmp_path / "secret")
    with pytest.raises(SourceError, match="leads outside"):
        ropewalk.verify(copy)


def test_engines_that_refuse_parts_of_an_adapter_are_named(adapter: Path, tune: Tune, tmp_path: Path) -> None:
    fields = {one.field: one for one in ropewalk.verify(adapter).findings}
    assert "vLLM" in fields["modules_to_save"].problem
    assert fields["modules_to_save"].severity == "warning"
    tune(tmp_path / "lora", recipe="lora", steps=1)
    assert not {"modules_to_save", "peft_type"} & {one.field for one in ropewalk.verify(tmp_path / "lora").findings}


@pytest.mark.parametrize("recipe", ["full", "longlora"])
def test_a_raised_generation_length_is_in_the_result(recipe: str, tied: Path, tmp_path: Path) -> None:
    from small import tuning

    source = shutil.copytree(tied, tmp_path / "source")
    content = json.loads((source / "generation_config.json").read_text())
    (source / "generation_config.json").write_text(json.dumps({**content, "max_length": 64}))
    tuning(source)(tmp_path / "out", recipe=recipe, merge=recipe != "full", steps=1)
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["max_length"] == 256
    tuning(source)(tmp_path / "adapter", recipe="lora", steps=1)
    merge(tmp_path / "adapter", tmp_path / "merged")
    for path in ("out", "merged", "adapter"):
        model, _ = ropewalk.load(tmp_path / path, device="cpu")
        assert model.generation_config.max_length == 256


def test_a_merge_has_one_dtype_and_the_config_says_it(tune: Tune, tmp_path: Path) -> None:
    tune(tmp_path / "out", recipe="longlora", merge=True, dtype="bfloat16", steps=2)
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F32"}  # noqa: SIM118
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float32"
    tune(tmp_path / "adapter", recipe="longlora", dtype="bfloat16", steps=2)
    merge(tmp_path / "adapter", tmp_path / "later")
    loaded = [ropewalk.load(tmp_path / name, device="cpu", dtype="float32")[0] for name in ("out", "later")]
    torch.testing.assert_close(logits(loaded[0]), logits(loaded[1]), rtol=0, atol=0)
    merge(tmp_path / "adapter", tmp_path / "half", dtype="bfloat16")
    with safe_open(tmp_path / "half" / "model.safetensors", "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"BF16"}  # noqa: SIM118
    model, _ = ropewalk.load(tmp_path / "half", device="cpu", dtype="bfloat16")
    assert model.get_decoder().rotary_emb.inv_freq.dtype == torch.float32


def test_weights_can_be_read_by_whoever_reads_the_config(adapter: Path, tied: Path, tune: Tune, tmp_path: Path) -> None:
    merge(adapter, tmp_path / "merged")
    tune(tmp_path / "full", steps=1)
    for folder, name in ((adapter, "adapter_model"), (tmp_path / "merged", "model"), (tmp_path / "full", "model")):
        mode = (folder / f"{name}.safetensors").stat().st_mode
        assert mode == (folder / "tokenizer_config.json").stat().st_mode
        assert mode & 0o044


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


def test_a_second_plan_is_made_from_the_origin(tied: Path, tune: Tune, tmp_path: Path) -> None:
    """From a plan at 4 to one at 8, planned again from the origin: the paper's transfer from s to 2s."""
    tune(tmp_path / "first", steps=1)
    tune(tmp_path / "second", start=tmp_path / "first", length=512, lineage="runtime", steps=1)
    plan = ropewalk.plan(tied, "yarn", length=512)
    model, _ = ropewalk.load(tmp_path / "second", device="cpu", dtype="float32")
    assert ropewalk.read_back(model).frequencies.difference(plan.frequencies) < 1e-6
    steps = json.loads((tmp_path / "second" / "config.json").read_text())["ropewalk"]["steps"]
    assert [(step["length"], step["tuned"]) for step in steps] == [(256, True), (512, True)]


@pytest.mark.parametrize("pickled", [False, True])
def test_an_adapter_without_its_weights_asks_nobody(
    pickled: bool, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def hub(repo_id: str, *args: Any, **keywords: Any) -> Any:
        asked.append(repo_id)
        raise OSError("no network")

    monkeypatch.setattr("peft.utils.save_and_load.file_exists", hub)
    monkeypatch.setattr("peft.utils.save_and_load.hf_hub_download", hub)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(adapter, "me/run", symlinks=True)
    weights = Path("me/run/adapter_model.safetensors")
    if pickled:
        torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(SourceError, match=r"without adapter_model\.safetensors; get the complete folder"):
        ropewalk.load("me/run", device="cpu", dtype="float32")
    assert asked == []
