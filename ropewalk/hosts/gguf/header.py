"""Read the header of a GGUF file: metadata and where each tensor lies, nothing else.

A header is input from anywhere, so every count, length and offset is checked against the file before anything is
allocated for it: reading costs at most the bytes that are there, and a broken file is one sentence. Long lists of text
(a tokenizer's vocabulary) are walked over and only counted. Layout: the format's own specification, ggml's docs/gguf.md,
versions 2 and 3, little-endian.

Given up: version 1 (a few weeks of 2023), big-endian files, nested arrays (which llama.cpp refuses too) and files that
were split into parts.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ropewalk.core.errors import SourceError, UnsupportedError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 20
MAX_STRING = 1 << 24
MAX_ARRAY = 1 << 26
"""Bytes of one text and of one array. The largest seen in the wild are a chat template of 30 kB and a list of 4 MB."""
MAX_DIMS = 4
MAX_STRINGS = 1 << 21
"""Elements of a list of text; the largest vocabularies have 2^18."""
KEPT_STRINGS = 1024
"""A list of text with more elements is counted, not kept."""

BLOCKS: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}
"""Tensor type number: its name, how many elements a block holds, and the bytes of a block."""

_SCALARS: Mapping[int, str] = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "|b1",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class Counted:
    """A long list of text in the metadata, of which only the number of elements is kept."""

    count: int

    def __len__(self) -> int:
        return self.count


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """Where one tensor lies in the file."""

    name: str
    shape: tuple[int, ...]
    """Slowest dimension first, as in numpy and torch (the file has it the other way round)."""
    type: int
    """The format's number of the tensor type; a key of `BLOCKS`."""
    offset: int
    """Bytes from the start of the file."""
    num_bytes: int

    @property
    def type_name(self) -> str:
        """The tensor type as people write it, such as `Q4_1`."""
        return BLOCKS[self.type][0]

    @property
    def num_elements(self) -> int:
        """Elements, whatever they are packed into."""
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a GGUF file says before its tensor data."""

    path: Path
    version: int
    metadata: Mapping[str, Any]
    """Keys as in the file; numbers, booleans, text, numpy arrays, lists of text, or `Counted`."""
    tensors: Mapping[str, TensorInfo]
    """By name, in the file's order."""
    file_size: int
    alignment: int = 32
    """Tensor data begin at multiples of so many bytes."""
    spans: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Where each key's entry (its name, type and value) begins and ends in the file, bytes."""

    @property
    def architecture(self) -> str:
        """`general.architecture`: llama.cpp's name for the model family."""
        return str(self.metadata["general.architecture"])


class _Cursor:
    """Reads forward through a file and never asks for more than it still has."""

    def __init__(self, file: BinaryIO, path: Path, size: int) -> None:
        self.file, self.path, self.size, self.position = file, path, size, 0

    def broken(self, problem: str) -> SourceError:
        return SourceError(f"GGUF file {self.path} is broken: {problem}; download it again")

    def need(self, count: int, what: str) -> None:
        if count > self.size - self.position:
            raise self.broken(
                f"{what} at byte {self.position} takes at least {count} bytes, "
                f"and the file ends after {self.size - self.position}"
            )

    def take(self, count: int, what: str) -> bytes:
        self.need(count, what)
        data = self.file.read(count)
        if len(data) != count:
            raise self.broken(f"it ended while {what} was read")
        self.position += count
        return data

    def u32(self, what: str) -> int:
        return int(struct.unpack("<I", self.take(4, what))[0])

    def u64(self, what: str) -> int:
        return int(struct.unpack("<Q", self.take(8, what))[0])

    def text_bytes(self, what: str) -> bytes:
        length = self.u64(f"the length of {what}")
        if length > MAX_STRING:
            raise self.broken(f"{what} claims {length} bytes of text, at most {MAX_STRING} make sense")
        return self.take(length, what)

    def name(self, what: str) -> str:
        try:
            return self.text_bytes(what).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.broken(f"{what} is not UTF-8 text") from error


def read_header(path: str | Path) -> Header:
    """The header of the GGUF file at `path`.

    Raises `SourceError` where the file is no GGUF file or a broken one, `UnsupportedError` where it is one part of many.
    """
    path = Path(path)
    try:
        status = path.stat()
        if not S_ISREG(status.st_mode):
            raise SourceError(f"{path} is not a file; expected a GGUF file")
        with path.open("rb") as file:
            return _read(_Cursor(file, path, status.st_size))
    except OSError as error:
        raise SourceError(f"GGUF file {path} cannot be read: {error.strerror or error}") from error


def _read(cursor: _Cursor) -> Header:
    magic = cursor.take(min(4, cursor.size), "the magic number")
    if magic != MAGIC:
        raise SourceError(f"{cursor.path} is not a GGUF file: it starts with {magic!r}, expected {MAGIC!r}")
    version = _version(cursor)
    num_tensors, num_keys = cursor.u64("the tensor count"), cursor.u64("the key count")
    if num_keys > MAX_KEYS or num_tensors > MAX_TENSORS:
        raise cursor.broken(
            f"it claims {num_tensors} tensors and {num_keys} keys, at most {MAX_TENSORS} and {MAX_KEYS} make sense"
        )
    # A key takes at least 8 + 4 + 1 bytes and a tensor 8 + 4 + 8 + 4 + 8: nonsense is refused before it is walked.
    cursor.need(13 * num_keys + 32 * num_tensors, "what its counts claim")
    metadata: dict[str, Any] = {}
    spans: dict[str, tuple[int, int]] = {}
    for index in range(num_keys):
        begin = cursor.position
        key = cursor.name(f"key {index}")
        if key in metadata:
            raise cursor.broken(f"key {key!r} appears twice")
        metadata[key] = _value(cursor, cursor.u32(f"the type of {key!r}"), f"the value of {key!r}")
        spans[key] = (begin, cursor.position)
    entries = [_entry(cursor, index) for index in range(num_tensors)]
    _check(cursor, metadata)
    alignment = _alignment(cursor, metadata)
    start = -(-cursor.position // alignment) * alignment
    tensors: dict[str, TensorInfo] = {}
    for name, shape, kind, offset in entries:
        if name in tensors:
            raise cursor.broken(f"tensor {name!r} appears twice")
        tensors[name] = _place(cursor, name, shape, kind, offset, start=start, alignment=alignment)
    return Header(
        path=cursor.path,
        version=version,
        metadata=metadata,
        tensors=tensors,
        file_size=cursor.size,
        alignment=alignment,
        spans=spans,
    )


def _version(cursor: _Cursor) -> int:
    version = cursor.u32("the version")
    if version in VERSIONS:
        return version
    if version and version & 0xFFFF == 0:
        raise SourceError(f"GGUF file {cursor.path} is big-endian; convert it with gguf-convert-endian first")
    known = " and ".join(map(str, VERSIONS))
    raise SourceError(f"GGUF file {cursor.path} has version {version}, expected {known}; make it anew from its source")


def _value(cursor: _Cursor, kind: int, what: str) -> Any:
    if kind == _STRING:
        # Text is shown to people and never decides where we read, so bad bytes in it are no reason to refuse a model.
        return cursor.text_bytes(what).decode("utf-8", errors="replace")
    if kind == _ARRAY:
        return _array(cursor, what)
    scalar = _SCALARS.get(kind)
    if scalar is None:
        raise cursor.broken(f"{what} has the unknown type {kind}")
    dtype = np.dtype(scalar)
    return np.frombuffer(cursor.take(dtype.itemsize, what), dtype)[0].item()


def _array(cursor: _Cursor, what: str) -> NDArray[Any] | list[str] | Counted:
    kind, count = cursor.u32(what), cursor.u64(what)
    if kind == _STRING:
        if count > MAX_STRINGS:
            raise cursor.broken(f"{what} claims {count} elements, at most {MAX_STRINGS} make sense")
        cursor.need(8 * count, what)
        if count <= KEPT_STRINGS:
            return [cursor.text_bytes(what).decode("utf-8", errors="replace") for _ in range(count)]
        for _ in range(count):
            cursor.text_bytes(what)
        return Counted(count)
    scalar = _SCALARS.get(kind)
    if scalar is None:
        raise cursor.broken(f"{what} is a list of the unknown type {kind}")
    dtype = np.dtype(scalar)
    if count * dtype.itemsize > MAX_ARRAY:
        raise cursor.broken(f"{what} claims {count} elements, at most {MAX_ARRAY // dtype.itemsize} make sense")
    return np.frombuffer(cursor.take(count * dtype.itemsize, what), dtype)


def _entry(cursor: _Cursor, index: int) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape, type and offset of one tensor, as the file says them."""
    name = cursor.name(f"the name of tensor {index}")
    num_dims = cursor.u32(f"the number of dimensions of {name!r}")
    if not 1 <= num_dims <= MAX_DIMS:
        raise cursor.broken(f"tensor {name!r} has {num_dims} dimensions, expected 1 to {MAX_DIMS}")
    shape = struct.unpack(f"<{num_dims}Q", cursor.take(8 * num_dims, f"the shape of {name!r}"))[::-1]
    return name, shape, cursor.u32(f"the type of {name!r}"), cursor.u64(f"the offset of {name!r}")


def _place(
    cursor: _Cursor, name: str, shape: tuple[int, ...], kind: int, offset: int, *, start: int, alignment: int
) -> TensorInfo:
    if kind not in BLOCKS:
        raise cursor.broken(f"tensor {name!r} has the unknown type {kind}")
    type_name, block, block_bytes = BLOCKS[kind]
    if any(size == 0 for size in shape) or shape[-1] % block:
        raise cursor.broken(f"tensor {name!r} of shape {shape} is not made of {type_name} blocks of {block} elements")
    num_bytes = math.prod(shape) // block * block_bytes
    if offset % alignment:
        raise cursor.broken(f"tensor {name!r} starts at offset {offset}, which is not a multiple of {alignment}")
    if start + offset + num_bytes > cursor.size:
        raise SourceError(
            f"GGUF file {cursor.path} is truncated: tensor {name!r} ends at byte {start + offset + num_bytes}, "
            f"the file at {cursor.size}; download it again"
        )
    return TensorInfo(name=name, shape=shape, type=kind, offset=start + offset, num_bytes=num_bytes)


def _alignment(cursor: _Cursor, metadata: Mapping[str, Any]) -> int:
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or not 8 <= alignment <= 1 << 20 or alignment % 8:
        raise cursor.broken(f"general.alignment is {alignment!r:.40}, expected a multiple of 8")
    return alignment


def _check(cursor: _Cursor, metadata: Mapping[str, Any]) -> None:
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or not architecture:
        raise cursor.broken(f"general.architecture is {architecture!r:.40}, expected the name of a model family")
    parts = metadata.get("split.count", 0)
    if isinstance(parts, int) and parts > 1:
        raise UnsupportedError(
            f"GGUF file {cursor.path} is one of {parts} parts; join them with llama-gguf-split --merge first"
        )
