"""A folder made from a GGUF file computes what the model computed that the file was made from."""

import json
import math
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf_files import tiny, write_gguf
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from ropewalk.core.errors import InputError, MachineError, OutputError, SourceError, UnsupportedError
from ropewalk.hosts.gguf import config_of, convert, geometry, read_header, weights
from ropewalk.hosts.gguf.conversion import quantisation_of
from ropewalk.hosts.gguf.tensors import targets

Q = gguf.GGMLQuantizationType
PLAIN = {"rope_type": "default", "rope_theta": 10000.0}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
YARN: dict[str, Any] = {
    "rope_type": "yarn",
    "rope_theta": 1000000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 1024,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
SCALED = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 1024}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def load(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def converted(model: PreTrainedModel, tmp_path: Path, architecture: str, **options: Any) -> PreTrainedModel:
    path = write_gguf(model, tmp_path / "m.gguf", architecture, **options)
    convert(path, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.gguf", "out"]
    return load(tmp_path / "out")


def same(model: PreTrainedModel, other: PreTrainedModel, length: int = 64) -> None:
    """Every weight and rotary buffer bit for bit, and the logits with them."""
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    mine, theirs = model.model.rotary_emb, other.model.rotary_emb
    for name, buffer in mine.named_buffers():
        assert torch.equal(buffer, dict(theirs.named_buffers())[name]), name
    ids = torch.arange(length)[None] * 7 % model.config.vocab_size
    with torch.no_grad():
        assert torch.equal(model(ids).logits, other(ids).logits)


def divisors(model: PreTrainedModel) -> np.ndarray:
    """What llama.cpp's converter writes as rope_freqs.weight: plain frequencies over the model's, float32."""
    base = model.config.rope_parameters["rope_theta"]
    inv_freq = model.model.rotary_emb.inv_freq
    plain = 1.0 / base ** (torch.arange(0, 2 * len(inv_freq), 2).float() / (2 * len(inv_freq)))
    return (plain / inv_freq).numpy()


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma3"])
@pytest.mark.parametrize("tied", [True, False])
def test_plain_model_is_the_same(tmp_path: Path, architecture: str, tied: bool) -> None:
    rope, keys = (PLAIN, {})
    options: dict[str, Any] = {"tie_word_embeddings": tied}
    if architecture == "gemma3":
        rope = {"full_attention": {**LINEAR, "rope_theta": 1000000.0}, "sliding_attention": PLAIN}
        options |= {"sliding_window": 16, "query_pre_attn_scalar": 32, "num_hidden_layers": 7}
        keys = {"attention.sliding_window": 16, "rope.scaling.type": "linear", "rope.scaling.factor": 4.0}
    model = tiny(architecture, rope, **options)
    other = converted(model, tmp_path, architecture, keys=keys)
    if architecture == "gemma3":
        # The file holds 1 + w in float32, so w comes back rounded; everything else is exact.
        for name, tensor in model.state_dict().items():
            torch.testing.assert_close(tensor, other.state_dict()[name], rtol=0, atol=2e-7 if "norm" in name else 0)
        for name, buffer in model.model.rotary_emb.named_buffers():
            assert torch.equal(buffer, dict(other.model.rotary_emb.named_buffers())[name]), name
        ids = torch.arange(64)[None]
        torch.testing.assert_close(model(ids).logits, other(ids).logits, rtol=1e-4, atol=1e-4)
        assert other.config.layer_types == model.config.layer_types
    else:
        same(model, other)


def test_biases_survive(tmp_path: Path) -> None:
    model = tiny("llama", PLAIN, attention_bias=True, mlp_bias=True)
    same(model, converted(model, tmp_path, "llama"))


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_linear_scaling_survives(tmp_path: Path, architecture: str) -> None:
    model = tiny(architecture, LINEAR)
    same(model, converted(model, tmp_path, architecture, keys={"rope.scaling.factor": 4.0}))


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_yarn_survives(tmp_path: Path, architecture: str) -> None:
    model = tiny(architecture, YARN)
    other = converted(model, tmp_path, architecture, keys=SCALED)
    same(model, other)
    assert other.model.rotary_emb.attention_scaling == pytest.approx(0.1 * math.log(4) + 1)


def test_stock_loader_drops_the_scaling(tmp_path: Path) -> None:
    """The reason for all this. Should this fail one day, stock has learned it, and so much the better."""
    model = tiny("llama", YARN)
    write_gguf(model, tmp_path / "m.gguf", "llama", keys=SCALED)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf")
    assert stock.config.rope_parameters["rope_type"] == "default"
    assert not torch.equal(stock.model.rotary_emb.inv_freq, model.model.rotary_emb.inv_freq)


def test_yarn_betas_and_attention_factor_survive_with_notes(tmp_path: Path) -> None:
    model = tiny("qwen2", {**YARN, "beta_fast": 16.0, "beta_slow": 2.0, "attention_factor": 1.25})
    keys = {f"rope.scaling.yarn_{key}": value for key, value in (("beta_fast", 16.0), ("beta_slow", 2.0))}
    path = write_gguf(model, tmp_path / "m.gguf", "qwen2", keys={**SCALED, **keys, "rope.scaling.yarn_attn_factor": 1.25})
    notes = convert(path, tmp_path / "out")
    other = load(tmp_path / "out")
    same(model, other)
    assert other.model.rotary_emb.attention_scaling == 1.25
    assert [note.split(" as the file")[0] for note in notes[:3]] == [
        "beta_fast is 16",
        "beta_slow is 2",
        "the attention factor is 1.25",
    ]


def test_llama3_divisors_become_llama3(tmp_path: Path) -> None:
    model = tiny("llama", LLAMA3, head_dim=64, max_position_embeddings=131072)
    other = converted(model, tmp_path, "llama", tensors={"rope_freqs.weight": divisors(model)})
    assert other.config.rope_parameters["rope_type"] == "llama3"
    same(model, other)
    assert geometry(read_header(tmp_path / "m.gguf")).lineage == "trained"


def test_other_divisors_become_a_factor_each(tmp_path: Path) -> None:
    factors = np.linspace(1.0, 9.0, 16, dtype=np.float32)
    model = tiny("llama", PLAIN)
    other = converted(model, tmp_path, "llama", tensors={"rope_freqs.weight": factors})
    assert other.config.rope_parameters["rope_type"] == "longrope"
    wanted = model.model.rotary_emb.inv_freq / torch.from_numpy(factors)
    torch.testing.assert_close(other.model.rotary_emb.inv_freq, wanted, rtol=3e-7, atol=0)
    assert other.model.rotary_emb.attention_scaling == 1.0
    # Beyond the declared length it switches to the long list, which is the same.
    ids = torch.arange(5000)[None] % 96
    with torch.no_grad():
        other.model(ids)
    torch.testing.assert_close(other.model.rotary_emb.inv_freq, wanted, rtol=3e-7, atol=0)


def test_longrope_tensors_survive(tmp_path: Path) -> None:
    short, long = np.full(16, 1.5, np.float32), np.linspace(2, 16, 16, dtype=np.float32)
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": short.tolist(),
        "long_factor": long.tolist(),
        "original_max_position_embeddings": 256,
        "attention_factor": 1.125,
    }
    model = tiny("llama", rope)
    keys = {
        "rope.scaling.type": "longrope",
        "rope.scaling.original_context_length": 256,
        "rope.scaling.attn_factor": 1.125,
    }
    tensors = {"rope_factors_long.weight": long, "rope_factors_short.weight": short}
    other = converted(model, tmp_path, "llama", keys=keys, tensors=tensors)
    for length in (64, 512):
        same(model, other, length)
    assert other.model.rotary_emb.attention_scaling == 1.125


@pytest.mark.parametrize("kind", [Q.F16, Q.BF16, Q.Q8_0, Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1], ids=lambda kind: str(kind.name))
def test_quantised_weights_equal_stock_loading(tmp_path: Path, kind: gguf.GGMLQuantizationType) -> None:
    model = tiny("llama", PLAIN)
    other = converted(model, tmp_path, "llama", kind=kind)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf", dtype=torch.float32)
    for name, tensor in stock.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    assert quantisation_of(read_header(tmp_path / "m.gguf")) == kind.name
    block = json.loads((tmp_path / "out/config.json").read_text())["ropewalk"]
    assert block["converted_from"]["quantisation"] == kind.name


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_other_dtypes_round_as_torch_does(tmp_path: Path, dtype: str) -> None:
    model = tiny("llama", PLAIN)
    path = write_gguf(model, tmp_path / "m.gguf", "llama")
    convert(path, tmp_path / "out", dtype=dtype)
    other = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert other.dtype == getattr(torch, dtype)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor.to(other.dtype), other.state_dict()[name]), name


def test_slices_and_shards_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "SLICE_ELEMENTS", 640)
    monkeypatch.setattr(weights, "SHARD_BYTES", 40000)
    model = tiny("llama", PLAIN, attention_bias=True)
    other = converted(model, tmp_path, "llama")
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 3
    same(model, other)


def test_memory_stays_near_one_slice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "SLICE_ELEMENTS", 1 << 14)
    path = write_gguf(tiny("llama", PLAIN, vocab_size=30000), tmp_path / "m.gguf", "llama", kind=Q.Q4_1)
    convert(path, tmp_path / "warm")
    header = read_header(path)
    wanted = targets(header, config_of(header))
    tracemalloc.start()
    try:
        weights.write(header, wanted, tmp_path, "float32", None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # One table alone has 7.7 MB; a slice 64 kB, a few times over while it is unpacked.
    assert peak < 1_500_000
    assert (tmp_path / "model.safetensors").read_bytes() == (tmp_path / "warm/model.safetensors").read_bytes()


def test_tokenizer_survives(tmp_path: Path) -> None:
    path = write_gguf(tiny("llama", PLAIN), tmp_path / "m.gguf", "llama", tokenizer=True)
    # A file beside the GGUF file has no say.
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "x", "chat_template": "wrong"}')
    convert(path, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token) == ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
    text = "<|im_start|>ab  12 a<|im_end|>"
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer.convert_ids_to_tokens(tokenizer("ab  12 a").input_ids) == [
        *("ab", "\u0120", "\u0120", "1", "2", "\u0120a"),
    ]
    assert tokenizer.apply_chat_template([{"role": "user", "content": "ab"}], tokenize=False) == "<|im_start|>ab<|im_end|>"
    generation = json.loads((tmp_path / "out/generation_config.json").read_text())
    assert generation == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    content = json.loads((tmp_path / "out/tokenizer_config.json").read_text())
    assert not {"is_local", "local_files_only", "name_or_path"} & set(content)


def test_broken_tokenizer_is_one_sentence(tmp_path: Path) -> None:
    path = write_gguf(tiny("llama", PLAIN), tmp_path / "m.gguf", "llama", tokenizer=True)
    data = path.read_bytes()
    key = b"tokenizer.ggml.merges"
    path.write_bytes(data.replace(key, b"tokenizer.ggml.mergez"))
    with pytest.raises(SourceError, match=r"the tokenizer of .*m.gguf cannot be rebuilt"):
        convert(path, tmp_path / "out")
    # This one is raised by Rust, as a bare Exception.
    path.write_bytes(data.replace(b"\x03\x00\x00\x00\x00\x00\x00\x00a b", b"\x03\x00\x00\x00\x00\x00\x00\x00a c"))
    with pytest.raises(SourceError, match=r"cannot be rebuilt \(.*`ac` out of vocabulary"):
        convert(path, tmp_path / "out")
    path.write_bytes(data.replace(b"\x04\x00\x00\x00\x00\x00\x00\x00gpt2", b"\x04\x00\x00\x00\x00\x00\x00\x00bert"))
    with pytest.raises(UnsupportedError, match=r"tokenizer model 'bert' .* not supported yet"):
        convert(path, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]


def test_unknown_split_is_said(tmp_path: Path) -> None:
    path = write_gguf(tiny("llama", PLAIN), tmp_path / "m.gguf", "llama", tokenizer=True)
    path.write_bytes(path.read_bytes().replace(b"smollm", b"viking"))
    assert "splits text by 'viking', which is not known here" in convert(path, tmp_path / "out")[0]


def test_no_tokenizer_is_said(tmp_path: Path) -> None:
    path = write_gguf(tiny("llama", PLAIN), tmp_path / "m.gguf", "llama")
    assert convert(path, tmp_path / "out") == ["the GGUF file has no tokenizer, so the folder has none"]


def test_folder_and_file_have_one_geometry(tmp_path: Path) -> None:
    path = write_gguf(tiny("qwen3", YARN), tmp_path / "m.gguf", "qwen3", keys=SCALED)
    convert(path, tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())
    block = config.pop("ropewalk")
    assert config.pop("dtype") == "float32"
    assert config == config_of(read_header(path))
    assert (block["schema_version"], block["converted_from"]["file"]) == (1, "m.gguf")
    assert len(block["converted_from"]["sha256"]) == 64


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"skip": ("blk.1.ffn_up.weight",)}, SourceError, r"lacks tensor blk.1.ffn_up.weight, which"),
        ({"keys": {"block_count": 3}}, SourceError, r"lacks tensor blk.2.attn_norm.weight, expected 3 layers"),
        ({"keys": {"feed_forward_length": 97}}, SourceError, r"has shape \(96, 64\), expected \(97, 64\)"),
        ({"tensors": {"extra.weight": np.ones(4, np.float32)}}, UnsupportedError, r"no place for, such as 'extra.weight'"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path: Path, options: Any, error: type[Exception], message: str) -> None:
    path = write_gguf(tiny("llama", PLAIN), tmp_path / "m.gguf", "llama", **options)
    with pytest.raises(error, match=message):
        convert(path, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]


def test_integer_weights_cannot_be_dequantised(tmp_path: Path) -> None:
    integers = np.ones((96, 64), np.int32)
    path = write_gguf(
        tiny("llama", PLAIN), tmp_path / "m.gguf", "llama", skip=("output.weight",), tensors={"output.weight": integers}
    )
    with pytest.raises(UnsupportedError, match=r"tensor output.weight has type I32, which the installed gguf package"):
        convert(path, tmp_path / "out")


def test_weights_that_are_not_numbers(tmp_path: Path) -> None:
    model = tiny("llama", PLAIN)
    with torch.no_grad():
        model.lm_head.weight[3, 5] = math.nan
    with pytest.raises(SourceError, match=r"tensor output.weight holds values that are not numbers"):
        convert(write_gguf(model, tmp_path / "m.gguf", "llama"), tmp_path / "out")
    with torch.no_grad():
        model.lm_head.weight[3, 5] = 1e6
    path = write_gguf(model, tmp_path / "m.gguf", "llama")
    with pytest.raises(InputError, match=r"output.weight holds numbers beyond float16"):
        convert(path, tmp_path / "out", dtype="float16")
    with pytest.raises(InputError, match=r"dtype 'float8' cannot be written; did you mean"):
        convert(path, tmp_path / "out", dtype="float8")
    assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]


def test_existing_out_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="exists already"):
        convert(tmp_path / "nowhere.gguf", tmp_path / "out")
    path = write_gguf(tiny("llama", PLAIN), tmp_path / "m.gguf", "llama")
    convert(path, tmp_path / "out", force=True)
    with pytest.raises(OutputError, match="lie inside one another"):
        convert(path, tmp_path, force=True)


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_gguf(tiny("llama", PLAIN), tmp_path / "m.gguf", "llama")
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
        with pytest.raises(MachineError, match=r"disk is too full: .* takes 0.0 GB and 0.0 GB are free"):
            convert(path, tmp_path / "out")
    # A file limit is the nearest thing to a disk that fills up half-way.
    script = (
        "import resource, sys, signal; from ropewalk.hosts.gguf import convert\n"
        "from ropewalk.core.errors import MachineError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))\n"
        "try: convert(sys.argv[1], sys.argv[2])\n"
        "except MachineError as error: print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(path), str(tmp_path / "out")], capture_output=True, text=True, check=True
    )
    assert "failed" in run.stdout
    assert "nothing was written" in run.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_gguf(tiny("llama", PLAIN), tmp_path / "m.gguf", "llama")
    monkeypatch.setattr("ropewalk.hosts.gguf.conversion.NEEDED", ("gguf", "surely_not_installed"))
    with pytest.raises(
        MachineError, match=r"needs surely_not_installed; install it with pip install '\.\[hf\]' in a checkout of ropewalk"
    ):
        convert(path, tmp_path / "out")


def test_header_and_geometry_need_neither_torch_nor_gguf(tmp_path: Path) -> None:
    path = write_gguf(tiny("llama", PLAIN), tmp_path / "m.gguf", "llama")
    script = (
        "import sys; from ropewalk.hosts.gguf import geometry, read_header\n"
        "assert geometry(read_header(sys.argv[1])).declared_length == 4096\n"
        "print(sorted({'torch', 'transformers', 'gguf'} & set(sys.modules)))\n"
    )
    run = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
