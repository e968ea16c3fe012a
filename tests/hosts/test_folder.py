"""Opening checkpoints, each bad input in one sentence, and writing extended ones whole or not at all."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_folders import LLAMA, safetensors_bytes

from ropewalk.core.errors import HostError, MachineError, OutputError, SourceError, UnsupportedError
from ropewalk.core.method import find
from ropewalk.core.plan import Plan
from ropewalk.engines.transformers import read
from ropewalk.hosts import mark
from ropewalk.hosts.folder import Checkpoint, files, geometry_of, hub, open_checkpoint, write_extended

Make = Callable[..., Path]
INDEX = "model.safetensors.index.json"


def plan_for(checkpoint: Checkpoint, method: str = "yarn", length: int = 1024) -> Plan:
    return find(method).plan(geometry_of(checkpoint), length)


def test_a_folder_with_weights(make_folder: Make):
    checkpoint = open_checkpoint(str(make_folder()))
    assert (checkpoint.kind, checkpoint.weights, checkpoint.quantisation) == ("folder", ("model.safetensors",), None)
    assert checkpoint.config == LLAMA
    assert geometry_of(checkpoint).trained_length == 256


def test_a_folder_with_a_config_alone(make_folder: Make):
    checkpoint = open_checkpoint(make_folder(**{"model.safetensors": None}))
    assert (checkpoint.kind, checkpoint.weights) == ("config", ())
    assert geometry_of(checkpoint).trained_length == 256


def test_sharded_weights(make_folder: Make):
    shards = {f"model-{i}-of-2.safetensors": safetensors_bytes(i, "ab"[i - 1]) for i in (1, 2)}
    index = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    checkpoint = open_checkpoint(make_folder(**{"model.safetensors": None, INDEX: index, **shards}))
    assert checkpoint.weights == (INDEX, "model-1-of-2.safetensors", "model-2-of-2.safetensors")


@pytest.mark.parametrize("nested", [False, True])
def test_quantised_weights_are_named(make_folder: Make, nested: bool):
    section = {"quantization_config": {"quant_method": "awq"}}
    config = {**LLAMA, "text_config": section} if nested else {**LLAMA, **section}
    assert open_checkpoint(make_folder(**{"config.json": config})).quantisation == "awq"


def test_an_adapter_is_named(make_folder: Make, tmp_path: Path):
    adapter = {"base_model_name_or_path": "org/base", "peft_type": "LORA"}
    folder = make_folder(**{"config.json": None, "model.safetensors": None, "adapter_config.json": adapter})
    checkpoint = open_checkpoint(folder)
    assert checkpoint.kind == "adapter"
    with pytest.raises(UnsupportedError, match="is a PEFT adapter for org/base"):
        geometry_of(checkpoint)
    with pytest.raises(UnsupportedError, match="is a PEFT adapter for org/base"):
        write_extended(checkpoint, find("pi").plan(read(LLAMA), 512), tmp_path / "out")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"config.json": None},
            r"is not a checkpoint: it has no config\.json; expected a folder that save_pretrained wrote",
        ),
        ({"config.json": b"{"}, r"config\.json is not JSON"),
        ({"config.json": b"\xff\xfe"}, r"config\.json is not JSON"),
        ({"config.json": b"[" * 100_000}, r"config\.json is not JSON"),
        ({"config.json": [1]}, r"config\.json holds a JSON list, expected an object"),
        ({"model.safetensors": b""}, "is truncated: it has 0 bytes"),
        ({"model.safetensors": b"\x01\x02"}, "is truncated: it has 2 bytes"),
        ({"model.safetensors": safetensors_bytes(99)[:-1]}, r"is truncated: it has \d+ bytes of"),
        ({"model.safetensors": safetensors_bytes(99)[:20]}, "its header alone"),
        ({"model.safetensors": safetensors_bytes(9) + b"x"}, "its header accounts for"),
        ({"model.safetensors": b"\xff" * 64}, "is not a safetensors file: its header would have"),
        ({"model.safetensors": b"\x04" + bytes(7) + b"nope"}, "its header is not JSON"),
        ({"model.safetensors": b"\x02" + bytes(7) + b"[]"}, "its header is no JSON object"),
        ({"model.safetensors": safetensors_bytes(data_offsets=[0])}, "gives no byte range for tensor 'w'"),
        ({"model.safetensors": safetensors_bytes(data_offsets=[9, 2])}, "gives no byte range for tensor 'w'"),
        ({"model.safetensors": safetensors_bytes(dtype="F32")}, "tensor 'w' has 16 bytes for shape"),
        ({"model.safetensors": b"version https://git-lfs.github.com/spec/v1\n"}, "is a Git LFS pointer"),
        ({INDEX: {"weight_map": {"a": "gone.safetensors"}}}, "names 1 weight files that are not there, 'gone"),
        ({INDEX: {"weight_map": {"a": "../model/model.safetensors"}}}, "names the weight file '../model"),
        ({INDEX: {"weight_map": {"a": "/etc/x.safetensors"}}}, "names the weight file '/etc"),
        ({INDEX: {"weight_map": {"a": "..\\x.safetensors"}}}, "names the weight file"),
        ({INDEX: {"weight_map": {"a": "pytorch_model.bin"}}}, "expected the name of a safetensors file in the same folder"),
        ({INDEX: {"weight_map": {"a": 3}}}, "names the weight file 3"),
        ({INDEX: {"weight_map": [1]}}, "is not an index of weights"),
        ({INDEX: b"{"}, "is not an index of weights"),
    ],
)
def test_broken_folders(make_folder: Make, files: dict[str, Any], message: str):
    with pytest.raises(SourceError, match=message):
        open_checkpoint(make_folder(**files))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt"])
def test_pickles_are_not_opened(make_folder: Make, name: str):
    folder = make_folder(**{"model.safetensors": None, name: b"cos\nsystem\n."})
    with pytest.raises(UnsupportedError, match=r"holds pickled weights .*save_pretrained\(NEW\) writes safetensors"):
        open_checkpoint(folder)


def test_pickles_beside_safetensors_are_left_alone(make_folder: Make, tmp_path: Path):
    checkpoint = open_checkpoint(make_folder(**{"pytorch_model.bin": b"x", "optimizer.pt": b"x", "evil.py": b"x"}))
    write_extended(checkpoint, plan_for(checkpoint), tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [mark.NAME, "config.json", "model.safetensors"]
    assert open_checkpoint(make_folder("run", **{"model.safetensors": None, "training_args.bin": b"x"})).kind == "config"


def test_what_may_have_been_meant(make_folder: Make, tmp_path: Path):
    folder = make_folder()
    with pytest.raises(SourceError, match=r"did you mean .*model\?"):
        open_checkpoint(tmp_path)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.gguf").write_bytes(b"GGUF")
    with pytest.raises(SourceError, match=r"give the file itself, .*a\.gguf"):
        open_checkpoint(tmp_path / "files")
    with pytest.raises(SourceError, match=r"config\.json is a file but not a GGUF file; give the checkpoint's folder"):
        open_checkpoint(folder / "config.json")
    with pytest.raises(
        SourceError, match=r"/nowhere does not exist; expected a checkpoint folder, a GGUF file, or a hub id"
    ):
        open_checkpoint("/nowhere")
    with (folder / "config.json").open("wb") as file:
        file.truncate(64 * 1024 * 1024 + 1)
    with pytest.raises(SourceError, match="is too much for a JSON file"):
        open_checkpoint(folder)


def test_an_existing_path_wins_over_a_hub_id(make_folder: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    make_folder("org")
    (tmp_path / "org").rename(tmp_path / "inner")
    (tmp_path / "org").mkdir()
    (tmp_path / "inner").rename(tmp_path / "org" / "name")
    monkeypatch.chdir(tmp_path)
    assert open_checkpoint("org/name").kind == "folder"


def test_a_hub_id_is_fetched(make_folder: Make, monkeypatch: pytest.MonkeyPatch):
    folder, asked = make_folder(), []

    def fetch(name: str, *, weights: bool, revision: str | None) -> Path:
        asked.append((name, weights, revision))
        return folder

    monkeypatch.setattr(hub, "fetch", fetch)
    assert open_checkpoint("org/name").path == folder
    assert open_checkpoint("org/name-1.5_b", weights=True).kind == "folder"
    assert open_checkpoint("org/name", revision="a" * 40).kind == "folder"
    assert asked == [("org/name", False, None), ("org/name-1.5_b", True, None), ("org/name", False, "a" * 40)]


def test_the_hub_is_asked_once_and_never_for_code(make_folder: Make, monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub

    folder, asked = make_folder(), []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **words: asked.append((name, words)) or folder)
    assert hub.fetch("org/name", weights=True) == folder
    assert hub.fetch("org/name", weights=False, revision="a" * 40) == folder
    assert [words["revision"] for _, words in asked] == [None, "a" * 40]
    patterns = [words["allow_patterns"] for _, words in asked]
    assert [name for name, _ in asked] == ["org/name", "org/name"]
    assert asked[0][1]["etag_timeout"] == hub.SECONDS
    assert ["*.safetensors" in pattern for pattern in patterns] == [True, False]
    # Without the weights their index would look like a broken download.
    assert [words["ignore_patterns"] for _, words in asked] == [[], ["*.safetensors.index.json"]]
    assert not {"*", "*.py", "*.bin"} & set(patterns[0])


def test_a_name_that_the_hub_refuses(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(SourceError, match="is no path here, and the hub does not give it"):
        hub.fetch("org/na--me", weights=False)


def test_offline_is_honoured(tmp_path: Path):
    code = (
        "from ropewalk.core.errors import SourceError\nfrom ropewalk.hosts.folder import open_checkpoint\n"
        "try:\n    open_checkpoint('nobody/nothing')\nexcept SourceError as error:\n    print(error)\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert "nobody/nothing is no path here, and neither the hub (unreachable, or HF_HUB_OFFLINE set)" in done.stdout


def test_without_the_hub_client(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(SourceError, match="org/name does not exist here; to look it up on the hub, install the hf extra"):
        open_checkpoint("org/name")


TOKENIZER = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 256}


def test_an_extended_folder(make_folder: Make, tmp_path: Path):
    beside = {
        "tokenizer_config.json": TOKENIZER,
        "tokenizer.json": {"version": "1.0"},
        "generation_config.json": {"eos_token_id": 2},
        "chat_template.jinja": b"{{ messages }}",
        "additional_chat_templates/tool.jinja": b"x",
        "LICENSE": b"terms",
        "trainer_state.json": {},
        "pytorch_model.bin.index.json": {},
        "README.md": b"another model",
    }
    source = make_folder(**beside)
    before = {file: file.read_bytes() for file in source.rglob("*") if file.is_file()}
    checkpoint = open_checkpoint(source)
    out = tmp_path / "deep" / "out"
    notes = write_extended(checkpoint, plan_for(checkpoint), out)
    assert sorted(str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()) == [
        mark.NAME,
        "LICENSE",
        "additional_chat_templates/tool.jinja",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert json.loads((out / "tokenizer_config.json").read_text())["model_max_length"] == 1024
    assert (out / "model.safetensors").samefile(source / "model.safetensors")
    assert before == {file: file.read_bytes() for file in source.rglob("*") if file.is_file()}
    assert notes == [
        "weights are hard links to the source and take no room; change neither in place",
        "model_max_length of the tokenizer is raised from 256 to 1024",
    ]
    geometry = geometry_of(open_checkpoint(out))
    assert (geometry.lineage, geometry.original_length, geometry.trained_length) == ("runtime", 256, 1024)


def test_stock_transformers_loads_it_with_the_same_frequencies(make_folder: Make, tmp_path: Path):
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    source = tmp_path / "real"
    LlamaForCausalLM(LlamaConfig(**LLAMA)).save_pretrained(source)
    checkpoint = open_checkpoint(source)
    plan = plan_for(checkpoint)
    write_extended(checkpoint, plan, tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    rotary = model.model.rotary_emb
    np.testing.assert_allclose(rotary.inv_freq.double().numpy(), plan.frequencies.inv_freq, rtol=1e-6)
    assert rotary.attention_scaling == pytest.approx(plan.frequencies.attention_factor)
    model.save_pretrained(tmp_path / "again")
    again = geometry_of(open_checkpoint(tmp_path / "again"))
    assert (again.lineage, again.original_length, again.trained_length) == ("runtime", 256, 1024)


def test_tokenizers_without_a_limit_keep_theirs(make_folder: Make, tmp_path: Path):
    checkpoint = open_checkpoint(make_folder(**{"tokenizer_config.json": {**TOKENIZER, "model_max_length": 10**30}}))
    assert len(write_extended(checkpoint, plan_for(checkpoint), tmp_path / "out")) == 1
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["model_max_length"] == 10**30


def test_notes_on_quantised_bare_and_linear(make_folder: Make, tmp_path: Path):
    config = {**LLAMA, "quantization_config": {"quant_method": "gptq"}}
    checkpoint = open_checkpoint(make_folder(**{"config.json": config}))
    assert "weights stay quantised as they were (gptq)" in write_extended(checkpoint, plan_for(checkpoint), tmp_path / "a")
    bare = open_checkpoint(make_folder("bare", **{"model.safetensors": None}))
    notes = write_extended(bare, plan_for(bare, "pi"), tmp_path / "b")
    assert notes[0] == "the source has no weights, so only the configuration was written"
    assert notes[1].startswith("pi is written as llama3 with all frequencies in its slow band")
    qwen = open_checkpoint(make_folder("qwen", **{"config.json": {**LLAMA, "model_type": "qwen3", "head_dim": 16}}))
    notes = write_extended(qwen, plan_for(qwen, "pi"), tmp_path / "c")
    assert notes[-1].startswith("max_position_embeddings is 256, not 1024: with linear scaling vLLM and SGLang multiply it")


def test_weights_are_copied_where_links_cannot_be_made(make_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any) -> None:
        raise OSError(errno.EXDEV, "cross-device link")

    checkpoint = open_checkpoint(make_folder())
    monkeypatch.setattr(files.os, "link", refuse)
    size = len(safetensors_bytes())
    notes = write_extended(checkpoint, plan_for(checkpoint), tmp_path / "out")
    assert notes == [f"weights were copied, {size} bytes, since the file system makes no links there"]
    copy = tmp_path / "out" / "model.safetensors"
    assert copy.read_bytes() == safetensors_bytes()
    assert not copy.samefile(checkpoint.path / "model.safetensors")


def test_links_of_a_hub_cache_are_followed(make_folder: Make, tmp_path: Path):
    (tmp_path / "cache" / "snapshots").mkdir(parents=True)
    (tmp_path / "cache" / "blobs").mkdir()
    folder = make_folder("cache/snapshots/0123abcd")
    blob = tmp_path / "cache" / "blobs" / "beef"
    (folder / "model.safetensors").rename(blob)
    (folder / "model.safetensors").symlink_to("../../blobs/beef")
    checkpoint = open_checkpoint(folder)
    write_extended(checkpoint, plan_for(checkpoint), tmp_path / "out")
    assert not (tmp_path / "out" / "model.safetensors").is_symlink()
    assert (tmp_path / "out" / "model.safetensors").samefile(blob)


def left(tmp_path: Path) -> list[str]:
    return sorted(file.name for file in tmp_path.iterdir())


def test_a_full_disk_leaves_nothing(make_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    checkpoint = open_checkpoint(make_folder(**{"tokenizer.json": {}}))
    monkeypatch.setattr(files.shutil, "copyfile", full)
    with pytest.raises(MachineError, match="the disk is full"):
        write_extended(checkpoint, plan_for(checkpoint), tmp_path / "new" / "out")
    assert left(tmp_path) == ["model"]


def test_nothing_is_made_for_what_cannot_be_written(make_folder: Make, tmp_path: Path):
    checkpoint = open_checkpoint(make_folder(**{"tokenizer_config.json": b"{"}))
    with pytest.raises(HostError, match="a dynamic plan has no faithful checkpoint"):
        write_extended(checkpoint, plan_for(checkpoint, "dynamic:ntk"), tmp_path / "new" / "out")
    with pytest.raises(SourceError, match=r"tokenizer_config\.json is not JSON"):
        write_extended(checkpoint, plan_for(checkpoint), tmp_path / "new" / "out")
    gguf = Checkpoint(path=tmp_path / "a.gguf", kind="gguf", config=LLAMA, weights=("a.gguf",), quantisation="Q4_1")
    with pytest.raises(UnsupportedError, match=r"a\.gguf is a GGUF file.*run ropewalk convert"):
        write_extended(gguf, plan_for(checkpoint), tmp_path / "new" / "out")
    assert left(tmp_path) == ["model"]


def test_an_existing_output_is_kept_unless_forced(make_folder: Make, tmp_path: Path):
    checkpoint = open_checkpoint(make_folder())
    out = tmp_path / "out"
    write_extended(checkpoint, plan_for(checkpoint), out)
    kept = (out / "config.json").read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        write_extended(checkpoint, plan_for(checkpoint, "pi"), out)
    assert (out / "config.json").read_bytes() == kept
    write_extended(checkpoint, plan_for(checkpoint, "pi"), out, force=True)
    assert json.loads((out / "config.json").read_text())["rope_parameters"]["rope_type"] == "llama3"
    with pytest.raises(OutputError, match="lie inside one another"):
        write_extended(checkpoint, plan_for(checkpoint), checkpoint.path, force=True)
    assert left(tmp_path) == ["model", "out"]


def test_a_killed_run_leaves_nothing_under_the_final_name(make_folder: Make, tmp_path: Path):
    folder = make_folder(**{"tokenizer.json": {}})
    code = (
        "import os, signal, sys\nfrom ropewalk.core.method import find\nfrom ropewalk.hosts.folder import *\n"
        "from ropewalk.hosts.folder import files\n"
        "files.shutil.copyfile = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "c = open_checkpoint(sys.argv[1])\nwrite_extended(c, find('pi').plan(geometry_of(c), 512), sys.argv[2])\n"
    )
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", code, str(folder), str(out)], capture_output=True)
    assert done.returncode == -9
    assert not out.exists()
    assert [name for name in left(tmp_path) if name.startswith(".out.stage-")]
    checkpoint = open_checkpoint(folder)
    write_extended(checkpoint, plan_for(checkpoint), out)
    assert left(tmp_path) == ["model", "out"]
