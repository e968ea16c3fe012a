"""Tensor data out of a GGUF file into safetensors files, a slice of one tensor in memory at a time.

The safetensors layout is simple enough to be written forwards: eight bytes of length, a JSON header, then the data. So no
tensor is ever whole in memory, and a full disk is an ordinary error. Dequantisation is the `gguf` package's; rows that
llama.cpp reordered are put back while they are still quantised, which is exact.

Given up: keeping a quantised form (transformers folders have no place for it).
"""

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ropewalk.core.errors import InputError, SourceError, UnsupportedError, near
from ropewalk.core.progress import Progress
from ropewalk.hosts.gguf.header import BLOCKS, Header, TensorInfo
from ropewalk.hosts.gguf.tensors import Target

SLICE_ELEMENTS = 1 << 24
"""Elements that are dequantised at once: 64 MB in float32."""
SHARD_BYTES = 4 << 30
"""A new file begins where the next tensor would go beyond this."""
DTYPES: Mapping[str, tuple[str, int]] = {"float32": ("F32", 4), "float16": ("F16", 2), "bfloat16": ("BF16", 2)}
"""Our names, safetensors' names and bytes of an element."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One safetensors file to be written."""

    file: str
    tensors: tuple[str, ...]
    """GGUF names, in the order of the data."""


def check_dtype(dtype: str) -> str:
    """`dtype` itself, or `InputError` where weights cannot be written in it."""
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r} cannot be written; {near(str(dtype), DTYPES)}")
    return dtype


def check_types(header: Header, targets: Mapping[str, Target]) -> None:
    """Raises `UnsupportedError` where a tensor's type cannot be dequantised."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    for name in targets:
        tensor = header.tensors[name]
        block = np.zeros((1, BLOCKS[tensor.type][2]), np.uint8).view(_storage(tensor))
        try:
            dequantize(block, GGMLQuantizationType(tensor.type))
            readable = True
        except (ValueError, NotImplementedError):
            readable = False
        if not readable:
            raise UnsupportedError(
                f"GGUF tensor {name} has type {tensor.type_name}, which the installed gguf package cannot dequantise; "
                "take a file of another quantisation"
            )


def shards(targets: Mapping[str, Target], dtype: str) -> list[Shard]:
    """How tensors are spread over files: one `model.safetensors`, or numbered files of at most 4 GiB."""
    groups: list[list[str]] = [[]]
    filled = 0
    for name, target in targets.items():
        size = num_bytes(target, dtype)
        if groups[-1] and filled + size > SHARD_BYTES:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    if len(groups) == 1:
        return [Shard(file="model.safetensors", tensors=tuple(groups[0]))]
    return [
        Shard(file=f"model-{index:05d}-of-{len(groups):05d}.safetensors", tensors=tuple(group))
        for index, group in enumerate(groups, start=1)
    ]


def num_bytes(target: Target, dtype: str) -> int:
    """What a tensor takes once written."""
    return int(np.prod(target.shape)) * DTYPES[dtype][1]


def write(header: Header, targets: Mapping[str, Target], folder: Path, dtype: str, progress: Progress | None) -> None:
    """Writes all weights into `folder`, and the index where there are several files.

    Raises `SourceError` where tensor data is broken, `InputError` where `dtype` cannot hold a number, `OSError` where the
    disk fails.
    """
    total = sum(num_bytes(target, dtype) for target in targets.values())
    files = shards(targets, dtype)
    done = 0
    for shard in files:
        with (folder / shard.file).open("wb") as file:
            file.write(_head([targets[name] for name in shard.tensors], dtype))
            for name in shard.tensors:
                for piece in _pieces(header, header.tensors[name], targets[name], dtype):
                    # numpy's own tofile loses the number of the error.
                    file.write(np.ascontiguousarray(piece).data)
                    done += piece.nbytes
                    if progress is not None:
                        progress.at(done / total)
    if len(files) > 1:
        names = {targets[name].name: shard.file for shard in files for name in shard.tensors}
        index = {"metadata": {"total_size": total}, "weight_map": names}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _head(targets: list[Target], dtype: str) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for target in targets:
        end = start + num_bytes(target, dtype)
        entries[target.name] = {"dtype": DTYPES[dtype][0], "shape": list(target.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    # The data begins at a multiple of 8, so that it can be mapped.
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _pieces(header: Header, tensor: TensorInfo, target: Target, dtype: str) -> Iterator[NDArray[Any]]:
    """The tensor as it is written, a slice of rows at a time."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    kind = GGMLQuantizationType(tensor.type)
    columns = tensor.shape[-1]
    num_rows = tensor.num_elements // columns
    order = target.order()
    if order is not None and len(tensor.shape) == 1:
        num_rows, columns = columns, 1
    row_bytes = tensor.num_bytes // num_rows
    step = max(1, SLICE_ELEMENTS // columns)
    with header.path.open("rb") as file:
        for start in range(0, num_rows, step):
            stop = min(start + step, num_rows)
            rows = _rows(file, tensor, row_bytes, start, stop, order)
            # A scale that is no number is found below, in the values.
            with np.errstate(all="ignore"):
                values = dequantize(rows.view(_storage(tensor)), kind).astype(np.float32, copy=False)
            if target.added:
                values = values - np.float32(target.added)
            yield _cast(values, tensor.name, header.path, dtype)


def _storage(tensor: TensorInfo) -> str:
    """How the gguf package wants the bytes of a tensor."""
    return {"F32": "<f4", "F16": "<f2"}.get(tensor.type_name, "u1")


def _rows(
    file: BinaryIO, tensor: TensorInfo, row_bytes: int, start: int, stop: int, order: NDArray[np.int64] | None
) -> NDArray[np.uint8]:
    """Rows `start` to `stop` of the model's order, still quantised: uint8 [rows, row_bytes]."""
    # Reordered rows stay within their head, but a slice may end in the middle of one: such tensors are read whole.
    first, last = (start, stop) if order is None else (0, tensor.num_bytes // row_bytes)
    file.seek(tensor.offset + first * row_bytes)
    data = file.read((last - first) * row_bytes)
    if len(data) != (last - first) * row_bytes:
        raise SourceError(f"GGUF file ended inside tensor {tensor.name}; get the file anew")
    rows = np.frombuffer(data, np.uint8).reshape(last - first, row_bytes)
    return rows if order is None else rows[order[start:stop]]


def _cast(values: NDArray[np.float32], name: str, path: Path, dtype: str) -> NDArray[Any]:
    if not np.all(np.isfinite(values)):
        raise SourceError(f"GGUF file {path} is broken: tensor {name} holds values that are not numbers; get it anew")
    if dtype == "float32":
        return values.astype("<f4", copy=False)
    if dtype == "float16":
        with np.errstate(over="ignore"):
            halves = values.astype("<f2")
        if not np.all(np.isfinite(halves)):
            raise InputError(f"tensor {name} holds numbers beyond float16; convert with --dtype bfloat16 or float32")
        return halves
    bits = np.ascontiguousarray(values).view(np.uint32)
    # Round to nearest, ties to even, as torch does.
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
