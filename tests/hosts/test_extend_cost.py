"""Extending costs the same whatever the size of the weights: headers are read, tensors are not.

The folder has the shape of a 70B model in sparse files: whole headers, no data. What was read is counted by the kernel
(`/proc/self/io`, every byte that any call of this process read) and by where in each weight file Python's own reads ended.
"""

import io
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from large_folders import LLAMA_70B, write_sparse

import ropewalk
from ropewalk.hosts.folder import files

IO = Path("/proc/self/io")


@pytest.fixture
def large(tmp_path: Path) -> Path:
    assert write_sparse(tmp_path / "large", LLAMA_70B) > 140e9
    return tmp_path / "large"


def headers(folder: Path) -> dict[str, int]:
    """Bytes before the tensors of each weight file."""
    found = {}
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            found[path.name] = 8 + int.from_bytes(file.read(8), "little")
    return found


def watched(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Weight file to the last byte that was read of it through Python's files, from now on."""
    ends: dict[str, int] = {}
    real = io.open

    class Watched:
        def __init__(self, file: Any, name: str) -> None:
            self.file, self.name = file, name

        def __enter__(self) -> "Watched":
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"{name} of a weight file is not counted here")

        def read(self, size: int) -> bytes:
            content: bytes = self.file.read(size)
            ends[self.name] = max(ends.get(self.name, 0), self.file.tell())
            return content

    def opened(file: Any, *arguments: Any, **words: Any) -> Any:
        found = real(file, *arguments, **words)
        return Watched(found, Path(file).name) if str(file).endswith(".safetensors") else found

    monkeypatch.setattr(io, "open", opened)
    monkeypatch.setattr("builtins.open", opened)
    return ends


def test_no_byte_of_a_tensor_is_read(large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = headers(large)
    assert len(expected) > 25
    with monkeypatch.context() as patch:
        ends = watched(patch)
        card = ropewalk.extend(large, "yarn", length="32k", out=tmp_path / "out")
    assert ends == expected
    assert any("hard links to the source" in finding["problem"] for finding in card.findings)
    for name in expected:
        assert (tmp_path / "out" / name).samefile(large / name)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["max_position_embeddings"] == 32768


def without_tensors(folder: Path, out: Path) -> Path:
    """The same folder, its headers as long as before, where no tensor has a byte: nothing is there to be read too much."""
    out.mkdir()
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            (out / path.name).write_bytes(path.read_bytes())
            continue
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
        for tensor in header.keys() - {"__metadata__"}:
            header[tensor] |= {"shape": [0], "data_offsets": [0, 0]}
        (out / path.name).write_bytes(struct.pack("<Q", size) + json.dumps(header).encode().ljust(size))
    return out


@pytest.mark.skipif(not IO.is_file(), reason="needs Linux")
def test_the_kernel_counts_the_same_as_without_any_tensor(large: Path, tmp_path: Path) -> None:
    empty = without_tensors(large, tmp_path / "empty")
    # Imports read files too, so everything is imported once before.
    ropewalk.extend(large, "yarn", length="32k", out=tmp_path / "first")
    counts = []
    for source, out in ((large, "out-1"), (empty, "out-2")):
        before = count()
        ropewalk.extend(source, "yarn", length="64k", out=tmp_path / out)
        counts.append(count() - before)
    assert counts[0] == counts[1]


def count() -> int:
    return int(IO.read_text().split()[1])


def test_a_copy_goes_file_by_file_in_streams(large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(files.shutil, "copyfile", lambda a, b: asked.append((os.path.basename(a), Path(b).name)))
    ropewalk.extend(large, "yarn", length="32k", out=tmp_path / "out", copy=True)
    assert sorted(asked) == sorted((name, name) for name in [*headers(large), "model.safetensors.index.json"])


def test_a_copy_is_a_copy(make_folder: Any, tmp_path: Path) -> None:
    source = make_folder()
    card = ropewalk.extend(source, "yarn", length=1024, out=tmp_path / "out", copy=True)
    size = (source / "model.safetensors").stat().st_size
    assert not (tmp_path / "out" / "model.safetensors").samefile(source / "model.safetensors")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    assert card.findings[0]["problem"] == f"weights were copied, {size} bytes, as asked"


def test_the_command_line_copies_too(make_folder: Any, command: Any, tmp_path: Path) -> None:
    arguments = ["--method", "yarn", "--length", "1024", "--out", tmp_path / "out", "--copy"]
    result = command("extend", make_folder(), *arguments)
    assert result.code == 0
    assert "as asked" in result.err


def test_blocks_are_shared_where_links_are_not_made(
    make_folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(*_: Any) -> None:
        raise OSError(18, "cross-device link")

    def share(source: str, target: Path) -> bool:
        target.write_bytes(Path(source).read_bytes())
        return True

    monkeypatch.setattr(files.os, "link", no_link)
    monkeypatch.setattr(files, "share_blocks", share)
    card = ropewalk.extend(make_folder(), "yarn", length=1024, out=tmp_path / "out")
    assert "share their blocks with the source" in card.findings[0]["problem"]
