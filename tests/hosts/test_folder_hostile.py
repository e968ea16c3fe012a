"""Folders that somebody else packed: links, shards, code and configs that must not be followed, believed or run."""

import json
import math
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import Command
from small_folders import LLAMA, safetensors_bytes

import ropewalk
from ropewalk.core.errors import SourceError, UnsupportedError
from ropewalk.hosts import mark
from ropewalk.hosts.folder import open_checkpoint

Make = Callable[..., Path]
INDEX = "model.safetensors.index.json"


def refused(command: Command, folder: Path, out: Path, said: str) -> None:
    """Both `extend` and the library say one sentence; nothing is left behind."""
    result = command("extend", folder, "--method", "yarn", "--length", "1024", "--out", out)
    assert (result.code, result.out) == (2, "")
    assert result.err.count("\n") == 1
    assert said in result.err
    assert not out.exists()
    assert [path.name for path in out.parent.iterdir() if path.name.startswith(f".{out.name}")] == []


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer_config.json", "tokenizer.json", "LICENSE"])
@pytest.mark.parametrize("relative", [True, False])
def test_a_link_that_leads_outside(make_folder: Make, command: Command, tmp_path: Path, file: str, relative: bool) -> None:
    folder = make_folder(**{"tokenizer_config.json": {}, "tokenizer.json": {}, "LICENSE": b"x"})
    (folder / file).rename(tmp_path / "elsewhere")
    (folder / file).symlink_to("../elsewhere" if relative else tmp_path / "elsewhere")
    refused(command, folder, tmp_path / "out", f"{file} is a link that leads outside the checkpoint")


def test_a_chain_of_links_a_linked_subfolder_and_a_dangling_link(
    make_folder: Make, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("{}")
    chain = make_folder("chain")
    (chain / "first.json").symlink_to("second.json")
    (chain / "second.json").symlink_to("../secret")
    refused(command, chain, tmp_path / "out", "first.json is a link that leads outside")
    below = make_folder("below")
    (below / "additional_chat_templates").symlink_to(tmp_path)
    refused(command, below, tmp_path / "out", "additional_chat_templates is a link that leads outside")
    inside = make_folder("inside", **{"additional_chat_templates/a.jinja": b"x"})
    (inside / "additional_chat_templates" / "b.jinja").symlink_to("../../secret")
    refused(command, inside, tmp_path / "out", "b.jinja is a link that leads outside")
    dangling = make_folder("dangling")
    (dangling / "gone.json").symlink_to("/nowhere/at/all")
    refused(command, dangling, tmp_path / "out", "gone.json is a link that leads outside the checkpoint, to /nowhere/at/all")


def test_links_inside_the_folder_and_to_the_folder_work(make_folder: Make, tmp_path: Path) -> None:
    folder = make_folder()
    (folder / "model.safetensors").rename(folder / "weights.bin2")
    (folder / "model.safetensors").symlink_to("weights.bin2")
    (tmp_path / "name").symlink_to(folder)
    assert open_checkpoint(tmp_path / "name").kind == "folder"


def snapshot(make_folder: Make, tmp_path: Path) -> Path:
    """A hub cache as its client lays it out: every file of the snapshot a relative link into the blobs."""
    cache = tmp_path / "models--org--name"
    (cache / "snapshots").mkdir(parents=True)
    (cache / "blobs").mkdir()
    folder = make_folder("models--org--name/snapshots/0123abcd")
    for number, file in enumerate(sorted(folder.iterdir())):
        file.rename(cache / "blobs" / f"blob{number}")
        file.symlink_to(f"../../blobs/blob{number}")
    return folder


def test_a_hub_cache_is_extended(make_folder: Make, tmp_path: Path) -> None:
    folder = snapshot(make_folder, tmp_path)
    ropewalk.extend(folder, "yarn", length=1024, out=tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir() if not file.is_symlink()) == [
        mark.NAME,
        "config.json",
        "model.safetensors",
    ]
    blob = (folder / "config.json").resolve()
    assert json.loads(blob.read_text()) == LLAMA


def test_a_snapshot_that_leads_out_of_its_cache(make_folder: Make, command: Command, tmp_path: Path) -> None:
    folder = snapshot(make_folder, tmp_path)
    (tmp_path / "secret.json").write_text("{}")
    (folder / "generation_config.json").symlink_to("../../../secret.json")
    refused(command, folder, tmp_path / "out", "generation_config.json is a link that leads outside")


def shards(make_folder: Make, first: str, second: str, index: dict[str, str] | None, name: str = "model") -> Path:
    """A folder of two shards that hold one tensor each."""
    files: dict[str, Any] = {
        "model.safetensors": None,
        "model-00001-of-00002.safetensors": safetensors_bytes(8, first),
        "model-00002-of-00002.safetensors": safetensors_bytes(8, second),
    }
    return make_folder(name, **files, **({} if index is None else {INDEX: {"weight_map": index}}))


@pytest.mark.parametrize("indexed", [True, False])
def test_two_shards_that_claim_one_tensor(make_folder: Make, command: Command, tmp_path: Path, indexed: bool) -> None:
    index = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    folder = shards(make_folder, "a", "a", index if indexed else None)
    refused(command, folder, tmp_path / "out", "has the tensor 'a' twice, in model-00001-of-00002.safetensors and in")


def test_a_tensor_that_its_shard_lacks(make_folder: Make, command: Command, tmp_path: Path) -> None:
    index = {"a": "model-00001-of-00002.safetensors", "c": "model-00002-of-00002.safetensors"}
    folder = shards(make_folder, "a", "b", index)
    refused(command, folder, tmp_path / "out", "places the tensor 'c' in model-00002-of-00002.safetensors, which")
    swapped = {"b": "model-00001-of-00002.safetensors", "a": "model-00002-of-00002.safetensors"}
    folder = shards(make_folder, "a", "b", swapped, "swapped")
    refused(command, folder, tmp_path / "out", "which does not hold it")


def test_shards_of_which_one_is_not_there(make_folder: Make, command: Command, tmp_path: Path) -> None:
    folder = shards(make_folder, "a", "b", None)
    assert open_checkpoint(folder).kind == "folder"
    (folder / "model-00001-of-00002.safetensors").unlink()
    refused(command, folder, tmp_path / "out", "lacks 1 of 00002 shards, model-00001-of-00002.safetensors first; fetch them")


def two_tensors(first: list[int], second: list[int], size: int) -> bytes:
    header = {
        name: {"dtype": "U8", "shape": [b - a], "data_offsets": [a, b]} for name, (a, b) in (("a", first), ("b", second))
    }
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + bytes(size)


def test_tensors_that_lie_over_one_another(make_folder: Make, command: Command, tmp_path: Path) -> None:
    assert open_checkpoint(make_folder("good", **{"model.safetensors": two_tensors([0, 8], [8, 16], 16)})).kind == "folder"
    folder = make_folder(**{"model.safetensors": two_tensors([0, 9], [8, 16], 16)})
    refused(command, folder, tmp_path / "out", "is damaged: tensors 'a' and 'b' lie over one another")


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "/etc/secret.safetensors", "sub/x.safetensors", "..\\x.safetensors", "a\0.safetensors"]
)
def test_an_index_that_points_outside(make_folder: Make, command: Command, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.safetensors").write_bytes(safetensors_bytes())
    folder = make_folder(**{INDEX: {"weight_map": {"w": name}}})
    refused(command, folder, tmp_path / "out", "weight file")


def test_code_of_its_own_is_read_as_data_and_never_run(make_folder: Make, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    code = f"open({str(ran)!r}, 'w').write('x')\nclass Model:\n    pass\n".encode()
    config = {**LLAMA, "auto_map": {"AutoModelForCausalLM": "modeling_evil.Model"}}
    folder = make_folder(**{"config.json": config, "modeling_evil.py": code, "__init__.py": code, "sitecustomize.py": code})
    card = ropewalk.extend(folder, "yarn", length=1024, out=tmp_path / "out")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert not ran.exists()
    assert "auto_map" not in written
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [mark.NAME, "config.json", "model.safetensors"]
    said = [finding["problem"] for finding in card.findings]
    assert any("names code of its own (auto_map), which was neither read nor run" in note for note in said)
    assert ropewalk.geometry(folder).model_type == "llama"


def test_a_family_that_only_its_own_code_knows(make_folder: Make) -> None:
    config = {**LLAMA, "model_type": "evil", "auto_map": {"AutoConfig": "configuration_evil.Config"}}
    with pytest.raises(UnsupportedError, match="'evil' is not a family that ropewalk reads yet"):
        ropewalk.geometry(make_folder(**{"config.json": config}))


LONG = {"rope_type": "longrope", "original_max_position_embeddings": 64, "rope_theta": 10000.0}
"""The tiny Llama has heads of 16 dimensions, so lists of 8 numbers."""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_type": "yarn", "factor": 4.0}},
            "config.json contradicts itself: rope_scaling and rope_parameters differ in rope_type",
        ),
        (
            {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_type": "linear", "factor": 4.0}},
            "config.json contradicts itself: rope_scaling and rope_parameters differ in factor",
        ),
        ({"rope_scaling": {"type": "linear", "factor": math.nan}}, "factor must be a number above 0"),
        ({"rope_scaling": {"type": "linear", "factor": -4.0}}, "factor must be a number above 0"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "factor must be a number above 0"),
        ({"rope_scaling": {"type": "linear", "factor": math.inf}}, "factor must be a number above 0"),
        ({"rope_scaling": {"type": "yarn", "factor": "4"}}, "factor must be a number above 0"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0, "attention_factor": math.nan}}, "attention_factor must be"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0, "beta_fast": -1}}, "beta_fast = -1, expected a number above 0"),
        ({"rope_parameters": {**LONG, "short_factor": [1.0] * 7, "long_factor": [1.0] * 8}}, "must be a list of 8"),
        ({"rope_parameters": {**LONG, "short_factor": [1.0] * 8, "long_factor": [1.0] * 9}}, "must be a list of 8"),
        ({"rope_parameters": {**LONG, "short_factor": [1.0] * 8, "long_factor": [-1.0] * 8}}, "must be a list of 8"),
        (
            {"rope_parameters": {**LONG, "short_factor": [1.0] * 8, "long_factor": [math.nan] * 8}},
            "must be a list of 8",
        ),
        (
            {"rope_parameters": {**LONG, "short_factor": [1.0] * 8, "long_factor": [math.inf] * 8}},
            "must be a list of 8",
        ),
        ({"rope_parameters": {**LONG, "short_factor": 1.0, "long_factor": [1.0] * 8}}, "is a list of 8 numbers"),
        ({"rope_theta": -1.0}, "rope_theta = -1.0, expected a number above 0"),
        ({"rope_theta": math.nan}, "rope_theta = nan, expected a number above 0"),
        ({"num_hidden_layers": -1}, "num_hidden_layers = -1, expected a whole number"),
    ],
)  # fmt: skip
def test_a_config_that_parses_and_is_wrong(
    make_folder: Make, command: Command, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    refused(command, make_folder(**{"config.json": {**LLAMA, **changes}}), tmp_path / "out", said)


def test_both_spellings_that_agree_are_no_contradiction(make_folder: Make, tmp_path: Path) -> None:
    same = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    same |= {"original_max_position_embeddings": 64}
    config = {**LLAMA, "rope_scaling": same, "rope_parameters": {**same, "rope_theta": 10000.0}}
    ropewalk.extend(make_folder(**{"config.json": config}), "yarn", length=1024, out=tmp_path / "out")
    assert "rope_scaling" not in open_checkpoint(tmp_path / "out").config


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_instead_of_a_file_does_not_hang(make_folder: Make) -> None:
    folder = make_folder(**{"config.json": None})
    os.mkfifo(folder / "config.json")
    with pytest.raises(SourceError, match="it has no config"):
        open_checkpoint(folder)
