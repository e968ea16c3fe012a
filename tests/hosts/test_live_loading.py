"""Loading a folder: the dtype given to the loader, safetensors only, the plan in the config read back and compared."""

import json
import shutil

import families
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from ropewalk.core.errors import HostError, InputError, SourceError, UnsupportedError
from ropewalk.hosts.live import apply, choose_device, choose_dtype, geometry_of, load, loading, read_back


def save(folder, name, **changes):
    model = families.model(name, **changes)
    model.save_pretrained(folder)
    vocabulary = {f"t{i}": i for i in range(families.VOCABULARY)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="t0"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="t0").save_pretrained(folder)
    return model


@pytest.fixture
def folder(tmp_path):
    save(tmp_path, "llama")
    return tmp_path


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_load_gives_the_saved_model_in_eval_mode_and_its_tokenizer(tmp_path):
    saved = save(tmp_path, "llama")
    model, tokenizer = load(tmp_path, dtype="float32", device="cpu", attention="eager")
    assert not model.training
    assert model.dtype == torch.float32
    assert torch.equal(families.logits(model), families.logits(saved))
    assert tokenizer("t5")["input_ids"] == [5]


def test_half_precision_keeps_the_frequencies_in_float32(folder):
    model, _ = load(folder, dtype=torch.bfloat16, device="cpu")
    assert model.dtype == torch.bfloat16
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32
    assert model.config._attn_implementation == "sdpa"
    with apply(model, read_back(model)):
        assert families.logits(model).dtype == torch.bfloat16


def test_a_plan_in_the_config_is_on_and_read_back(tmp_path):
    yarn = {**families.PLAIN, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    save(tmp_path, "llama", rope_parameters=yarn, max_position_embeddings=256)
    model, _ = load(tmp_path, device="cpu")
    assert read_back(model).frequencies.attention_factor == pytest.approx(1.1386294361119891)
    assert read_back(model).frequencies.inv_freq[-1] == pytest.approx(10000.0 ** (-14 / 16) / 4, rel=1e-6)


def test_the_long_list_of_longrope_is_what_its_config_says(tmp_path):
    save(tmp_path, "phi3-longrope")
    model, _ = load(tmp_path, device="cpu")
    long = families.LONGROPE["long_factor"]
    assert geometry_of(model).groups[0].inv_freq[-1] == pytest.approx(10000.0 ** (-14 / 16) / long[-1])


@pytest.mark.parametrize("name", ["llama", "phi3-longrope"])
def test_a_model_that_does_not_use_its_config_is_not_handed_out(tmp_path, monkeypatch, name):
    save(tmp_path, name)
    said = geometry_of(
        families.model(name, rope_parameters={**families.TINY[name].fields["rope_parameters"], "rope_theta": 500.0})
    )
    monkeypatch.setattr(loading, "geometry_of", lambda model: said)
    with pytest.raises(HostError, match="does not use the numbers of its config"):
        load(tmp_path, dtype="float32", device="cpu")


def test_gpt_oss_has_no_sdpa_and_says_so(tmp_path):
    save(tmp_path, "gpt-oss")
    with pytest.warns(UserWarning, match="this family has no sdpa attention, eager is used instead"):
        model, _ = load(tmp_path, dtype="float32", device="cpu")
    assert model.config._attn_implementation == "eager"


def test_a_nested_config_is_loaded_as_its_language_model(tmp_path):
    save(tmp_path, "qwen3.5")
    model, _ = load(tmp_path, dtype="float32", device="cpu")
    assert type(model).__name__ == "Qwen3_5ForCausalLM"
    assert torch.allclose(families.logits(model), families.logits(families.model("qwen3.5")), atol=1e-5)


def test_pickled_weights_are_not_opened(folder):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(SourceError, match="pickled weights saved again as safetensors"):
        load(folder, device="cpu")


def test_truncated_weights_are_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(SourceError, match="cannot be loaded as a causal language model"):
        load(folder, device="cpu")


def test_missing_tensors_are_not_filled_with_random_numbers(folder):
    path = folder / "model.safetensors"
    weights = load_file(path)
    del weights["model.layers.1.mlp.up_proj.weight"], weights["model.norm.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(SourceError, match=r"lacks 2 tensors of its model, the first is model\.layers\.1\.mlp"):
        load(folder, device="cpu")


def test_a_missing_tokenizer_or_folder_is_one_sentence(folder, tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(SourceError, match="and a tokenizer"):
        load(folder, device="cpu")
    with pytest.raises(SourceError, match="nowhere is not a folder"):
        load(tmp_path / "nowhere", device="cpu")


def test_code_in_a_folder_is_never_run(folder, tmp_path):
    proof = tmp_path / "ran"
    (folder / "modeling_own.py").write_text(f"open({str(proof)!r}, 'w')\nclass Own: pass\n")
    edit(folder, model_type="own", auto_map=dict.fromkeys(("AutoConfig", "AutoModelForCausalLM"), "modeling_own.Own"))
    with pytest.raises(SourceError, match="cannot be loaded"):
        load(folder, device="cpu")
    assert not proof.exists()


def test_an_unsupported_family_is_named(tmp_path):
    save(tmp_path, "llama4")
    edit(tmp_path, attn_temperature_tuning=True)
    with pytest.raises(UnsupportedError, match="attn_temperature_tuning"):
        load(tmp_path, dtype="float32", device="cpu")


def test_unknown_names_are_refused_before_anything_is_read(tmp_path):
    nowhere = tmp_path / "nowhere"
    with pytest.raises(InputError, match="unknown dtype 'bf16'; did you mean bfloat16"):
        load(nowhere, dtype="bf16")
    with pytest.raises(InputError, match="device is auto or a torch device such as cpu or cuda:0, got 'gpu'"):
        load(nowhere, device="gpu")
    with pytest.raises(InputError, match="unknown attention 'sdpaa'; did you mean"):
        load(nowhere, attention="sdpaa")


def test_attention_that_this_machine_lacks_is_a_host_error(folder):
    with pytest.raises(HostError, match="cannot run 'flash_attention_2' attention"):
        load(folder, device="cpu", dtype="bfloat16", attention="flash_attention_2")


X86 = "processor\t: 0\nflags\t\t: fpu avx512f {}\n\nprocessor\t: 1\nflags\t\t: fpu\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd {}\n"


@pytest.mark.parametrize(
    ("text", "dtype", "why"),
    [
        (X86.format("avx512_bf16"), torch.bfloat16, "natively (avx512_bf16)"),
        (X86.format("amx_bf16 amx_tile"), torch.bfloat16, "natively (amx_bf16)"),
        (ARM.format("bf16 i8mm"), torch.bfloat16, "natively (bf16)"),
        (X86.format("avx512_vnni"), torch.float32, "no native bfloat16"),
        ("", torch.float32, "no native bfloat16"),
        (None, torch.float32, "no native bfloat16"),
    ],
)
def test_the_processor_chooses_the_dtype(tmp_path, monkeypatch, text, dtype, why):
    source = tmp_path / "cpuinfo"
    if text is not None:
        source.write_text(text)
    monkeypatch.setattr(loading, "PROCESSOR", source)
    chosen, reason = choose_dtype("cpu")
    assert chosen == dtype
    assert why in reason


def test_other_devices_choose_their_dtype(monkeypatch):
    assert choose_dtype("mps") == (torch.float32, "float32: native bfloat16 is not looked for on mps")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Test GPU")
    for native, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, native=native: native)
        chosen, reason = choose_dtype("cuda")
        assert chosen == dtype
        assert "Test GPU" in reason


def test_auto_means_what_is_chosen(folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device() == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device() == torch.device("cpu")
    model, _ = load(folder)
    assert model.device == torch.device("cpu")
    assert model.dtype == choose_dtype("cpu")[0]


def test_folders_do_not_change_by_loading(folder, tmp_path_factory):
    copy = tmp_path_factory.mktemp("copy") / "model"
    shutil.copytree(folder, copy)
    load(folder, device="cpu")
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {p.name: p.read_bytes() for p in copy.iterdir()}
